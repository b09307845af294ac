#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"
#include "infer/engine.h"
#include "infer/open_model.h"
#include "infer/perplexity.h"

namespace adder {
namespace {

ModelConfig tiny_config() {
  ModelConfig config;
  config.vocab_size = 61;
  config.pad_vocab_size_multiple = 8;  // three padded columns that nobody may draw
  config.d_model = 24;
  config.n_layer = 2;
  config.d_state = 8;
  config.bias = false;
  return config;
}

std::shared_ptr<LanguageModel<float>> tiny_model(const ModelConfig& config = tiny_config()) {
  std::shared_ptr<LanguageModel<float>> model = make_model<float>(config, ModelBuild{});
  model->initialize(11);
  for (int64_t p = 0; p < model->params().size(); ++p) {
    if (!model->params().info(p).alias_of.empty()) continue;
    auto values = model->store().read(p);
    for (float& value : values) value *= 3.0f;
    model->store().write(p, 0, static_cast<int64_t>(values.size()), values.data());
  }
  return model;
}

std::vector<int32_t> random_ids(int64_t count, uint64_t seed, uint64_t vocab = 61) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int32_t>(uniform_below(seed, 1, i, vocab));
  }
  return ids;
}

std::vector<float> copy_of(std::span<const float> values) { return {values.begin(), values.end()}; }

double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0, scale = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
    scale = std::max(scale, std::abs(static_cast<double>(a[i])));
  }
  return worst / scale;
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// Any split of a prompt, down to one-token steps, gives the logits of the whole.
TEST(Engine, SplitsOfAPromptAgree) {
  const auto model = tiny_model();
  const auto ids = random_ids(131, 3);
  Engine whole(model);
  const auto expected = copy_of(whole.prefill(0, ids));
  int equal = 0, tried = 0;
  for (const int64_t chunk : {1, 2, 7, 64, 65, 130, 131}) {
    EngineOptions options;
    options.chunk = chunk;
    Engine engine(model, options);
    const auto got = copy_of(engine.prefill(0, ids));
    EXPECT_LE(relative_difference(expected, got), 1e-5) << "chunk " << chunk;
    equal += std::memcmp(expected.data(), got.data(), expected.size() * sizeof(float)) == 0;
    ++tried;
  }
  RecordProperty("bit_equal_splits", std::to_string(equal) + " of " + std::to_string(tried));
  std::printf("splits with equal bits: %d of %d\n", equal, tried);
  const int32_t slot = 0;
  std::span<const float> last;
  whole.reset(0);
  for (const int32_t id : ids) last = whole.step({&slot, 1}, {&id, 1});
  EXPECT_LE(relative_difference(expected, copy_of(last.first(expected.size()))), 1e-5);
}

// Steps of a batch: each slot sees its own past only, whatever order the slots are named in.
TEST(Engine, SlotsDoNotMeet) {
  const auto model = tiny_model();
  EngineOptions options;
  options.slots = 4;
  Engine together(model, options);
  const std::vector<int32_t> slots = {3, 0, 2};
  std::vector<std::vector<float>> expected;
  for (const int32_t slot : slots) {
    Engine alone(model);
    const auto prompt = random_ids(5 + slot, static_cast<uint64_t>(slot));
    alone.prefill(0, prompt);
    together.prefill(slot, prompt);
    const int32_t zero = 0, next = 10 + slot;
    expected.push_back(copy_of(alone.step({&zero, 1}, {&next, 1})));
  }
  const auto rows = together.step(slots, std::vector<int32_t>{13, 10, 12});
  for (size_t i = 0; i < slots.size(); ++i) {
    const size_t stride = static_cast<size_t>(together.logit_stride());
    EXPECT_LE(relative_difference(expected[i], copy_of(rows.subspan(i * stride, stride))), 1e-5);
  }
}

TEST(Engine, ResetForgets) {
  Engine engine(tiny_model());
  const auto ids = random_ids(20, 5);
  const auto first = copy_of(engine.prefill(0, ids));
  const auto carried = copy_of(engine.prefill(0, ids));
  EXPECT_NE(first, carried);
  engine.reset(0);
  EXPECT_EQ(first, copy_of(engine.prefill(0, ids)));
}

TEST(Engine, GenerationIsReproducible) {
  const auto model = tiny_model();
  const auto prompt = random_ids(9, 1);
  Generation request;
  request.max_tokens = 60;
  request.sampling.seed = 42;
  std::vector<std::vector<int32_t>> runs;
  for (const int threads : {1, 2}) {
    EngineOptions options;
    options.threads = threads;
    Engine engine(model, options);
    for (int repeat = 0; repeat < 2; ++repeat) {
      runs.push_back(engine.generate(0, prompt, request).ids);
      EXPECT_EQ(runs.back().size(), 60u);
      for (const int32_t id : runs.back()) EXPECT_LT(id, 61);
    }
  }
  for (const auto& run : runs) EXPECT_EQ(run, runs[0]);
  Engine engine(model);
  request.sampling.seed = 43;
  EXPECT_NE(engine.generate(0, prompt, request).ids, runs[0]);
}

TEST(Engine, StopsAtEndTokenLengthAndCallback) {
  Engine engine(tiny_model());
  const auto prompt = random_ids(9, 1);
  Generation request;
  request.max_tokens = 400;
  auto result = engine.generate(0, prompt, request);
  ASSERT_EQ(result.ids.size(), 400u);
  EXPECT_EQ(result.reason, StopReason::length);
  EXPECT_EQ(result.steps, 399);
  EXPECT_EQ(result.prompt_tokens, 9);

  // The end token cuts the same sequence where it first stands, and is not handed out.
  const auto all = result.ids;
  request.end_ids = {all[25]};
  const auto first = std::find(all.begin(), all.end(), all[25]);
  result = engine.generate(0, prompt, request);
  EXPECT_EQ(result.reason, StopReason::end_token);
  EXPECT_EQ(result.ids, std::vector<int32_t>(all.begin(), first));

  request.end_ids = {};
  std::vector<int32_t> seen;
  result = engine.generate(0, prompt, request, [&](int32_t id) {
    seen.push_back(id);
    return seen.size() < 4;
  });
  EXPECT_EQ(result.reason, StopReason::callback);
  EXPECT_EQ(seen, std::vector<int32_t>(all.begin(), all.begin() + 4));

  request.max_tokens = 0;
  EXPECT_TRUE(engine.generate(0, prompt, request).ids.empty());
}

TEST(Engine, DefaultsOfAModel) {
  GenerationConfig config;
  config.eos_token_ids = {7, 100, -1};
  EXPECT_EQ(generation_defaults(config, 61).end_ids, std::vector<int32_t>{7});
  EXPECT_EQ(generation_defaults(config, 61).sampling.temperature, kDefaultTemperature);
  config.temperature = 0.5;
  config.top_k = 40;
  config.do_sample = true;
  EXPECT_EQ(generation_defaults(config, 61).sampling.temperature, 0.5);
  EXPECT_EQ(generation_defaults(config, 61).sampling.top_k, 40);
  config.do_sample = false;
  EXPECT_EQ(generation_defaults(config, 61).sampling.temperature, 0);
}

TEST(Engine, EmptyPromptStartsFromBosOrFails) {
  ModelConfig config = tiny_config();
  Generation request;
  request.max_tokens = 5;
  {
    Engine engine(tiny_model(config));
    const auto message = message_of([&] { engine.generate(0, {}, request); });
    EXPECT_NE(message.find("empty prompt"), std::string::npos) << message;
  }
  config.bos_token_id = 4;
  Engine engine(tiny_model(config));
  const std::vector<int32_t> bos = {4};
  EXPECT_EQ(engine.generate(0, {}, request).ids, engine.generate(0, bos, request).ids);
}

TEST(Engine, RefusesWhatIsOutOfRange) {
  EngineOptions options;
  options.slots = 2;
  Engine engine(tiny_model(), options);
  const std::vector<int32_t> good = {1}, large = {1, 2, 61}, negative = {-1}, twice = {1, 1};
  EXPECT_EQ(message_of([&] { engine.prefill(0, large); }),
            "engine: position 2: token id out of range: expected [0, 61), got 61");
  EXPECT_NE(message_of([&] { engine.prefill(0, negative); }), "");
  EXPECT_NE(message_of([&] { engine.prefill(2, good); }), "");
  EXPECT_NE(message_of([&] { engine.prefill(-1, good); }), "");
  EXPECT_NE(message_of([&] { engine.prefill(0, {}); }), "");
  EXPECT_NE(message_of([&] { engine.step(twice, twice); }), "");
  EXPECT_NE(message_of([&] { engine.step(twice, good); }), "");
  EXPECT_NE(message_of([&] { engine.step({}, {}); }), "");
  options.chunk = 0;
  EXPECT_NE(message_of([&] { Engine bad(tiny_model(), options); }), "");
  Generation request;
  request.max_tokens = -1;
  EXPECT_NE(message_of([&] { engine.generate(0, good, request); }), "");
}

// Perplexity over a carried state equals the log-probabilities of one whole forward.
TEST(Perplexity, CarriedStateEqualsOneForward) {
  const auto model = tiny_model();
  const auto ids = random_ids(1201, 8);
  const auto got = measure_perplexity(model, ids, {});
  EXPECT_EQ(got.tokens, 1200);

  const int64_t columns = model->padded_vocab();
  ModelRunner<float> runner(*model, Context{}, "test");
  const auto logits = runner.logits({.len = 1201, .ids = ids});
  double nats = 0;
  for (size_t t = 0; t < 1200; ++t) {
    const float* row = logits.data() + t * static_cast<size_t>(columns);
    double sum = 0;
    for (int v = 0; v < 61; ++v) sum += std::exp(static_cast<double>(row[v]));
    nats += std::log(sum) - row[ids[t + 1]];
  }
  EXPECT_NEAR(got.total_nats, nats, 1e-5 * nats);
  EXPECT_NEAR(got.perplexity(), std::exp(nats / 1200), 1e-3 * std::exp(nats / 1200));
}

TEST(Perplexity, WindowsPredictEveryTokenButTheFirst) {
  const auto model = tiny_model();
  const auto ids = random_ids(1000, 9);
  for (const int64_t window : {1, 10, 333, 999, 5000}) {
    PerplexityOptions options;
    options.window = window;
    const auto got = measure_perplexity(model, ids, options);
    EXPECT_EQ(got.tokens, 999) << window;
    if (window < 999) continue;
    EXPECT_NEAR(got.total_nats, measure_perplexity(model, ids, {}).total_nats, 1e-3);
  }
  EXPECT_EQ(measure_perplexity(model, std::vector<int32_t>{3}, {}).tokens, 0);
  EXPECT_NE(message_of([&] { measure_perplexity(model, std::vector<int32_t>{3, 99}, {}); }), "");
}

}  // namespace
}  // namespace adder
