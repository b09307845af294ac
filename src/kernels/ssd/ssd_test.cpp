#include "kernels/ssd/ssd.h"

#include <gtest/gtest.h>

#include "core/simd_targets.h"
#include "measure/variant.h"

namespace adder {
namespace {

TEST(Ssd, EveryLineMatchesTheReferenceOnEveryTarget) {
  const auto variants = measure::ssd_variants(measure::Purpose::test);
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    int run = 0, skipped = 0;
    for (const auto& variant : variants) {
      if (!variant.accepted) {
        ++skipped;
        continue;
      }
      const auto comparison = variant.check({.threads = 1 + run++ % 2});
      EXPECT_TRUE(comparison.passed())
          << target.name << " " << variant.line.name << " " << dtype_name(variant.line.dtype) << " "
          << direction_name(variant.direction) << " " << variant.shape << ": "
          << comparison.describe();
    }
    std::printf("%s: %d variants run, %d skipped\n", target.name.c_str(), run, skipped);
    EXPECT_GT(run, 0);
  }
  force_simd_target(0);
}

}  // namespace
}  // namespace adder
