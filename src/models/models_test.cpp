// The whole stack in double against central differences, and the laws that join training,
// prefill and decoding (math.md section 11).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>

#include "models/model_cases.h"

namespace adder {
namespace {

std::string name_of(const testing::TestParamInfo<ModelCase>& which) { return which.param.name; }

class ModelGradient : public testing::TestWithParam<ModelCase> {};

TEST_P(ModelGradient, MatchesCentralDifferencesInDouble) {
  const ModelCase& c = GetParam();
  const Tokens t = make_tokens(c);
  const auto model = new_model<double>(c.config, 3);
  ParamStore<double>& store = model->store();
  // Start values at 0 or 1 would hide a missing factor: everything moves a little.
  for (int64_t p = 0; p < model->params().size(); ++p) {
    if (!model->params().info(p).alias_of.empty()) continue;
    auto values = store.read(p);
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] += 0.05 * normal(9, 9, static_cast<uint64_t>(model->params().offset(p)) + i);
    }
    store.write(p, 0, static_cast<int64_t>(values.size()), values.data());
  }
  const double scale = 1.0 / static_cast<double>(t.ids.size() - 1);
  train_once(*model, t, scale, c.loss);
  ModelRunner<double> runner(*model, Context{}, "test");
  const auto loss = [&] {
    double sum = 0;
    for (const double row : runner.losses(t.input(), c.loss)) sum += row;
    return scale * sum;
  };
  for (int64_t p = 0; p < model->params().size(); ++p) {
    const ParamInfo& info = model->params().info(p);
    if (!info.alias_of.empty()) continue;
    const auto values = store.read(p), gradient = store.read_gradient(p);
    double largest = 1e-12, worst = 0;
    for (const double g : gradient) largest = std::max(largest, std::abs(g));
    const int64_t stride = std::max<int64_t>(1, info.count() / 12);
    for (int64_t i = 0; i < info.count(); i += stride) {
      const double kept = values[static_cast<size_t>(i)], h = 1e-5;
      const auto loss_at = [&](double value) {
        store.write(p, i, 1, &value);
        return loss();
      };
      const double up = loss_at(kept + h), down = loss_at(kept - h);
      store.write(p, i, 1, &kept);
      worst = std::max(worst, std::abs((up - down) / (2 * h) - gradient[static_cast<size_t>(i)]));
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
  const auto whole = new_model<double>(packed.config, 3);
  const auto parts = new_model<double>(packed.config, 3);
  const auto loss_whole = train_once(*whole, t, 1.0);
  std::vector<double> loss_parts;
  for (size_t q = 0; q + 1 < packed.cu_seqlens.size(); ++q) {
    const int64_t begin = packed.cu_seqlens[q], end = packed.cu_seqlens[q + 1];
    if (begin == end) continue;
    const Tokens one{1,
                     end - begin,
                     {t.ids.begin() + begin, t.ids.begin() + end},
                     {t.targets.begin() + begin, t.targets.begin() + end},
                     {}};
    const auto losses = train_once(*parts, one, 1.0);
    loss_parts.insert(loss_parts.end(), losses.begin(), losses.end());
  }
  ASSERT_EQ(loss_parts.size(), loss_whole.size());
  for (size_t i = 0; i < loss_whole.size(); ++i) EXPECT_NEAR(loss_whole[i], loss_parts[i], 1e-12);
  const auto a = all_gradients(*whole), b = all_gradients(*parts);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-11);
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
  const auto model = new_model<float>(GetParam().config, 4);
  constexpr int64_t kLen = 70;
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < kLen; ++i) {
    ids.push_back(static_cast<int32_t>(uniform_below(5, 3, static_cast<uint64_t>(i), 11)));
  }
  ModelRunner<float> runner(*model, Context{}, "test");
  const auto run = [&](int64_t first, int64_t len, DecodeState* state) {
    const auto piece =
        std::span<const int32_t>(ids).subspan(static_cast<size_t>(first), static_cast<size_t>(len));
    const auto logits = runner.logits({.len = len, .ids = piece}, state);
    return std::vector<float>(logits.begin(), logits.end());
  };
  const auto whole = run(0, kLen, nullptr);
  for (const std::vector<int64_t>& pieces :
       {std::vector<int64_t>{70}, {1, 69}, {7, 47, 16}, std::vector<int64_t>(70, 1)}) {
    const auto state = model->make_state(1, runner.context());
    std::vector<float> got;
    int64_t first = 0;
    for (const int64_t len : pieces) {
      const auto part = run(first, len, state.get());
      got.insert(got.end(), part.begin(), part.end());
      first += len;
    }
    ASSERT_EQ(got.size(), whole.size());
    double worst = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      worst = std::max(worst, static_cast<double>(std::abs(got[i] - whole[i])));
    }
    EXPECT_LE(worst, 2e-5) << pieces.size() << " pieces";
  }
}

// The last rows alone, of batch rows and of packed sequences, are those of all rows.
TEST_P(ModelLaws, LastRowsAreRowsOfTheWhole) {
  const auto model = new_model<float>(GetParam().config, 4);
  std::vector<int32_t> ids;
  for (uint64_t i = 0; i < 24; ++i) ids.push_back(static_cast<int32_t>(uniform_below(5, 3, i, 11)));
  const std::vector<int32_t> cu = {0, 5, 6, 24};
  ModelRunner<float> runner(*model, Context{}, "test");
  for (const bool packed : {false, true}) {
    CallInput input{.batch = packed ? 1 : 3, .len = packed ? 24 : 8, .ids = ids};
    if (packed) input.cu_seqlens = cu;
    const auto all = runner.logits(input);
    const std::vector<float> whole(all.begin(), all.end());
    input.last_only = true;
    const auto last = runner.logits(input);
    const auto columns = static_cast<size_t>(model->padded_vocab());
    ASSERT_EQ(last.size(), 3 * columns);
    for (size_t r = 0; r < 3; ++r) {
      const size_t row = packed ? static_cast<size_t>(cu[r + 1] - 1) : 8 * r + 7;
      for (size_t v = 0; v < columns; ++v) {
        EXPECT_NEAR(last[r * columns + v], whole[row * columns + v], 2e-6);
      }
    }
  }
}

// Rows of a step whose states lie in any slots: each is what it is alone.
TEST_P(ModelLaws, BatchMatesAndSlotsDoNotMatter) {
  const auto model = new_model<float>(GetParam().config, 4);
  constexpr int64_t kRows = 3, kLen = 9;
  const int32_t slots[kRows] = {4, 0, 2};
  const int64_t vocab = model->padded_vocab();
  ModelRunner<float> runner(*model, Context{}, "test");
  const auto together = model->make_state(5, runner.context());
  std::vector<std::unique_ptr<DecodeState>> alone;
  for (int64_t r = 0; r < kRows; ++r) alone.push_back(model->make_state(1, runner.context()));
  for (int64_t t = 0; t < kLen; ++t) {
    int32_t ids[kRows];
    for (int64_t r = 0; r < kRows; ++r) {
      ids[r] = static_cast<int32_t>(uniform_below(6, 3, static_cast<uint64_t>(t * kRows + r), 11));
    }
    const auto rows =
        runner.logits({.batch = kRows, .len = 1, .ids = ids, .slots = slots}, together.get());
    const std::vector<float> got(rows.begin(), rows.end());
    for (int64_t r = 0; r < kRows; ++r) {
      const auto expected =
          runner.logits({.len = 1, .ids = {ids + r, 1}}, alone[static_cast<size_t>(r)].get());
      for (int64_t v = 0; v < vocab; ++v) {
        ASSERT_NEAR(got[static_cast<size_t>(r * vocab + v)], expected[static_cast<size_t>(v)], 2e-5)
            << "token " << t;
      }
    }
  }
}

TEST_P(ModelLaws, TheSameBitsForAnyThreadCount) {
  const ModelCase& c = GetParam();
  const Tokens t = make_tokens(c);
  std::vector<std::vector<float>> grads;
  for (const int threads : {1, 2, 3}) {
    const auto model = new_model<float>(c.config, 4);
    train_once(*model, t, 0.01, {}, threads);
    grads.push_back(all_gradients(*model));
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
    const auto exact = new_model<float>(c.config, 4);
    const auto rounded = new_model<float>(c.config, 4, Dtype::bf16);
    const auto a = train_once(*exact, t, 0.0125), b = train_once(*rounded, t, 0.0125);
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 0.05 * (1 + a[i]));
    const auto ga = all_gradients(*exact), gb = all_gradients(*rounded);
    double dot = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < ga.size(); ++i) {
      dot += static_cast<double>(ga[i]) * gb[i];
      aa += static_cast<double>(ga[i]) * ga[i];
      bb += static_cast<double>(gb[i]) * gb[i];
    }
    EXPECT_GT(dot / std::sqrt(aa * bb), 0.995);
  }
}

// Without masters a bf16 model holds 2 bytes a weight of its matrices, computes the same bits,
// reads parameters back as they were rounded, and refuses to be trained.
TEST_P(ModelLaws, MastersAreOptional) {
  const ModelCase& c = GetParam();
  const Tokens t = make_tokens(c);
  ModelBuild build;
  build.compute = Dtype::bf16;
  const auto full = make_model<float>(c.config, build);
  build.masters = false;
  const auto lean = make_model<float>(c.config, build);
  full->initialize(4);
  lean->initialize(4);
  ModelRunner<float> a(*full, Context{}, "test"), b(*lean, Context{}, "test");
  const auto first = a.logits(t.input()), second = b.logits(t.input());
  ASSERT_EQ(first.size(), second.size());
  EXPECT_EQ(std::memcmp(first.data(), second.data(), first.size_bytes()), 0);
  int64_t matrices = 0, vectors = 0;
  for (int64_t p = 0; p < lean->params().size(); ++p) {
    const ParamInfo& info = lean->params().info(p);
    if (!info.alias_of.empty()) continue;
    (info.keep_fp32 ? vectors : matrices) += padded_count(info.count());
    const auto exact = full->store().read(p), kept = lean->store().read(p);
    for (size_t i = 0; i < exact.size(); ++i) {
      const float expected = info.keep_fp32 ? exact[i] : static_cast<float>(Bf16(exact[i]));
      ASSERT_EQ(kept[i], expected) << info.name << "[" << i << "]";
    }
  }
  const auto logs = [&](const ParamInfo& info) { return info.kind == ParamKind::decay; };
  int64_t decays = 0;
  for (const ParamInfo& info : lean->params().infos()) {
    if (logs(info)) decays += padded_count(info.count());
  }
  EXPECT_EQ(lean->store().bytes(), 2 * matrices + 4 * vectors + 4 * decays);
  EXPECT_THROW(lean->enable_training(), Error);
}
INSTANTIATE_TEST_SUITE_P(Cases, ModelLaws, testing::ValuesIn(wide_cases()), name_of);

class ModelFreeze : public testing::TestWithParam<ModelCase> {};

TEST_P(ModelFreeze, FrozenParametersGetNoGradient) {
  const ModelCase& c = GetParam();
  auto model = new_model<double>(c.config, 1);
  EXPECT_GE(model->freeze("backbone.layers.0.*"), 8);
  EXPECT_EQ(model->freeze("no.such.*"), 0);
  train_once(*model, make_tokens(c), 1.0);
  for (int64_t p = 0; p < model->params().size(); ++p) {
    double norm = 0;
    for (const double g : model->store().read_gradient(p)) norm += std::abs(g);
    EXPECT_EQ(norm > 0, model->params().info(p).trainable) << model->params().info(p).name;
  }
}
INSTANTIATE_TEST_SUITE_P(Cases, ModelFreeze, testing::ValuesIn(wide_cases()), name_of);

int64_t parameters_of(ModelConfig config, int64_t vocab, int64_t multiple) {
  config.vocab_size = vocab;
  config.pad_vocab_size_multiple = multiple;
  config.d_model = 768;
  config.n_layer = 24;
  return make_model<float>(config, ModelBuild{})->params().parameter_count();
}

// formats.md 2.5.
TEST(Model, ParameterCountsOfThePublishedModels) {
  EXPECT_EQ(parameters_of(default_model_config("mamba1"), 50277, 8), 129135360);
  EXPECT_EQ(parameters_of(default_model_config("mamba2"), 50277, 16), 128989632);
}

TEST(Model, TheMlpIsABranchOfItsOwn) {
  ModelConfig config = small_config("mamba2");
  const int64_t before = new_model<double>(config, 1)->params().parameter_count();
  config.d_intermediate = 130;  // rounded up to 256
  const auto model = new_model<double>(config, 1);
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
  const auto model = new_model<double>(config, 1);
  const auto range = [&](const char* name) {
    const int64_t index = model->params().find(std::string("backbone.layers.0.mixer.") + name);
    const auto values = model->store().read(index);
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
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
      make_model<float>(config, ModelBuild{});
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

TEST(Model, ArraysAreCheckedWhereTheyEnter) {
  const auto model = new_model<float>(small_config(), 1);
  ModelRunner<float> runner(*model, Context{}, "test");
  const std::vector<int32_t> ids = {1, 2, 3, 4}, far = {1, 11, 3, 4}, none = {1, -2, -100, 4};
  const std::vector<int32_t> falls = {0, 3, 2, 4}, shorter = {0, 3}, hole = {0, 2, 2, 4};
  const auto refusal = [&](const CallInput& input, int64_t slots = 0) -> std::string {
    try {
      runner.load(input, slots);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(refusal({.len = 4, .ids = ids}), "");
  EXPECT_EQ(refusal({.len = 4, .ids = far}),
            "test: position 1: token id out of range: expected [0, 11), got 11");
  EXPECT_EQ(refusal({.len = 4, .ids = ids, .targets = none}),
            "test: position 1: target out of range: expected [0, 11) or -100, got -2");
  EXPECT_NE(refusal({.batch = 3, .len = 4, .ids = ids}), "");
  EXPECT_NE(refusal({.len = 4, .ids = ids, .targets = shorter}), "");
  EXPECT_NE(refusal({.len = 4, .ids = ids, .cu_seqlens = falls}).find("2 after 3"),
            std::string::npos);
  EXPECT_NE(refusal({.len = 4, .ids = ids, .cu_seqlens = shorter}), "");
  EXPECT_EQ(refusal({.len = 4, .ids = ids, .cu_seqlens = hole}), "");
  EXPECT_NE(refusal({.len = 4, .ids = ids, .cu_seqlens = hole, .last_only = true}), "");
  const std::vector<int32_t> slots = {0, 2}, twice = {1, 1};
  EXPECT_EQ(refusal({.batch = 2, .len = 2, .ids = ids, .slots = slots}, 3), "");
  EXPECT_NE(refusal({.batch = 2, .len = 2, .ids = ids, .slots = slots}, 2), "");
  EXPECT_NE(refusal({.batch = 2, .len = 2, .ids = ids, .slots = twice}, 3), "");
  EXPECT_NE(refusal({.len = 4, .ids = ids, .slots = slots}, 3), "");
}

// The CPU with marks: each copy counts as under way until somebody waits for it.
class MarkingBackend final : public DeviceBackend {
 public:
  MarkingBackend() : cpu_(device_backend(Device::cpu)) { set_device_backend(Device::cpu, this); }
  ~MarkingBackend() override { set_device_backend(Device::cpu, nullptr); }
  std::byte* allocate(int64_t bytes, const Memory& memory) override {
    return cpu_.allocate(bytes, memory);
  }
  void release(std::byte* data, int64_t bytes, const Memory& memory) override {
    cpu_.release(data, bytes, memory);
  }
  void fill(void* stream, void* to, int byte, int64_t bytes) override {
    cpu_.fill(stream, to, byte, bytes);
  }
  void copy(void* stream, void* to, const void* from, int64_t bytes) override {
    cpu_.copy(stream, to, from, bytes);
  }
  void synchronize(void* stream) override { cpu_.synchronize(stream); }
  double elapsed_us(void* stream, const std::function<void()>& work) override {
    return cpu_.elapsed_us(stream, work);
  }
  void* mark(void*) override {
    marks_.push_back(std::make_unique<int>());
    return marks_.back().get();
  }
  void wait(void* mark) override { waited.push_back(mark); }
  void* marked(size_t index) const { return marks_[index].get(); }

  std::vector<void*> waited;

 private:
  DeviceBackend& cpu_;
  std::vector<std::unique_ptr<int>> marks_;
};

TEST(Model, ArraysWaitForTheCopyOfTheirOwnBlock) {
  MarkingBackend backend;
  const std::vector<int32_t> ids = {1, 2, 3};
  {
    CallArrays arrays(Context{}, 11, "test");
    arrays.load({.len = 3, .ids = ids});
    arrays.load({.len = 3, .ids = ids});
    EXPECT_TRUE(backend.waited.empty());  // two calls may be under way
    arrays.load({.len = 3, .ids = ids});  // the block of the first one is needed again
    EXPECT_EQ(backend.waited, std::vector<void*>{backend.marked(0)});
  }
  EXPECT_EQ(backend.waited.size(), 3u);  // every mark is taken back
}

TEST(Model, GlobsMatchWholeNames) {
  EXPECT_TRUE(glob_match("*.weight", "a.b.weight"));
  EXPECT_TRUE(glob_match("a.?.c*", "a.b.cd"));
  EXPECT_FALSE(glob_match("a.?", "a.bc"));
  EXPECT_TRUE(glob_match("*", ""));
}

}  // namespace
}  // namespace adder
