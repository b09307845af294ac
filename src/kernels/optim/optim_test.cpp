#include "kernels/optim/optim.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/simd_targets.h"
#include "measure/evaluation.h"
#include "measure/variant.h"

namespace adder {
namespace {

TEST(Optim, EveryLineMatchesTheReferenceOnEveryTarget) {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    for (const auto& variant : measure::optim_variants(measure::Purpose::test)) {
      for (const int threads : {1, 2}) {
        const auto comparison = variant.check({threads, 7});
        EXPECT_TRUE(comparison.passed())
            << target.name << " " << variant.shape << ": " << comparison.describe();
      }
    }
  }
  force_simd_target(0);
}

// PyTorch 2: torch.optim.AdamW, one parameter 1.0, g = 0.5 then -0.25, lr 0.1, wd 0.1, betas 0.9 0.95.
TEST(Optim, TwoStepsByHand) {
  double p = 1, m = 0, v = 0;
  const double gradients[] = {0.5, -0.25};
  double hand_p = 1, hand_m = 0, hand_v = 0;
  for (int t = 1; t <= 2; ++t) {
    const double g = gradients[t - 1];
    hand_p *= 1 - 0.1 * 0.1;
    hand_m = 0.9 * hand_m + 0.1 * g;
    hand_v = 0.95 * hand_v + 0.05 * g * g;
    const double m_hat = hand_m / (1 - std::pow(0.9, t)), v_hat = hand_v / (1 - std::pow(0.95, t));
    hand_p -= 0.1 * m_hat / (std::sqrt(v_hat) + 1e-8);
    StepValues values{0.1, 1, t, 0};
    AdamWArgs<double> args{{0.9, 0.95, 1e-8, 0.1}, &values, &g, &p, &m, &v};
    measure::run_planned(1, [&](Context& context) { adamw_step(context, {1}, args); });
    if (t == 1) {
      EXPECT_NEAR(p, 0.99 - 0.1, 1e-8);  // the first step is lr in size
    }
  }
  EXPECT_NEAR(p, hand_p, 1e-12);
}

TEST(Optim, SumOfSquaresIsInDoubleAndCarriesNonFinite) {
  std::vector<float> g(100003);
  long double exact = 0;
  for (size_t i = 0; i < g.size(); ++i) {
    g[i] = static_cast<float>(normal(1, 2, i)) * 1e18f;  // squares leave the range of float
    exact += static_cast<long double>(g[i]) * g[i];
  }
  std::vector<double> sums;
  for (const int threads : {1, 2, 3}) {
    double sum = 0;
    measure::run_planned(threads, [&](Context& context) {
      sum = sum_of_squares(context, static_cast<int64_t>(g.size()), g.data());
    });
    sums.push_back(sum);
  }
  EXPECT_NEAR(sums[0] / static_cast<double>(exact), 1.0, 1e-13);
  EXPECT_EQ(sums[0], sums[1]);
  EXPECT_EQ(sums[0], sums[2]);
  g[77777] = std::numeric_limits<float>::quiet_NaN();
  double sum = 0;
  measure::run_planned(2, [&](Context& context) {
    sum = sum_of_squares(context, static_cast<int64_t>(g.size()), g.data());
  });
  EXPECT_TRUE(std::isnan(sum));
}

TEST(Optim, BadArgumentsAreNamed) {
  StepValues values;
  float x = 0;
  AdamWArgs<float> args{{1.0, 0.95, 1e-8, 0}, &values, &x, &x, &x, &x};
  EXPECT_THROW(measure::run_planned(1, [&](Context& c) { adamw_step(c, {1}, args); }), Error);
  EXPECT_THROW(OptimShape{-1}.check(), Error);
}

TEST(Optim, AWrongBetaIsSeen) {
  auto variants = measure::optim_variants(measure::Purpose::test);
  const auto& variant = variants[7];
  auto comparison = variant.check({1, 7});
  ASSERT_TRUE(comparison.passed());
  measure::OutputCheck planted{"p", Dtype::f32, {1.0001}, {1.0}, {1.0}, {1.0}};
  comparison.add(planted);
  EXPECT_FALSE(comparison.passed());
}

}  // namespace
}  // namespace adder
