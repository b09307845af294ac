#include <bit>
#include <cmath>
#include <limits>

#include "kernels/pointwise/pointwise.h"
#include "measure/call_laws_test.h"

namespace adder {
namespace {

using measure::fill_normal;
using measure::Guarded;

// Runs test(threads) for every SIMD target and one and two threads.
template <class Test>
void for_targets_and_threads(const Test& test) {
  measure::on_every_target([&] {
    for (const int threads : {1, 2}) test(threads);
  });
}

template <class From, class To>
Guarded<To> converted(Guarded<From> from, int threads) {
  Guarded<To> to(from.count());
  measure::run_on_device(
      threads,
      [&](Context& context) {
        convert<From, To>(context, {1, from.count()},
                          {from.at(measure::Side::device), to.at(measure::Side::device)});
      },
      from, to);
  EXPECT_TRUE(to.intact());
  return to;
}

// The same value, or NaN for NaN: the payload is free.
template <class T>
bool same_value(T a, T b) {
  const auto x = measure::to_double(a), y = measure::to_double(b);
  return (std::isnan(x) && std::isnan(y)) || (x == y && std::signbit(x) == std::signbit(y));
}

template <class From, class To>
void expect_converted(const Guarded<From>& from, int threads) {
  const auto to = converted<From, To>(from, threads);
  for (int64_t i = 0; i < from.count(); ++i) {
    const To expected = measure::from_double<To>(measure::to_double(from[i]));
    ASSERT_TRUE(same_value(to[i], expected))
        << dtype_name(dtype_of<From>) << " to " << dtype_name(dtype_of<To>) << " at " << i << ": "
        << measure::to_double(from[i]) << " gives " << measure::to_double(to[i]) << ", expected "
        << measure::to_double(expected);
  }
}

template <class From>
Guarded<From> all_16_bit_patterns() {
  Guarded<From> all(65536 + 7);  // a length that no vector divides
  for (int64_t i = 0; i < all.count(); ++i) all[i].bits = static_cast<uint16_t>(i);
  return all;
}

template <class From>
void every_pattern_converts() {
  for_targets_and_threads([](int threads) {
    const auto all = all_16_bit_patterns<From>();
    expect_converted<From, double>(all, threads);
    expect_converted<From, float>(all, threads);
    expect_converted<From, Bf16>(all, threads);
    expect_converted<From, F16>(all, threads);
  });
}

TEST(Convert, EveryBf16ToEveryType) { every_pattern_converts<Bf16>(); }
TEST(Convert, EveryF16ToEveryType) { every_pattern_converts<F16>(); }

// Floats around every rounding boundary of both 16-bit types, and the ends of the range.
Guarded<float> awkward_floats() {
  Guarded<float> values(3 * 2 * 65536 + 5);
  for (int64_t i = 0; i < values.count(); ++i) {
    const auto pattern = static_cast<uint16_t>(i / 6);
    const bool is_bf16 = i % 2 == 0;
    const float near = is_bf16 ? std::bit_cast<float>((uint32_t{pattern} << 16) | 0x8000u)
                               : float_from_f16_bits(pattern) * (1 + 0x1p-11f);
    const auto bits = std::bit_cast<uint32_t>(near) + static_cast<uint32_t>(i / 2 % 3) - 1u;
    values[i] = std::bit_cast<float>(bits);
  }
  return values;
}

TEST(Convert, FloatsRoundToNearestEven) {
  const auto values = awkward_floats();
  for_targets_and_threads([&](int threads) {
    expect_converted<float, Bf16>(values, threads);
    expect_converted<float, F16>(values, threads);
    expect_converted<float, float>(values, threads);
    expect_converted<float, double>(values, threads);
  });
}

// A double just above a tie of the 16-bit type rounds up, though as a float it would be the tie.
TEST(Convert, DoublesRoundOnce) {
  Guarded<double> values(9);
  const double ties[] = {1 + 0x1p-8,  1 + 0x1p-8 + 0x1p-40,  1 + 3 * 0x1p-8 - 0x1p-40,
                         1 + 0x1p-11, 1 + 0x1p-11 + 0x1p-40, 1 + 3 * 0x1p-11 - 0x1p-40,
                         1e300,       -1 - 0x1p-8 - 0x1p-40, 0.1};
  for (int64_t i = 0; i < 9; ++i) values[i] = ties[i];
  for_targets_and_threads([&](int threads) {
    const auto bf16 = converted<double, Bf16>(values, threads);
    EXPECT_EQ(static_cast<float>(bf16[0]), 1.0f);
    EXPECT_EQ(static_cast<float>(bf16[1]), 1.0f + 0x1p-7f);
    EXPECT_EQ(static_cast<float>(bf16[2]), 1.0f + 0x1p-7f);
    EXPECT_EQ(static_cast<float>(bf16[6]), std::numeric_limits<float>::infinity());
    EXPECT_EQ(static_cast<float>(bf16[7]), -1.0f - 0x1p-7f);
    const auto f16 = converted<double, F16>(values, threads);
    EXPECT_EQ(static_cast<float>(f16[3]), 1.0f);
    EXPECT_EQ(static_cast<float>(f16[4]), 1.0f + 0x1p-10f);
    EXPECT_EQ(static_cast<float>(f16[5]), 1.0f + 0x1p-10f);
    expect_converted<double, float>(values, threads);
    expect_converted<double, double>(values, threads);
  });
}

}  // namespace
}  // namespace adder
