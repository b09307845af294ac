#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "core/buffer.h"
#include "core/context.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/rng.h"
#include "core/simd_targets.h"
#include "core/view.h"

namespace adder {
namespace {

TEST(Dtype, EveryHalfSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = float_from_f16_bits(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    EXPECT_EQ(f16_bits_from_float(value), bits);
  }
}

TEST(Dtype, HalfRoundsToNearestEven) {
  EXPECT_EQ(f16_bits_from_float(1.0f + 0x1p-11f), 0x3C00);      // tie to even
  EXPECT_EQ(f16_bits_from_float(1.0f + 3 * 0x1p-11f), 0x3C02);  // tie to even, upward
  EXPECT_EQ(f16_bits_from_float(65520.0f), 0x7C00);             // rounds to infinity
  EXPECT_EQ(f16_bits_from_float(65519.9f), 0x7BFF);
  EXPECT_EQ(f16_bits_from_float(0x1p-25f), 0);  // tie to even at zero
  EXPECT_TRUE(std::isnan(float_from_f16_bits(f16_bits_from_float(std::nanf("")))));
}

TEST(Dtype, Bf16RoundsToNearestEven) {
  EXPECT_EQ(bf16_bits_from_float(1.0f + 0x1p-8f), 0x3F80);
  EXPECT_EQ(bf16_bits_from_float(1.0f + 3 * 0x1p-8f), 0x3F82);
  EXPECT_TRUE(std::isnan(static_cast<float>(Bf16(std::nanf("")))));
  EXPECT_TRUE(std::isinf(static_cast<float>(Bf16(3.4e38f))));
}

TEST(Dtype, NamesRoundTripAndUnknownNamesAreErrors) {
  for (const Dtype type : {Dtype::f64, Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::i64}) {
    EXPECT_EQ(dtype_from_name(dtype_name(type)), type);
  }
  EXPECT_THROW(dtype_from_name("f31"), Error);
}

// Known-answer vectors of Random123 (philox4x32-10).
TEST(Rng, PhiloxKnownAnswers) {
  const auto zeros = philox(0, 0, 0);
  EXPECT_EQ(zeros, (std::array<uint32_t, 4>{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  const auto ones = philox(~0ull, ~0ull, ~0ull);
  EXPECT_EQ(ones, (std::array<uint32_t, 4>{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
}

TEST(Rng, NormalHasTheRightMomentsAndMatchesTheLibrary) {
  double sum = 0, square = 0, fourth = 0;
  constexpr int kCount = 200000;
  for (int i = 0; i < kCount; ++i) {
    const double x = normal(7, 3, static_cast<uint64_t>(i));
    sum += x;
    square += x * x;
    fourth += x * x * x * x;
  }
  EXPECT_NEAR(sum / kCount, 0.0, 0.01);
  EXPECT_NEAR(square / kCount, 1.0, 0.015);
  EXPECT_NEAR(fourth / kCount, 3.0, 0.1);
  const auto words = philox(7, 3, 11);
  const uint64_t a = (static_cast<uint64_t>(words[1]) << 32) | words[0];
  const uint64_t b = (static_cast<uint64_t>(words[3]) << 32) | words[2];
  const double u = static_cast<double>((a >> 11) + 1) * 0x1p-53;
  const double v = static_cast<double>(b >> 11) * 0x1p-53;
  EXPECT_NEAR(normal(7, 3, 11), std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * v), 1e-12);
}

TEST(Rng, UniformBelowStaysBelowAndReachesAll) {
  std::set<uint64_t> seen;
  for (uint64_t i = 0; i < 1000; ++i) seen.insert(uniform_below(1, 2, i, 7));
  EXPECT_EQ(seen.size(), 7u);
  EXPECT_EQ(*seen.rbegin(), 6u);
}

TEST(Arena, ThePlanIsWhatTheRealRunTakes) {
  const auto carve = [](Arena& arena) {
    arena.take<float>(3);
    {
      Arena::Scope scope(arena);
      arena.take<double>(100);
    }
    arena.take<char>(1);
  };
  Arena plan;
  carve(plan);
  EXPECT_EQ(plan.peak_bytes(), 64 + 832);
  Arena real(plan.peak_bytes(), {});
  carve(real);
  EXPECT_EQ(real.used_bytes(), 128);
  EXPECT_DEATH(real.take<char>(1000), "check failed");
}

TEST(ErrorText, NamesWhatWhereExpectedGot) {
  const Error error({"wrong shape", "f.safetensors: tensor 'x'", "[2]", "[3]"});
  EXPECT_STREQ(error.what(), "f.safetensors: tensor 'x': wrong shape: expected [2], got [3]");
  const std::vector<std::string> known = {"learning_rate", "steps", "seed"};
  EXPECT_EQ(nearest_name("lerning_rate", known), "learning_rate");
  EXPECT_EQ(nearest_name("zzzzzzzz", known), "");
}

TEST(SimdTargets, EachCanBeForced) {
  const auto targets = simd_targets();
  ASSERT_GE(targets.size(), 2u);
  for (const auto& target : targets) {
    force_simd_target(target.bits);
    EXPECT_EQ(simd_target_name(), target.name);
  }
  force_simd_target(0);
  EXPECT_EQ(simd_target_name(), targets.front().name);
}

}  // namespace
}  // namespace adder
