// Every line of every family against its reference, on every SIMD target of every device: the CPU's
// device memory stands behind a fence.
#include <gtest/gtest.h>

#include <cstdio>

#include "core/simd_targets.h"
#include "kernels/device/cuda_backend.h"
#include "measure/fence.h"
#include "measure/sanitized.h"
#include "measure/variant.h"

namespace adder::measure {

// The name in the listings of the tests.
void PrintTo(const Family& family, std::ostream* out) { *out << family.name; }

namespace {

struct Tally {
  int run = 0;
  int empty = 0;
  int skipped = 0;
};

std::string describe(const Variant& variant) {
  return std::string(variant.line.name) + " " + std::string(dtype_name(variant.line.dtype)) + " " +
         std::string(direction_name(variant.direction)) + " " + variant.shape;
}

Tally check_all(const std::vector<Variant>& variants, const RunOptions& options,
                const std::string& target) {
  // Under sanitizers large families take one third a target, another third on the next one.
  const size_t shares = kSanitized && variants.size() > 200 ? 3 : 1;
  Tally tally;
  for (size_t i = 0; i < variants.size(); ++i) {
    const Variant& variant = variants[i];
    if (variant.line.device != options.caps.device ||
        (i + static_cast<size_t>(target.back())) % shares != 0) {
      continue;
    }
    const Comparison comparison = variant.check(options);
    if (!comparison.accepted) {
      ++tally.skipped;
      continue;
    }
    EXPECT_TRUE(comparison.passed())
        << target << " " << describe(variant) << ": " << comparison.describe();
    comparison.empty ? ++tally.empty : ++tally.run;
  }
  return tally;
}

void check_on_device(const Family& family, const RunOptions& options, const std::string& target) {
  const Tally tally = check_all(family.variants(Purpose::test), options, target);
  std::printf("%s %s: %d variants, %d more without elements, %d not accepted by their line\n",
              family.name, target.c_str(), tally.run, tally.empty, tally.skipped);
  EXPECT_GT(tally.run, 0) << target;
  EXPECT_TRUE(tally.skipped == 0 || !family.every_shape) << target;
}

class EveryLine : public ::testing::TestWithParam<Family> {
 protected:
  ~EveryLine() override { force_simd_target(0); }
};

TEST_P(EveryLine, MatchesTheReferenceOnEveryTarget) {
  const Fence fence;
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    check_on_device(GetParam(), {.threads = 2}, target.name);
  }
}

TEST_P(EveryLine, MatchesTheReferenceOnTheGpu) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "no GPU here";
  const Context context = use_cuda(0);
  const Family& family = GetParam();
  const Tally tally = check_all(family.variants(Purpose::test), {.caps = context.caps}, "cuda");
  std::printf("%s cuda: %d variants, %d more without elements, %d not accepted by their line\n",
              family.name, tally.run, tally.empty, tally.skipped);
  if (tally.run + tally.skipped == 0) GTEST_SKIP() << "no line on CUDA yet";
}

INSTANTIATE_TEST_SUITE_P(Family, EveryLine, ::testing::ValuesIn(families()),
                         [](const auto& family) { return family.param.name; });

TEST(Fence, TheHostCannotReadDeviceMemory) {
  const Fence fence;
  Buffer buffer(100, {MemoryKind::device});
  const float written = 3;
  buffer.write(0, &written, sizeof(float));
  float read = 0;
  buffer.read(0, &read, sizeof(float));
  EXPECT_EQ(read, written);
  EXPECT_DEATH(*buffer.as<volatile float>() = 1, "");
}

}  // namespace
}  // namespace adder::measure
