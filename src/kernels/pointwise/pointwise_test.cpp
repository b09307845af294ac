#include "kernels/pointwise/pointwise.h"

#include <cmath>
#include <limits>

#include "measure/call_laws_test.h"
#include "measure/pointwise_call.h"

namespace adder {
namespace {

using measure::fill_normal;
using measure::fill_uniform;
using measure::Guarded;
using measure::on_every_target;
using measure::run_on_device;
using measure::Side;

template <class T>
T* device(Guarded<T>& array) {
  return array.at(Side::device);
}

TEST(Pointwise, GateGradientMatchesCentralDifferences) {
  measure::GateCall<double> call({.shape = {1, 13}, .scale = 2}, 1);
  expect_gradients(call, "gate");
}

// out (+)= the sums of 64 rows each, one block of rows after the other.
std::vector<float> sums_of_blocks(const Guarded<Bf16>& g, int64_t rows, int64_t width,
                                  int64_t stride, float before) {
  std::vector<float> out(static_cast<size_t>(width), before);
  for (int64_t c = 0; c < width; ++c) {
    for (int64_t first = 0; first < rows; first += 64) {
      float sum = 0;
      for (int64_t r = first; r < std::min(rows, first + 64); ++r) {
        sum += static_cast<float>(g[r * stride + c]);
      }
      out[static_cast<size_t>(c)] += sum;
    }
  }
  return out;
}

TEST(Pointwise, ColumnSumAddsRowsInFixedOrder) {
  on_every_target([] {
    for (const int64_t rows : {0, 1, 63, 64, 65, 1000}) {
      for (const bool accumulate : {false, true}) {
        constexpr int64_t kWidth = 37, kStride = 41;
        Guarded<Bf16> g(rows * kStride + 1);
        fill_normal(g, 3, "g");
        const auto expected = sums_of_blocks(g, rows, kWidth, kStride, accumulate ? 1.0f : 0.0f);
        for (const int threads : {1, 2, 3}) {
          Guarded<float> out(kWidth);
          for (int64_t c = 0; c < kWidth && accumulate; ++c) out[c] = 1;
          run_on_device(
              threads,
              [&](Context& c) {
                column_sum<Bf16>(c, {rows, kWidth}, {device(g), kStride, device(out), accumulate});
              },
              g, out);
          EXPECT_TRUE(out.intact());
          for (int64_t c = 0; c < kWidth; ++c) {
            double exact = accumulate ? 1 : 0, size = exact;
            for (int64_t r = 0; r < rows; ++r) {
              const double x = measure::to_double(g[r * kStride + c]);
              exact += x;
              size += std::abs(x);
            }
            EXPECT_NEAR(out[c], exact, 8 * 0x1p-24 * size);
            EXPECT_EQ(out[c], expected[static_cast<size_t>(c)]);
          }
        }
      }
    }
  });
}

TEST(Pointwise, ConvertRoundsToNearestEven) {
  on_every_target([] {
    constexpr int64_t kCount = 20011;
    Guarded<float> from(kCount), back(kCount);
    Guarded<Bf16> to(kCount);
    fill_normal(from, 5, "from", 1e3);
    from[7] = std::nanf("");
    from[8] = INFINITY;
    from[9] = 3.4e38f;
    run_on_device(
        2,
        [&](Context& c) {
          convert<float, Bf16>(c, {1, kCount}, {device(from), device(to)});
          convert<Bf16, float>(c, {1, kCount}, {device(to), device(back)});
        },
        from, to, back);
    for (int64_t i = 0; i < kCount; ++i) {
      EXPECT_EQ(to[i].bits, Bf16(from[i]).bits) << i;
      if (i != 7) {
        EXPECT_EQ(back[i], static_cast<float>(to[i]));
      }
    }
    EXPECT_TRUE(std::isnan(back[7]));
    EXPECT_TRUE(to.intact());
  });
}

TEST(Pointwise, DecayAndItsGradient) {
  on_every_target([] {
    constexpr int64_t kCount = 1003;
    Guarded<double> a_log(kCount), a(kCount), da(kCount), da_log(kCount);
    fill_uniform(a_log, 6, "a_log", -8, 5);
    fill_normal(da, 6, "da");
    run_on_device(
        2,
        [&](Context& c) {
          decay_forward<double>(c, {17, 59}, {device(a_log), device(a)});
          decay_backward<double>(c, {17, 59}, {device(a), device(da), device(da_log), false});
        },
        a_log, a, da, da_log);
    for (int64_t i = 0; i < kCount; ++i) {
      EXPECT_NEAR(a[i] / -std::exp(a_log[i]), 1.0, 1e-14);
      EXPECT_NEAR(da_log[i], da[i] * a[i], 1e-13 * (1 + std::abs(da[i] * a[i])));
    }
  });
}

template <class Acc>
void decays(double tolerance) {
  on_every_target([&] {
    const int threads = 2;
    const int64_t count = 70001;
    Guarded<Acc> a_log(count), a(count), da(count), da_log(count), once(count);
    measure::fill_uniform(a_log, 1, "a_log", -20, 20);
    a_log[0] = static_cast<Acc>(1e4);   // overflows: the state is forgotten
    a_log[1] = static_cast<Acc>(-1e4);  // underflows: the state is frozen
    a_log[2] = 0;
    fill_normal(da, 1, "da");
    const PointwiseShape shape{1, count};
    run_on_device(
        threads,
        [&](Context& context) {
          decay_forward<Acc>(context, shape, {device(a_log), device(a)});
          decay_backward<Acc>(context, shape, {device(a), device(da), device(once), false});
        },
        a_log, a, da, once);
    da_log = once;
    run_on_device(
        threads,
        [&](Context& context) {
          decay_backward<Acc>(context, shape, {device(a), device(da), device(da_log), true});
        },
        a, da, da_log);
    EXPECT_TRUE(a.intact() && once.intact() && da_log.intact());
    EXPECT_EQ(a[0], -std::numeric_limits<Acc>::infinity());
    EXPECT_EQ(a[1], 0);
    EXPECT_EQ(a[2], -1);
    for (int64_t i = 2; i < count; ++i) {
      const double expected = -std::exp(static_cast<double>(a_log[i]));
      ASSERT_NEAR(a[i] / expected, 1.0, tolerance) << a_log[i];
      ASSERT_EQ(once[i], da[i] * a[i]) << i;
      ASSERT_NEAR(da_log[i], 2 * once[i], tolerance * std::abs(once[i])) << i;
    }
  });
}

TEST(Decay, IsMinusTheExponentialAndItsGradient) {
  // 20 |exponent| roundings where the target has no fused multiply-add (exp_word).
  decays<float>(24 * 0x1p-24);
  decays<double>(24 * 0x1p-53);
}

TEST(Pointwise, TheDoorsNameTheField) {
  using measure::error_of;
  const auto none = [](const std::string& field) { return measure::absent("pointwise: " + field); };
  const Buffer memory(64, {MemoryKind::device});
  auto *x = memory.as<float>(), *out = x + 8;
  GateForward<float> gate{x, 3, x, 4, out, 4};
  const auto gated = [&] {
    return error_of([&](Context& c) { gate_forward<float>(c, {2, 4}, gate); });
  };
  EXPECT_EQ(gated(), "pointwise: y_stride: bad shape: expected >= 4 (width), got 3");
  gate.y_stride = 4;
  gate.gate = nullptr;
  EXPECT_EQ(gated(), none("gate"));
  EXPECT_EQ(error_of([&](Context& c) { gate_backward<float>(c, {2, 4}, {}); }), none("y"));
  EXPECT_EQ(error_of([&](Context& c) { convert<float, Bf16>(c, {-1, 2}, {}); }),
            "pointwise: rows: bad shape: expected >= 0, got -1");
  EXPECT_EQ(error_of([&](Context& c) { convert<float, Bf16>(c, {1, 2}, {x, nullptr}); }),
            none("to"));
  EXPECT_EQ(error_of([&](Context& c) { convert<float, Bf16>(c, {0, 2}, {}); }), "no error");
  EXPECT_EQ(error_of([&](Context& c) { column_sum<float>(c, {2, 4}, {x, 4, nullptr}); }),
            none("out"));
  EXPECT_EQ(error_of([&](Context& c) { column_sum<float>(c, {2, 4}, {x, 2, out}); }),
            "pointwise: g_stride: bad shape: expected >= 4 (width), got 2");
  EXPECT_EQ(error_of([&](Context& c) { decay_forward<float>(c, {2, 4}, {x, nullptr}); }),
            none("a"));
  EXPECT_EQ(error_of([&](Context& c) { decay_backward<float>(c, {2, 4}, {x}); }), none("da"));
}

TEST(Pointwise, AWrongGateIsSeen) {
  measure::Comparison comparison;
  comparison.add({"out", Dtype::f32, {1.0f + 0x1p-19f}, {1.0}, {1.0}, {1.0}});
  EXPECT_FALSE(comparison.passed());
  EXPECT_THROW((PointwiseShape{-1, 2}.check()), Error);
}

}  // namespace
}  // namespace adder
