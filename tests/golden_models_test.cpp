// Models that the published code saved, run and differentiated by Adder: tests/golden/models_hf
// (transformers) and tests/golden/models_native (state-spaces/mamba).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "formats/model_files.h"
#include "formats/safetensors.h"
#include "formats/scratch_folder.h"
#include "infer/engine.h"
#include "models/model_io.h"
#include "models/model_runner.h"

namespace adder {
namespace {

struct GoldenCase {
  const char* name;
  const char* folder;
  int gradients;
  // Of the golden itself (golden/README.md): transformers casts A and the scan to float32; the
  // kernels of state-spaces/mamba are float32, and those of Mamba-2 use TF32.
  double tolerance;
  double gradient_tolerance;
  // The loss of state-spaces/mamba counts the columns that pad the vocabulary.
  bool padded_loss;

  std::string model() const { return std::string(ADDER_SOURCE_DIR "/tests/golden/") + folder; }
};
void PrintTo(const GoldenCase& which, std::ostream* out) { *out << which.name; }

// The tolerance rule of design.md 6 with the unit roundoff of TF32, 2^-11, and S the largest entry.
constexpr double kTf32 = 8.0 / 2048;

const GoldenCase kCases[] = {
    {"hf_mamba", "models_hf/mamba_base", 32, 1e-5, 1e-5, false},
    {"hf_mamba2", "models_hf/mamba2_base", 30, 1e-5, 1e-5, false},
    {"native_mamba1", "models_native/mamba1", 32, 1e-5, 1e-5, true},
    {"native_mamba2", "models_native/mamba2", 29, 1e-3, kTf32, true},
};

template <class Acc>
std::unique_ptr<LanguageModel<Acc>> load_golden(const GoldenCase& which) {
  ModelConfig config = ModelFiles(which.model()).config();
  if (which.padded_loss) config.vocab_size = config.padded_vocab_size();
  ModelBuild build;
  build.compute = dtype_of<Acc>;
  auto model = make_model<Acc>(config, build);
  load_parameters<Acc>(which.model(), *model);
  return model;
}

struct Golden {
  SafetensorsFile file;
  int64_t batch = 0, len = 0;
  std::vector<int32_t> ids;
  std::vector<int32_t> targets;

  CallInput input() const { return {.batch = batch, .len = len, .ids = ids, .targets = targets}; }

  explicit Golden(const GoldenCase& which) : file(which.model() + "/golden.safetensors") {
    const TensorInfo info = file.info("input_ids");
    batch = info.shape[0];
    len = info.shape[1];
    ids = read<int32_t>("input_ids");
    for (size_t i = 0; i < ids.size(); ++i) {
      const bool last = (static_cast<int64_t>(i) + 1) % len == 0;
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

template <class Acc>
std::vector<Acc> logits_of(const LanguageModel<Acc>& model, const CallInput& input) {
  ModelRunner<Acc> runner(model, Context{.threads = 2}, "test");
  const auto logits = runner.logits(input);
  return {logits.begin(), logits.end()};
}

class GoldenModel : public testing::TestWithParam<GoldenCase> {
 protected:
  // Logits, loss and every gradient in one compute type.
  template <class Acc>
  void expect_the_golden() {
    const GoldenCase& which = GetParam();
    const Golden golden(which);
    const auto model = load_golden<Acc>(which);
    const auto expected_logits = golden.read<double>("logits");
    const auto logits = logits_of(*model, golden.input());
    const double off = relative_difference(expected_logits, logits.data());
    EXPECT_LE(off, which.tolerance);

    const double loss = train_once(golden, *model);
    const double expected = golden.read<double>("loss")[0];
    EXPECT_NEAR(loss, expected, which.tolerance * expected);
    const double worst = compare_gradients(golden, *model);
    std::printf("logits %.1e, loss %.1e, worst gradient %.1e (relative)\n", off,
                std::abs(loss / expected - 1), worst);

    // The comparison can fail: one weight moved by a hundred tolerances shows.
    const int64_t index = model->params().find("backbone.layers.1.mixer.D");
    const Acc weight = model->store().read(index)[3] + static_cast<Acc>(100 * which.tolerance);
    model->store().write(index, 3, 1, &weight);
    EXPECT_GT(relative_difference(expected_logits, logits_of(*model, golden.input()).data()),
              which.tolerance);
  }

  template <class Acc>
  static double train_once(const Golden& golden, LanguageModel<Acc>& model) {
    model.enable_training();
    const double count = static_cast<double>(golden.batch * (golden.len - 1));
    ModelRunner<Acc> runner(model, Context{.threads = 2}, "test");
    const auto row_loss = runner.losses_and_gradients(model, golden.input(), 1.0 / count);
    double loss = 0;
    for (const double value : row_loss) loss += value / count;
    return loss;
  }

  template <class Acc>
  static double compare_gradients(const Golden& golden, const LanguageModel<Acc>& model) {
    int gradients = 0;
    double worst = 0;
    for (const std::string& name : golden.file.names()) {
      if (name.rfind("grad.", 0) != 0) continue;
      ++gradients;
      const std::string stored = name.substr(5);
      const int64_t index = model.params().find(
          stored == "backbone.embedding.weight" ? "backbone.embeddings.weight" : stored);
      EXPECT_GE(index, 0) << name;
      if (index < 0) continue;
      EXPECT_EQ(model.params().info(index).shape, golden.file.info(name).shape) << name;
      const double difference =
          relative_difference(golden.read<double>(name), model.store().read_gradient(index).data());
      EXPECT_LE(difference, GetParam().gradient_tolerance) << name;
      worst = std::max(worst, difference);
    }
    EXPECT_EQ(gradients, GetParam().gradients);
    return worst;
  }
};

TEST_P(GoldenModel, LogitsLossAndEveryGradientInFloat) { expect_the_golden<float>(); }
TEST_P(GoldenModel, LogitsLossAndEveryGradientInDouble) { expect_the_golden<double>(); }

TEST_P(GoldenModel, GreedyGeneration) {
  const Golden golden(GetParam());
  const auto expected = golden.read<int32_t>("greedy");
  ASSERT_EQ(expected.size(), 33u);
  const auto prompt = std::span<const int32_t>(golden.ids).first(9);
  ASSERT_TRUE(std::equal(prompt.begin(), prompt.end(), expected.begin()));
  Engine engine(load_golden<float>(GetParam()));
  Generation request;
  request.max_tokens = 24;
  request.sampling.temperature = 0;
  const auto result = engine.generate(0, prompt, request);
  EXPECT_EQ(result.ids, std::vector<int32_t>(expected.begin() + 9, expected.end()));
}

// Forward, prefill in chunks of any split and one-token steps are the same function.
TEST_P(GoldenModel, ForwardIsPrefillIsSteps) {
  const Golden golden(GetParam());
  const std::shared_ptr<const LanguageModel<float>> model = load_golden<float>(GetParam());
  constexpr double kTolerance = 1e-5;
  const std::vector<int32_t> ids(golden.ids.begin(), golden.ids.begin() + golden.len);
  const auto whole = logits_of(*model, {.len = golden.len, .ids = ids});
  const auto vocab = static_cast<size_t>(model->padded_vocab());
  const std::vector<double> last(whole.end() - static_cast<int64_t>(vocab), whole.end());
  int bit_equal = 0, tried = 0;
  for (int64_t chunk = 1; chunk <= golden.len; ++chunk) {
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

TEST_P(GoldenModel, SavedAndReloadedGivesTheSameBits) {
  const GoldenCase& which = GetParam();
  const Golden golden(which);
  const ScratchFolder scratch;
  const std::string folder = scratch.at("model");
  const auto model = load_model<float>(which.model(), ModelBuild{});
  const bool hf = ModelFiles(which.model()).layout() == ConfigLayout::hf;
  // A padded vocabulary keeps the native goldens out of the layout of transformers.
  EXPECT_EQ(save_model(*model, folder).empty(), hf);
  const auto reloaded = load_model<float>(folder, ModelBuild{});
  EXPECT_EQ(reloaded->config(), model->config());
  const auto a = logits_of(*model, golden.input());
  const auto b = logits_of(*reloaded, golden.input());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0);
  // The same tensors under the same names as the published code wrote them.
  const ModelFiles before(which.model()), after(folder);
  EXPECT_EQ(before.names(), after.names());
  for (const std::string& name : before.names()) {
    EXPECT_EQ(before.info(name).shape, after.info(name).shape) << name;
  }
  EXPECT_EQ(before.generation().eos_token_ids, after.generation().eos_token_ids);
}

INSTANTIATE_TEST_SUITE_P(Published, GoldenModel, testing::ValuesIn(kCases),
                         [](const auto& which) { return std::string(which.param.name); });

}  // namespace
}  // namespace adder
