// The whole stack in double against central differences, and the laws that join training,
// prefill and decoding (math.md section 11).
#include <gtest/gtest.h>

#include <cmath>

#include "models/model_cases.h"

namespace adder {
namespace {

std::string name_of(const testing::TestParamInfo<ModelCase>& which) { return which.param.name; }

template <class Acc>
std::unique_ptr<LanguageModel<Acc>> trainable_model(const ModelConfig& config, Dtype compute,
                                                    uint64_t seed) {
  auto model = make_model<Acc>(config, compute);
  model->initialize(seed);
  model->enable_training();
  return model;
}

class ModelGradient : public testing::TestWithParam<ModelCase> {};

TEST_P(ModelGradient, MatchesCentralDifferencesInDouble) {
  const ModelCase& c = GetParam();
  const Tokens t = make_tokens(c);
  auto model = trainable_model<double>(c.config, Dtype::f64, 3);
  // Start values at 0 or 1 would hide a missing factor: move everything a little.
  for (int64_t i = 0; i < model->params().total(); ++i) {
    model->values()[i] += 0.05 * normal(9, 9, static_cast<uint64_t>(i));
  }
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
      const double up = summed_loss(*model, t, c.loss, scale);
      value = kept - h;
      const double down = summed_loss(*model, t, c.loss, scale);
      value = kept;
      worst = std::max(worst, std::abs((up - down) / (2 * h) - model->grad(p)[i]));
    }
    // 1e-7 of the largest entry, and what the loss's own rounding leaves of a difference quotient.
    EXPECT_LE(worst, 1e-7 * largest + 1e-15 / 1e-5 * 4) << info.name;
  }
}
INSTANTIATE_TEST_SUITE_P(Cases, ModelGradient, testing::ValuesIn(all_cases()), name_of);

std::vector<ModelCase> packed_cases() {
  std::vector<ModelCase> packed;
  for (ModelCase& c : all_cases()) {
    if (!c.cu_seqlens.empty()) packed.push_back(std::move(c));
  }
  return packed;
}

class ModelPacked : public testing::TestWithParam<ModelCase> {};

TEST_P(ModelPacked, EqualsSeparateInForwardAndGradients) {
  const ModelCase& packed = GetParam();
  const Tokens t = make_tokens(packed);
  auto whole = trainable_model<double>(packed.config, Dtype::f64, 3);
  auto parts = trainable_model<double>(packed.config, Dtype::f64, 3);
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
INSTANTIATE_TEST_SUITE_P(Cases, ModelPacked, testing::ValuesIn(packed_cases()), name_of);

// Mixers at sizes that use whole SIMD words.
std::vector<ModelCase> wide_cases() {
  std::vector<ModelCase> all;
  ModelCase first{"mamba1", small_config("mamba1"), 3, 70, {}, {}};
  first.config.d_model = 40;
  first.config.d_state = 16;
  all.push_back(first);
  ModelCase second{"mamba2", small_config("mamba2"), 3, 70, {}, {}};
  second.config.d_model = 40;
  second.config.d_state = 16;
  second.config.headdim = 16;
  all.push_back(second);
  second.name = "mamba2_mlp_path_no_norm";
  second.config.d_ssm = 64;
  second.config.ngroups = 2;
  second.config.rmsnorm = false;
  second.config.d_has_hdim = true;
  second.config.d_intermediate = 128;
  all.push_back(second);
  return all;
}

class ModelLaws : public testing::TestWithParam<ModelCase> {};

// Forward over the whole prompt, in pieces, and token by token.
TEST_P(ModelLaws, PrefillInPiecesAndStepsAreForward) {
  auto model = make_model<float>(GetParam().config, Dtype::f32);
  model->initialize(4);
  constexpr int64_t kLen = 70;
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
       {std::vector<int64_t>{70}, {1, 69}, {7, 47, 16}, std::vector<int64_t>(70, 1)}) {
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

// Rows of a step whose states lie in any slots: each is what it is alone.
TEST_P(ModelLaws, BatchMatesAndSlotsDoNotMatter) {
  auto model = make_model<float>(GetParam().config, Dtype::f32);
  model->initialize(4);
  constexpr int64_t kRows = 3, kLen = 9;
  const int32_t slots[kRows] = {4, 0, 2};
  const int64_t vocab = model->padded_vocab();
  auto together = model->make_state(5);
  std::vector<std::unique_ptr<DecodeState>> alone;
  for (int64_t r = 0; r < kRows; ++r) alone.push_back(model->make_state(1));
  const auto step = [&](int64_t rows, const int32_t* index, const int32_t* ids, DecodeState* state,
                        float* out) {
    TokenLayout layout;
    layout.batch = rows;
    layout.len = 1;
    layout.state_index = index;
    run_planned([&](Context& context) { model->logits(context, layout, ids, state, false, out); });
  };
  for (int64_t t = 0; t < kLen; ++t) {
    int32_t ids[kRows];
    for (int64_t r = 0; r < kRows; ++r) {
      ids[r] = static_cast<int32_t>(uniform_below(6, 3, static_cast<uint64_t>(t * kRows + r), 11));
    }
    std::vector<float> got(static_cast<size_t>(kRows * vocab)), expected(got.size());
    step(kRows, slots, ids, together.get(), got.data());
    for (int64_t r = 0; r < kRows; ++r) {
      step(1, nullptr, ids + r, alone[static_cast<size_t>(r)].get(), expected.data() + r * vocab);
    }
    for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 2e-5) << "token " << t;
  }
}

TEST_P(ModelLaws, TheSameBitsForAnyThreadCount) {
  const ModelCase& c = GetParam();
  const Tokens t = make_tokens(c);
  std::vector<std::vector<float>> grads;
  for (const int threads : {1, 2, 3}) {
    auto model = trainable_model<float>(c.config, Dtype::f32, 4);
    std::vector<double> row_loss(t.ids.size());
    run_planned(
        [&](Context& context) { model->train_batch(context, t.batch, {}, 0.01, row_loss.data()); },
        threads);
    grads.emplace_back(model->grads(), model->grads() + model->params().total());
  }
  EXPECT_EQ(grads[0], grads[1]);
  EXPECT_EQ(grads[0], grads[2]);
}

TEST_P(ModelLaws, Bf16TracksFloat) {
  ModelCase c = GetParam();
  c.batch = 2;
  c.len = 40;
  const Tokens t = make_tokens(c);
  for (const bool residual_in_fp32 : {true, false}) {
    c.config.residual_in_fp32 = residual_in_fp32;
    auto exact = trainable_model<float>(c.config, Dtype::f32, 4);
    auto rounded = trainable_model<float>(c.config, Dtype::bf16, 4);
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
INSTANTIATE_TEST_SUITE_P(Cases, ModelLaws, testing::ValuesIn(wide_cases()), name_of);

class ModelFreeze : public testing::TestWithParam<ModelCase> {};

TEST_P(ModelFreeze, FrozenParametersGetNoGradient) {
  const ModelCase& c = GetParam();
  auto model = make_model<double>(c.config, Dtype::f64);
  model->initialize(1);
  EXPECT_GE(model->freeze("backbone.layers.0.*"), 8);
  EXPECT_EQ(model->freeze("no.such.*"), 0);
  model->enable_training();
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
INSTANTIATE_TEST_SUITE_P(Cases, ModelFreeze, testing::ValuesIn(wide_cases()), name_of);

int64_t parameters_of(ModelConfig config, int64_t vocab, int64_t multiple) {
  config.vocab_size = vocab;
  config.pad_vocab_size_multiple = multiple;
  config.d_model = 768;
  config.n_layer = 24;
  return make_model<float>(config, Dtype::f32)->params().parameter_count();
}

// formats.md 2.5.
TEST(Model, ParameterCountsOfThePublishedModels) {
  EXPECT_EQ(parameters_of(default_model_config("mamba1"), 50277, 8), 129135360);
  EXPECT_EQ(parameters_of(default_model_config("mamba2"), 50277, 16), 128989632);
}

TEST(Model, TheMlpIsABranchOfItsOwn) {
  ModelConfig config = small_config("mamba2");
  const int64_t before = make_model<double>(config, Dtype::f64)->params().parameter_count();
  config.d_intermediate = 130;  // rounded up to 256
  const auto model = make_model<double>(config, Dtype::f64);
  // math.md 7.8: 3 d F and a norm in each layer.
  EXPECT_EQ(model->params().parameter_count() - before, 2 * (3 * 6 * 256 + 6));
  EXPECT_GE(model->params().find("backbone.layers.1.norm2.weight"), 0);
  const int64_t fc2 = model->params().find("backbone.layers.1.mlp.fc2.weight");
  ASSERT_GE(fc2, 0);
  EXPECT_EQ(model->params().info(fc2).shape, (std::vector<int64_t>{6, 256}));
}

TEST(Model, StartValuesOfMamba2AreInTheirRanges) {
  ModelConfig config = default_model_config("mamba2");
  config.vocab_size = 16;
  config.d_model = 256;
  config.n_layer = 1;
  config.headdim = 1;
  const auto model = make_model<double>(config, Dtype::f64);
  model->initialize(1);
  const auto range = [&](const char* name) {
    const int64_t index = model->params().find(std::string("backbone.layers.0.mixer.") + name);
    const double* first = model->value(index);
    const auto [low, high] =
        std::minmax_element(first, first + model->params().info(index).count());
    return std::pair(*low, *high);
  };
  // 512 draws: log U(1, 16) and softplus^-1 of exp U(log 1e-3, log 1e-1) fill their ranges.
  const auto [a_low, a_high] = range("A_log");
  EXPECT_GE(a_low, 0);
  EXPECT_LE(a_low, std::log(1.3));
  EXPECT_LE(a_high, std::log(16.0));
  EXPECT_GE(a_high, std::log(15.5));
  const auto [dt_low, dt_high] = range("dt_bias");
  EXPECT_NEAR(std::log1p(std::exp(dt_low)), 1e-3, 1e-4);
  EXPECT_NEAR(std::log1p(std::exp(dt_high)), 1e-1, 1e-2);
  EXPECT_EQ(range("D"), std::pair(1.0, 1.0));
  EXPECT_EQ(range("norm.weight"), std::pair(1.0, 1.0));
}

TEST(Model, RefusesWhatItCannotBuild) {
  const auto refusal = [](const ModelConfig& config) -> std::string {
    try {
      make_model<float>(config, Dtype::f32);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  ModelConfig groups = small_config("mamba1");
  groups.ngroups = 2;
  EXPECT_NE(refusal(groups).find("ngroups"), std::string::npos) << refusal(groups);
  ModelConfig attention = small_config("mamba2");
  attention.attn_layer_idx = {1};
  EXPECT_NE(refusal(attention).find("attn_layer_idx"), std::string::npos) << refusal(attention);
  ModelConfig heads = small_config("mamba2");
  heads.headdim = 5;
  EXPECT_NE(refusal(heads).find("headdim: wrong value: expected a divisor of d_ssm 12, got 5"),
            std::string::npos)
      << refusal(heads);
}

TEST(Model, GlobsMatchWholeNames) {
  EXPECT_TRUE(glob_match("*.weight", "a.b.weight"));
  EXPECT_TRUE(glob_match("a.?.c*", "a.b.cd"));
  EXPECT_FALSE(glob_match("a.?", "a.bc"));
  EXPECT_TRUE(glob_match("*", ""));
}

}  // namespace
}  // namespace adder
