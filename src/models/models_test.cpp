// The whole stack in double against central differences, and the laws that join training,
// prefill and decoding (math.md section 11).
#include <gtest/gtest.h>

#include <cmath>

#include "core/rng.h"
#include "layers/head.h"
#include "models/language_model.h"

namespace adder {
namespace {

struct Case {
  const char* name;
  ModelConfig config;
  int64_t batch = 2;
  int64_t len = 7;
  std::vector<int32_t> cu_seqlens;  // packed when not empty
  LossOptions loss;
};

ModelConfig small_config() {
  ModelConfig config = default_model_config("mamba1");
  config.vocab_size = 11;
  config.pad_vocab_size_multiple = 1;
  config.d_model = 6;
  config.n_layer = 2;
  config.d_state = 3;
  config.initializer_range = 0.5;
  config.bias = false;
  return config;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  all.push_back({"base", small_config(), 2, 7, {}, {}});
  Case options{"biases_layer_norm_untied", small_config(), 2, 5, {}, {0.1, 1e-3}};
  options.config.bias = true;
  options.config.rms_norm = false;
  options.config.tie_embeddings = false;
  options.config.d_conv = 3;
  options.config.pad_vocab_size_multiple = 4;
  all.push_back(options);
  Case plain{"no_conv_bias_rank_2_constant_dt", small_config(), 1, 9, {}, {}};
  plain.config.conv_bias = false;
  plain.config.dt_rank = 2;
  plain.config.dt_init = "constant";
  plain.config.rescale_out_proj = false;
  plain.config.d_conv = 1;
  all.push_back(plain);
  all.push_back({"packed", small_config(), 1, 12, {0, 5, 5, 6, 12}, {}});
  all.push_back({"one_token", small_config(), 3, 1, {}, {}});
  return all;
}

struct Tokens {
  std::vector<int32_t> ids, targets;
  TokenBatch batch;
};

Tokens make_tokens(const Case& c) {
  Tokens t;
  for (int64_t i = 0; i < c.batch * c.len; ++i) {
    const auto index = static_cast<uint64_t>(i);
    const auto vocab = static_cast<uint64_t>(c.config.vocab_size);
    t.ids.push_back(static_cast<int32_t>(uniform_below(5, 1, index, vocab)));
    t.targets.push_back(i == 2 ? kIgnoreIndex
                               : static_cast<int32_t>(uniform_below(5, 2, index, vocab)));
  }
  t.batch.layout.batch = c.batch;
  t.batch.layout.len = c.len;
  if (!c.cu_seqlens.empty()) {
    t.batch.layout.sequences = static_cast<int64_t>(c.cu_seqlens.size()) - 1;
    t.batch.layout.cu_seqlens = c.cu_seqlens.data();
  }
  t.batch.ids = t.ids.data();
  t.batch.targets = t.targets.data();
  return t;
}

// Runs `call` over an arena of the planned size.
template <class Call>
void run_planned(const Call& call, int threads = 1) {
  Context context;
  context.threads = threads;
  Arena arena(plan_bytes(context, call));
  context.arena = &arena;
  call(context);
}

template <class Acc>
double mean_loss(const LanguageModel<Acc>& model, const Tokens& t, const LossOptions& options,
                 double scale) {
  std::vector<double> row_loss(t.ids.size());
  run_planned(
      [&](Context& context) { model.evaluate(context, t.batch, options, row_loss.data()); });
  double sum = 0;
  for (const double loss : row_loss) sum += loss;
  return scale * sum;
}

class ModelGradient : public testing::TestWithParam<size_t> {};

TEST_P(ModelGradient, MatchesCentralDifferencesInDouble) {
  const Case c = cases()[GetParam()];
  SCOPED_TRACE(c.name);
  const Tokens t = make_tokens(c);
  auto model = make_model<double>(c.config, Dtype::f64);
  model->initialize(3);
  // Start values at 0 or 1 would hide a missing factor: move everything a little.
  for (int64_t i = 0; i < model->params().total(); ++i) {
    model->values()[i] += 0.05 * normal(9, 9, static_cast<uint64_t>(i));
  }
  model->enable_training();
  const double scale = 1.0 / static_cast<double>(t.ids.size() - 1);
  std::vector<double> row_loss(t.ids.size());
  run_planned([&](Context& context) {
    model->train_batch(context, t.batch, c.loss, scale, row_loss.data());
  });
  for (int64_t p = 0; p < model->params().size(); ++p) {
    const ParamInfo& info = model->params().info(p);
    if (!info.alias_of.empty()) continue;
    double largest = 1e-12, worst = 0;
    const int64_t stride = std::max<int64_t>(1, info.count() / 12);
    for (int64_t i = 0; i < info.count(); ++i)
      largest = std::max(largest, std::abs(model->grad(p)[i]));
    for (int64_t i = 0; i < info.count(); i += stride) {
      double& value = model->value(p)[i];
      const double kept = value, h = 1e-5;
      value = kept + h;
      const double up = mean_loss(*model, t, c.loss, scale);
      value = kept - h;
      const double down = mean_loss(*model, t, c.loss, scale);
      value = kept;
      worst = std::max(worst, std::abs((up - down) / (2 * h) - model->grad(p)[i]));
    }
    // 1e-7 of the largest entry, and what the loss's own rounding leaves of a difference quotient.
    EXPECT_LE(worst, 1e-7 * largest + 1e-15 / 1e-5 * 4) << info.name;
  }
}
INSTANTIATE_TEST_SUITE_P(Cases, ModelGradient, testing::Range<size_t>(0, cases().size()),
                         [](const auto& which) { return std::string(cases()[which.param].name); });

TEST(Model, PackedEqualsSeparateInForwardAndGradients) {
  Case packed = cases()[3];
  const Tokens t = make_tokens(packed);
  auto whole = make_model<double>(packed.config, Dtype::f64);
  auto parts = make_model<double>(packed.config, Dtype::f64);
  whole->initialize(3);
  parts->initialize(3);
  whole->enable_training();
  parts->enable_training();
  std::vector<double> loss_whole(t.ids.size()), loss_parts(t.ids.size());
  run_planned(
      [&](Context& context) { whole->train_batch(context, t.batch, {}, 1.0, loss_whole.data()); });
  for (size_t q = 0; q + 1 < packed.cu_seqlens.size(); ++q) {
    const int64_t begin = packed.cu_seqlens[q], end = packed.cu_seqlens[q + 1];
    if (begin == end) continue;
    TokenBatch one;
    one.layout.len = end - begin;
    one.ids = t.ids.data() + begin;
    one.targets = t.targets.data() + begin;
    run_planned([&](Context& context) {
      parts->train_batch(context, one, {}, 1.0, loss_parts.data() + begin);
    });
  }
  for (size_t i = 0; i < loss_whole.size(); ++i) EXPECT_NEAR(loss_whole[i], loss_parts[i], 1e-12);
  for (int64_t i = 0; i < whole->params().total(); ++i) {
    EXPECT_NEAR(whole->grads()[i], parts->grads()[i], 1e-11);
  }
}

// Forward over the whole prompt, in pieces, and token by token with mates in other slots.
TEST(Model, PrefillInPiecesAndStepsGiveTheBitsOfForward) {
  ModelConfig config = small_config();
  config.d_model = 40;
  config.d_state = 16;
  auto model = make_model<float>(config, Dtype::f32);
  model->initialize(4);
  constexpr int64_t kLen = 23;
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < kLen; ++i) {
    ids.push_back(static_cast<int32_t>(uniform_below(5, 3, static_cast<uint64_t>(i), 11)));
  }
  const int64_t vocab = model->padded_vocab();
  std::vector<float> whole(static_cast<size_t>(kLen * vocab));
  const auto run = [&](int64_t first, int64_t len, DecodeState* state, float* out) {
    TokenLayout layout;
    layout.len = len;
    run_planned([&](Context& context) {
      model->logits(context, layout, ids.data() + first, state, false, out);
    });
  };
  run(0, kLen, nullptr, whole.data());
  for (const std::vector<int64_t>& pieces :
       {std::vector<int64_t>{23}, {1, 22}, {7, 9, 7}, std::vector<int64_t>(23, 1)}) {
    auto state = model->make_state(1);
    std::vector<float> got(whole.size());
    int64_t first = 0;
    for (const int64_t len : pieces) {
      run(first, len, state.get(), got.data() + first * vocab);
      first += len;
    }
    double worst = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      worst = std::max(worst, static_cast<double>(std::abs(got[i] - whole[i])));
    }
    EXPECT_LE(worst, 2e-5) << pieces.size() << " pieces";
  }
}

TEST(Model, TheSameBitsForAnyThreadCount) {
  ModelConfig config = small_config();
  config.d_model = 64;
  config.d_state = 16;
  Case c{"threads", config, 3, 70, {}, {}};
  const Tokens t = make_tokens(c);
  std::vector<std::vector<float>> grads;
  for (const int threads : {1, 2, 3}) {
    auto model = make_model<float>(config, Dtype::f32);
    model->initialize(4);
    model->enable_training();
    std::vector<double> row_loss(t.ids.size());
    run_planned(
        [&](Context& context) { model->train_batch(context, t.batch, {}, 0.01, row_loss.data()); },
        threads);
    grads.emplace_back(model->grads(), model->grads() + model->params().total());
  }
  EXPECT_EQ(grads[0], grads[1]);
  EXPECT_EQ(grads[0], grads[2]);
}

TEST(Model, Bf16TracksFloat) {
  ModelConfig config = small_config();
  config.d_model = 32;
  Case c{"bf16", config, 2, 40, {}, {}};
  const Tokens t = make_tokens(c);
  std::vector<double> losses;
  for (const bool residual_in_fp32 : {true, false}) {
    config.residual_in_fp32 = residual_in_fp32;
    auto exact = make_model<float>(config, Dtype::f32);
    auto rounded = make_model<float>(config, Dtype::bf16);
    exact->initialize(4);
    rounded->initialize(4);
    exact->enable_training();
    rounded->enable_training();
    std::vector<double> a(t.ids.size()), b(t.ids.size());
    run_planned(
        [&](Context& context) { exact->train_batch(context, t.batch, {}, 0.0125, a.data()); });
    run_planned([&](Context& context) {
      rounded->refresh_weights(context);
      rounded->train_batch(context, t.batch, {}, 0.0125, b.data());
    });
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 0.05 * (1 + a[i]));
    double dot = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < exact->params().total(); ++i) {
      dot += static_cast<double>(exact->grads()[i]) * rounded->grads()[i];
      aa += static_cast<double>(exact->grads()[i]) * exact->grads()[i];
      bb += static_cast<double>(rounded->grads()[i]) * rounded->grads()[i];
    }
    EXPECT_GT(dot / std::sqrt(aa * bb), 0.995);
  }
}

TEST(Model, FrozenParametersGetNoGradient) {
  auto model = make_model<double>(small_config(), Dtype::f64);
  model->initialize(1);
  EXPECT_EQ(model->freeze("backbone.layers.0.*"), 10);
  EXPECT_EQ(model->freeze("no.such.*"), 0);
  model->enable_training();
  const Case c = cases()[0];
  const Tokens t = make_tokens(c);
  std::vector<double> row_loss(t.ids.size());
  run_planned(
      [&](Context& context) { model->train_batch(context, t.batch, {}, 1.0, row_loss.data()); });
  for (int64_t p = 0; p < model->params().size(); ++p) {
    double norm = 0;
    for (int64_t i = 0; i < model->params().info(p).count(); ++i)
      norm += std::abs(model->grad(p)[i]);
    EXPECT_EQ(norm > 0, model->params().info(p).trainable) << model->params().info(p).name;
  }
}

TEST(Model, ParameterCountsOfThePublishedModels) {
  ModelConfig config = default_model_config("mamba1");
  config.vocab_size = 50277;
  config.pad_vocab_size_multiple = 8;
  config.d_model = 768;
  config.n_layer = 24;
  EXPECT_EQ(make_model<float>(config, Dtype::f32)->params().parameter_count(), 129135360);
}

TEST(Model, GlobsMatchWholeNames) {
  EXPECT_TRUE(glob_match("*.weight", "a.b.weight"));
  EXPECT_TRUE(glob_match("a.?.c*", "a.b.cd"));
  EXPECT_FALSE(glob_match("a.?", "a.bc"));
  EXPECT_TRUE(glob_match("*", ""));
}

}  // namespace
}  // namespace adder
