// A model that transformers saved, run and differentiated by Adder:
// tests/golden/models_hf/mamba_base.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "core/error.h"
#include "formats/model_files.h"
#include "formats/safetensors.h"
#include "infer/engine.h"
#include "models/model_io.h"

namespace adder {
namespace {

// The golden was run in float64, but that code casts A and the scan to float32 (golden/README.md).
constexpr double kTolerance = 1e-5;

const std::string kModel = ADDER_SOURCE_DIR "/tests/golden/models_hf/mamba_base";

struct Golden {
  SafetensorsFile file{kModel + "/golden.safetensors"};
  TokenLayout layout;
  std::vector<int32_t> ids;
  std::vector<int32_t> targets;

  Golden() {
    const TensorInfo info = file.info("input_ids");
    layout.batch = info.shape[0];
    layout.len = info.shape[1];
    ids = read<int32_t>("input_ids");
    for (size_t i = 0; i < ids.size(); ++i) {
      const bool last = (static_cast<int64_t>(i) + 1) % layout.len == 0;
      targets.push_back(last ? -100 : ids[i + 1]);
    }
  }
  template <class T>
  std::vector<T> read(const std::string& name) const {
    std::vector<T> values(static_cast<size_t>(file.info(name).elements()));
    file.read_as(name, values.data());
    return values;
  }
};

// Largest difference over the largest magnitude.
template <class T>
double relative_difference(const std::vector<double>& expected, const T* got) {
  double worst = 0, scale = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(expected[i] - static_cast<double>(got[i]));
    worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
    scale = std::max(scale, std::abs(expected[i]));
  }
  return worst / scale;
}

template <class Call>
void run_planned(const Call& call) {
  Context context;
  context.threads = 2;
  Arena arena(plan_bytes(context, call));
  context.arena = &arena;
  call(context);
}

template <class Acc>
std::vector<Acc> logits_of(const LanguageModel<Acc>& model, const TokenLayout& layout,
                           const std::vector<int32_t>& ids) {
  std::vector<Acc> logits(ids.size() * static_cast<size_t>(model.padded_vocab()));
  run_planned([&](Context& context) {
    model.logits(context, layout, ids.data(), nullptr, false, logits.data());
  });
  return logits;
}

template <class Acc>
class GoldenMamba : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(GoldenMamba, Types);

TYPED_TEST(GoldenMamba, LogitsLossAndEveryGradient) {
  const Golden golden;
  const auto model = load_model<TypeParam>(kModel, dtype_of<TypeParam>);
  const auto logits = logits_of(*model, golden.layout, golden.ids);
  const double off = relative_difference(golden.read<double>("logits"), logits.data());
  EXPECT_LE(off, kTolerance);

  model->enable_training();
  TokenBatch batch;
  batch.layout = golden.layout;
  batch.ids = golden.ids.data();
  batch.targets = golden.targets.data();
  const double count = static_cast<double>(golden.layout.batch * (golden.layout.len - 1));
  std::vector<double> row_loss(golden.ids.size());
  run_planned([&](Context& context) {
    model->train_batch(context, batch, {}, 1.0 / count, row_loss.data());
  });
  double loss = 0;
  for (const double value : row_loss) loss += value / count;
  const double expected = golden.read<double>("loss")[0];
  EXPECT_NEAR(loss, expected, kTolerance * expected);

  int gradients = 0;
  double worst = 0;
  for (const std::string& name : golden.file.names()) {
    if (name.rfind("grad.", 0) != 0) continue;
    ++gradients;
    const int64_t index = model->params().find(name.substr(5));
    ASSERT_GE(index, 0) << name;
    EXPECT_EQ(model->params().info(index).shape, golden.file.info(name).shape) << name;
    const double difference = relative_difference(golden.read<double>(name), model->grad(index));
    EXPECT_LE(difference, kTolerance) << name;
    worst = std::max(worst, difference);
  }
  EXPECT_EQ(gradients, 32);
  std::printf("logits %.1e, loss %.1e, worst of %d gradients %.1e (relative)\n", off,
              std::abs(loss / expected - 1), gradients, worst);

  // The comparison can fail: one weight moved by a thousandth shows.
  model->value(model->params().find("backbone.layers.1.mixer.D"))[3] += TypeParam(1e-3);
  EXPECT_GT(relative_difference(golden.read<double>("logits"),
                                logits_of(*model, golden.layout, golden.ids).data()),
            kTolerance);
}

TEST(GoldenMamba, GreedyGeneration) {
  const Golden golden;
  const auto expected = golden.read<int32_t>("greedy");
  ASSERT_EQ(expected.size(), 33u);
  const auto prompt = std::span<const int32_t>(golden.ids).first(9);
  ASSERT_TRUE(std::equal(prompt.begin(), prompt.end(), expected.begin()));
  Engine engine(load_model<float>(kModel, Dtype::f32));
  Generation request;
  request.max_tokens = 24;
  request.sampling.temperature = 0;
  const auto result = engine.generate(0, prompt, request);
  EXPECT_EQ(result.ids, std::vector<int32_t>(expected.begin() + 9, expected.end()));
}

// Forward, prefill in chunks of any split and one-token steps are the same function.
TEST(GoldenMamba, ForwardIsPrefillIsSteps) {
  const Golden golden;
  const std::shared_ptr<const LanguageModel<float>> model = load_model<float>(kModel, Dtype::f32);
  TokenLayout row;
  row.len = golden.layout.len;
  const std::vector<int32_t> ids(golden.ids.begin(), golden.ids.begin() + row.len);
  const auto whole = logits_of(*model, row, ids);
  const size_t vocab = 97;
  const std::vector<double> last(whole.end() - static_cast<int64_t>(vocab), whole.end());
  int bit_equal = 0, tried = 0;
  for (int64_t chunk = 1; chunk <= row.len; ++chunk) {
    EngineOptions options;
    options.chunk = chunk;
    Engine engine(model, options);
    const auto logits = engine.prefill(0, ids);
    EXPECT_LE(relative_difference(last, logits.data()), kTolerance) << "chunk " << chunk;
    ++tried;
    bit_equal +=
        std::memcmp(logits.data(), whole.data() + whole.size() - vocab, vocab * sizeof(float)) == 0;
  }
  std::printf("%d of %d splits give the bits of the whole\n", bit_equal, tried);
  Engine engine(model);
  const int32_t slot = 0;
  for (size_t t = 0; t < ids.size(); ++t) {
    const auto logits = engine.step({&slot, 1}, {&ids[t], 1});
    const std::vector<double> expected(whole.begin() + static_cast<int64_t>(t * vocab),
                                       whole.begin() + static_cast<int64_t>((t + 1) * vocab));
    EXPECT_LE(relative_difference(expected, logits.data()), kTolerance) << "token " << t;
  }
}

TEST(GoldenMamba, SavedAndReloadedGivesTheSameBits) {
  const Golden golden;
  const std::string folder =
      std::filesystem::temp_directory_path() / ("adder_golden_" + std::to_string(getpid()));
  const auto model = load_model<float>(kModel, Dtype::f32);
  EXPECT_EQ(save_model(*model, folder), "");
  const auto reloaded = load_model<float>(folder, Dtype::f32);
  EXPECT_EQ(reloaded->config(), model->config());
  const auto a = logits_of(*model, golden.layout, golden.ids);
  const auto b = logits_of(*reloaded, golden.layout, golden.ids);
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0);
  // The same tensors under the same names as transformers wrote them.
  const ModelFiles before(kModel), after(folder);
  EXPECT_EQ(before.names(), after.names());
  for (const std::string& name : before.names()) {
    EXPECT_EQ(before.info(name).shape, after.info(name).shape) << name;
  }
  EXPECT_EQ(before.generation().eos_token_ids, after.generation().eos_token_ids);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace adder
