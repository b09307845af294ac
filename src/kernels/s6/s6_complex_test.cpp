// Complex A (math.md 3.5). The comparison with the reference is among s6_variants.
#include <gtest/gtest.h>

#include "kernels/s6/s6_call_test.h"

namespace adder {
namespace {

TEST(S6Complex, GradientsMatchCentralDifferences) {
  const Choice any;
  check_call(
      Call<double>({.batch = 2, .len = 35, .dim = 4, .state = 3, .groups = 2, .complex = true}),
      any);
  check_call(Call<double>({.len = 70, .dim = 3, .state = 2, .sequences = 5, .complex = true},
                          {0, 1, 1, 34, 66, 70}),
             any);
  Call<double> limited({.batch = 1, .len = 20, .dim = 5, .state = 4, .complex = true});
  limited.dt_min = 0.1;
  limited.dt_max = 1;
  check_call(limited, any);
}

// Imaginary parts of zero: twice the real scan (math.md 3.5).
TEST(S6Complex, WithoutImaginaryPartsIsTwiceTheRealScan) {
  Call<double> real({.batch = 1, .len = 77, .dim = 9, .state = 5});
  Call<double> pairs({.batch = 1, .len = 77, .dim = 9, .state = 5, .complex = true});
  const auto embed = [](const Guarded<double>& from, Guarded<double>& to) {
    for (int64_t i = 0; i < from.count(); ++i) to[2 * i] = from[i], to[2 * i + 1] = 0;
  };
  embed(real.A, pairs.A), embed(real.B, pairs.B), embed(real.C, pairs.C);
  embed(real.h0, pairs.h0), embed(real.ghT, pairs.ghT);
  for (int64_t d = 0; d < 9; ++d) real.D[d] = pairs.D[d] = 0;
  for (int64_t i = 0; i < real.ghT.count(); ++i) real.ghT[i] /= 2;
  real.run(1, {.name = "sequential"});
  pairs.run();
  for (int64_t i = 0; i < real.y.count(); ++i) EXPECT_NEAR(pairs.y[i], 2 * real.y[i], 1e-12);
  for (int64_t i = 0; i < real.ddt.count(); ++i) EXPECT_NEAR(pairs.ddt[i], 2 * real.ddt[i], 1e-11);
  for (int64_t i = 0; i < real.dB.count(); ++i) EXPECT_NEAR(pairs.dB[2 * i], 2 * real.dB[i], 1e-11);
  for (int64_t i = 0; i < real.hT.count(); ++i) {
    EXPECT_NEAR(pairs.hT[2 * i], real.hT[i], 1e-12);
    EXPECT_EQ(pairs.hT[2 * i + 1], 0);
  }
}

TEST(S6Complex, HasTheSameBitsForAnyThreadCount) {
  const S6Shape shape{.batch = 3, .len = 101, .dim = 140, .state = 3, .complex = true};
  Call<float> one(shape), two(shape);
  one.run(1);
  two.run(2);
  expect_same_bits(one, two);
}

}  // namespace
}  // namespace adder
