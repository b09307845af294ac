#include "kernels/optim/optim.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/simd_targets.h"
#include "core/workspace.h"
#include "measure/tensors.h"
#include "measure/variant.h"

namespace adder {
namespace {

using measure::Guarded;

// Restores the best target when a test ends.
struct OptimOnEveryTarget : ::testing::Test {
  ~OptimOnEveryTarget() override { force_simd_target(0); }
};

TEST_F(OptimOnEveryTarget, LinesAgreeWithReference) {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    for (const auto& variant : measure::optim_variants(measure::Purpose::test)) {
      for (const int threads : {1, 2}) {
        const auto result = variant.check({threads, 13});
        if (result.elements == 0 && result.faults.empty()) continue;  // count 0
        EXPECT_TRUE(result.passed())
            << target.name << " " << dtype_name(variant.line.dtype) << " " << variant.shape
            << " threads " << threads << ": " << result.describe();
      }
    }
  }
}

template <class Acc>
struct Parameters {
  Guarded<Acc> g, p, m, v;
  Guarded<Bf16> rounded;
  AdamWConstants constants;
  StepState state;

  explicit Parameters(int64_t count) : g(count), p(count), m(count), v(count), rounded(count) {
    measure::fill_normal(g, 1, "g");
    measure::fill_normal(p, 1, "p");
    for (int64_t i = 0; i < count; ++i) m[i] = v[i] = 0;
    state.learning_rate = 1e-3;
    state.updates = 1;
  }
  AdamWArgs<Acc> args(int64_t first = 0) {
    return {constants,
            &state,
            g.data() + first,
            p.data() + first,
            rounded.data() + first,
            m.data() + first,
            v.data() + first};
  }
  void step(int64_t first, int64_t count, int threads) {
    Workspace(threads).run(
        [&](Context& context) { adamw_step(context, OptimShape{count}, args(first)); });
  }
};

template <class T>
bool same(const Guarded<T>& x, const Guarded<T>& y) {
  return std::memcmp(x.data(), y.data(), static_cast<size_t>(x.count()) * sizeof(T)) == 0;
}

TEST(Optim, SameBitsForAnyThreadCountAndAnyCutIntoRanges) {
  constexpr int64_t kCount = 100003;
  Parameters<float> one(kCount), two(kCount), cut(kCount);
  for (int64_t t = 1; t <= 3; ++t) {
    one.state.updates = two.state.updates = cut.state.updates = t;
    one.step(0, kCount, 1);
    two.step(0, kCount, 2);
    cut.step(0, 33, 1);
    cut.step(33, kCount - 33, 2);
  }
  EXPECT_TRUE(same(one.p, two.p) && same(one.m, two.m) && same(one.v, two.v));
  EXPECT_TRUE(same(one.p, cut.p) && same(one.m, cut.m) && same(one.v, cut.v));
  EXPECT_TRUE(same(one.rounded, two.rounded) && same(one.rounded, cut.rounded));
}

// Without a learning rate and gradients p stays, so that `rounded` shows every rounding.
TEST_F(OptimOnEveryTarget, RoundedCopyIsTheConversionOfP) {
  const std::pair<uint32_t, uint16_t> bits[] = {
      {0x3F808000, 0x3F80},  // 1 + 2^-8: tie to even
      {0x3F818000, 0x3F82},  // 1 + 3 2^-8: tie to even, upward
      {0x3F808001, 0x3F81}, {0xBF808001, 0xBF81}, {0x7F7FFFFF, 0x7F80}, {0xFF800000, 0xFF80},
      {0x00000001, 0x0000}, {0x80000000, 0x8000}, {0x7F800001, 0x7FC0}, {0xFFFFFFFF, 0x7FC0}};
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    Parameters<float> parameters(41);
    parameters.state.learning_rate = 0;
    for (int64_t i = 0; i < 41; ++i) {
      parameters.p[i] = std::bit_cast<float>(bits[i % 10].first);
      parameters.g[i] = 0;
    }
    parameters.step(0, 41, 1);
    for (int64_t i = 0; i < 41; ++i) {
      EXPECT_EQ(parameters.rounded[i].bits, bits[i % 10].second) << target.name << " " << i;
    }
    EXPECT_TRUE(parameters.rounded.intact());
  }
}

// Just above a tie of bf16: as a float it would be the tie.
TEST_F(OptimOnEveryTarget, RoundedCopyOfDoublesIsRoundedOnce) {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    Parameters<double> parameters(11);
    parameters.state.learning_rate = 0;
    for (int64_t i = 0; i < 11; ++i) parameters.p[i] = 1 + 0x1p-8 + (i % 2 == 0 ? 0 : 0x1p-40);
    parameters.step(0, 11, 1);
    for (int64_t i = 0; i < 11; ++i) {
      EXPECT_EQ(parameters.rounded[i].bits, i % 2 == 0 ? 0x3F80 : 0x3F81) << target.name;
    }
  }
}

TEST(Optim, RoundedCopyMayBeAbsent) {
  Parameters<float> with(1009), without(1009);
  with.step(0, 1009, 1);
  Workspace(1).run([&](Context& context) {
    auto args = without.args();
    args.rounded = nullptr;
    adamw_step(context, {1009}, args);
  });
  EXPECT_TRUE(same(with.p, without.p));
}

// The first step moves every parameter by lr against the sign of its gradient (up to eps).
TEST(Optim, FirstStepIsTheSignOfTheGradient) {
  Parameters<double> parameters(50);
  parameters.constants.weight_decay = 0;
  const Guarded<double> before = parameters.p;
  parameters.step(0, 50, 1);
  for (int64_t i = 0; i < 50; ++i) {
    const double g = parameters.g[i];
    EXPECT_NEAR(parameters.p[i] - before[i], -1e-3 * g / (std::abs(g) + 1e-8), 1e-15);
  }
}

// Ten steps on the loss p^2 / 2, against values worked out by PyTorch's formula in double by hand
// in a loop that shares nothing with the kernel.
TEST(Optim, TenStepsFollowTheFormula) {
  Parameters<double> parameters(1);
  double p = parameters.p[0], m = 0, v = 0;
  for (int64_t t = 1; t <= 10; ++t) {
    parameters.g[0] = parameters.p[0];
    parameters.state.updates = t;
    parameters.step(0, 1, 1);
    const double g = p;
    p -= 1e-3 * 0.1 * p;
    m = 0.9 * m + (1 - 0.9) * g;
    v = 0.95 * v + (1 - 0.95) * g * g;
    const double n = static_cast<double>(t);
    p -= 1e-3 / (1 - std::pow(0.9, n)) * m /
         (std::sqrt(v) / std::sqrt(1 - std::pow(0.95, n)) + 1e-8);
    EXPECT_NEAR(parameters.p[0], p, 1e-14) << "step " << t;
  }
}

TEST(Optim, SkipLeavesEverythingAlone) {
  Parameters<float> parameters(100);
  parameters.g[7] = std::numeric_limits<float>::quiet_NaN();
  parameters.state.skip = 1;
  parameters.state.updates = 0;
  const Parameters<float> before = parameters;
  parameters.step(0, 100, 1);
  EXPECT_TRUE(same(parameters.p, before.p) && same(parameters.m, before.m));
  EXPECT_TRUE(same(parameters.v, before.v) && same(parameters.rounded, before.rounded));
}

template <class Acc>
double norm_squared(const Guarded<Acc>& g, int threads, double before = NAN) {
  double sum = before;
  Workspace(threads).run([&](Context& context) {
    sum_of_squares<Acc>(context, {g.count()}, {g.data(), &sum, !std::isnan(before)});
  });
  return sum;
}

TEST_F(OptimOnEveryTarget, SumOfSquares) {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    for (const int64_t count : {0, 1, 7, 8, 63, 1009, 16384, 16385, 100003}) {
      Guarded<float> g(count);
      measure::fill_normal(g, 5, "g");
      double expected = 0;
      for (int64_t i = 0; i < count; ++i) expected += double{g[i]} * double{g[i]};
      const double one = norm_squared(g, 1);
      EXPECT_NEAR(one, expected, 1e-13 * expected) << target.name << " " << count;
      EXPECT_EQ(one, norm_squared(g, 2)) << target.name << " " << count;
      EXPECT_EQ(0.7 + one, norm_squared(g, 2, 0.7)) << target.name << " " << count;
    }
    Guarded<float> large(100);
    for (int64_t i = 0; i < 100; ++i) large[i] = 3e38f;  // its square overflows a float
    EXPECT_NEAR(norm_squared(large, 1), 9e78, 1e73) << target.name;
    for (const float bad :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      for (const int64_t at : {0, 50, 99}) {
        Guarded<float> g(100);
        measure::fill_normal(g, 5, "g");
        g[at] = bad;
        EXPECT_FALSE(std::isfinite(norm_squared(g, 2))) << target.name << " at " << at;
      }
    }
  }
}

// A second moment that is off by one part in a thousand must turn the comparison red.
TEST(Optim, ComparisonSeesAPlantedDefect) {
  Parameters<float> parameters(64);
  parameters.step(0, 64, 1);
  measure::OutputCheck output{"v", Dtype::f32, parameters.v.widened(), parameters.v.widened(),
                              {},  {}};
  measure::Comparison same_values;
  same_values.add(output);
  EXPECT_TRUE(same_values.passed());
  output.got[40] *= 1.001;
  measure::Comparison comparison;
  comparison.add(output);
  EXPECT_FALSE(comparison.passed());
}

StepState decided(StepState state, double clip_norm) {
  Workspace(1).run([&](Context& context) { decide_step(context, {&state, clip_norm}); });
  return state;
}

TEST(Decision, ClipsAboveTheNormOnly) {
  StepState state;
  state.learning_rate = 3;
  state.gradient_scale = 5;
  state.loss_sum = 7;
  state.squares = 16;
  state.updates = 41;
  state.skip = 1;  // of the step before
  state.skipped = 2;
  const StepState above = decided(state, 1);
  EXPECT_EQ(above.grad_norm, 4);
  EXPECT_EQ(above.clip, 1 / 4.000001);
  EXPECT_EQ(above.skip, 0);
  EXPECT_EQ(above.skipped, 2);
  EXPECT_EQ(above.updates, 42);
  EXPECT_EQ(above.learning_rate, 3);
  EXPECT_EQ(above.gradient_scale, 5);
  EXPECT_EQ(above.loss_sum, 7);
  EXPECT_EQ(above.squares, 16);
  EXPECT_EQ(decided(state, 5).clip, 1);
  EXPECT_EQ(decided(state, 4).clip, 4 / 4.000001);  // the floor counts at the norm itself
  EXPECT_EQ(decided(state, 0).clip, 1);
  state.squares = 0;
  EXPECT_EQ(decided(state, 1e-7).clip, 1e-7 / 1e-6);
}

TEST(Decision, SkipsWhatIsNotFinite) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  StepState good;
  good.squares = 1;
  good.loss_sum = 2;
  good.clip = 0.25;
  good.updates = 9;
  for (const double bad : {kInfinity, -kInfinity, static_cast<double>(NAN)}) {
    for (const bool in_loss : {false, true}) {
      StepState state = good;
      (in_loss ? state.loss_sum : state.squares) = bad;
      state = decided(state, 1);
      EXPECT_EQ(state.skip, 1);
      EXPECT_EQ(state.skipped, 1);
      EXPECT_EQ(state.updates, 9);
      EXPECT_EQ(state.clip, 0.25);
      state.loss_sum = 2;
      state.squares = 1;
      state = decided(decided(state, 1), 1);
      EXPECT_EQ(state.skip, 0);
      EXPECT_EQ(state.skipped, 1);
      EXPECT_EQ(state.updates, 11);
    }
  }
}

// The chain of a step: squares, decision, AdamW with the clip that it found.
TEST(Decision, AdamWReadsWhatItDecided) {
  Parameters<double> chained(20), by_hand(20);
  chained.state.updates = 0;
  Workspace(1).run([&](Context& context) {
    sum_of_squares<double>(context, {20}, {chained.g.data(), &chained.state.squares, false});
    decide_step(context, {&chained.state, 0.5});
    adamw_step(context, {20}, chained.args());
  });
  double squares = 0;
  for (int64_t i = 0; i < 20; ++i) squares += by_hand.g[i] * by_hand.g[i];
  const double clip = 0.5 / (std::sqrt(squares) + 1e-6);
  ASSERT_LT(clip, 1);
  for (int64_t i = 0; i < 20; ++i) by_hand.g[i] *= clip;
  by_hand.step(0, 20, 1);
  EXPECT_EQ(chained.state.updates, 1);
  for (int64_t i = 0; i < 20; ++i) EXPECT_NEAR(chained.p[i], by_hand.p[i], 1e-15);
}

template <class Run>
std::string error_of(const Run& run) {
  try {
    Workspace(1).run(run);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Optim, TheDoorsNameTheField) {
  Parameters<float> parameters(4);
  const auto with = [&](const auto& change) {
    return error_of([&](Context& context) {
      auto args = parameters.args();
      change(args);
      adamw_step(context, {4}, args);
    });
  };
  const auto none = [](const std::string& field) {
    return "optim: " + field + ": bad shape: expected an array, got none";
  };
  EXPECT_EQ(with([](auto&) {}), "no error");
  EXPECT_EQ(with([](auto& a) { a.constants.beta2 = 1; }),
            "optim: beta2: bad shape: expected < 1, got 1");
  EXPECT_EQ(with([](auto& a) { a.constants.eps = -1; }).substr(0, 21), "optim: eps: bad shape");
  EXPECT_EQ(with([](auto& a) { a.state = nullptr; }), none("state"));
  EXPECT_EQ(with([](auto& a) { a.g = nullptr; }), none("g"));
  EXPECT_EQ(with([](auto& a) { a.v = nullptr; }), none("v"));
  EXPECT_EQ(error_of([&](Context& c) { adamw_step(c, {-1}, parameters.args()); }),
            "optim: count: bad shape: expected >= 0, got -1");
  EXPECT_EQ(
      error_of([&](Context& c) { sum_of_squares<float>(c, {4}, {parameters.g.data(), nullptr}); }),
      none("sum"));
  EXPECT_EQ(error_of([&](Context& c) { decide_step(c, {nullptr, 1}); }), none("state"));
  EXPECT_EQ(error_of([&](Context& c) { decide_step(c, {&parameters.state, NAN}); }).substr(0, 27),
            "optim: clip_norm: bad shape");
}

}  // namespace
}  // namespace adder
