#include "kernels/optim/optim.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "core/simd_targets.h"
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
  AdamWConstants constants;
  StepValues values;

  explicit Parameters(int64_t count) : g(count), p(count), m(count), v(count) {
    measure::fill_normal(g, 1, "g");
    measure::fill_normal(p, 1, "p");
    for (int64_t i = 0; i < count; ++i) m[i] = v[i] = 0;
    values.learning_rate = 1e-3;
  }
  void step(int64_t first, int64_t count, int threads) {
    Arena arena(1 << 16);
    Context context;
    context.threads = threads;
    context.arena = &arena;
    AdamWArgs<Acc> args{constants,        &values,          g.data() + first,
                        p.data() + first, m.data() + first, v.data() + first};
    adamw_step(context, OptimShape{count}, args);
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
    one.values.step = two.values.step = cut.values.step = t;
    one.step(0, kCount, 1);
    two.step(0, kCount, 2);
    cut.step(0, 33, 1);
    cut.step(33, kCount - 33, 2);
  }
  EXPECT_TRUE(same(one.p, two.p) && same(one.m, two.m) && same(one.v, two.v));
  EXPECT_TRUE(same(one.p, cut.p) && same(one.m, cut.m) && same(one.v, cut.v));
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
    parameters.values.step = t;
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
  parameters.values.skip = 1;
  parameters.values.step = 0;
  const Guarded<float> p = parameters.p, m = parameters.m, v = parameters.v;
  parameters.step(0, 100, 1);
  EXPECT_TRUE(same(parameters.p, p) && same(parameters.m, m) && same(parameters.v, v));
}

template <class Acc>
double norm_squared(const Guarded<Acc>& g, int threads) {
  Arena arena(1 << 20);
  Context context;
  context.threads = threads;
  context.arena = &arena;
  return sum_of_squares(context, g.count(), g.data());
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

template <class Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Optim, DoorNamesFieldExpectedAndGot) {
  Parameters<float> parameters(4);
  EXPECT_EQ(error_of([&] { parameters.step(0, -1, 1); }),
            "optim count: negative extent: expected >= 0, got -1");
  parameters.values.step = 0;
  EXPECT_EQ(error_of([&] { parameters.step(0, 4, 1); }),
            "optim step: option out of range: expected >= 1, got 0");
  parameters.values.step = 1;
  parameters.constants.beta2 = 1;
  EXPECT_EQ(error_of([&] { parameters.step(0, 4, 1); }),
            "optim beta2: option out of range: expected in [0, 1), got 1");
}

}  // namespace
}  // namespace adder
