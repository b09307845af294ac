#include "kernels/loss/loss.h"

#include <gtest/gtest.h>

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
struct LossOnEveryTarget : ::testing::Test {
  ~LossOnEveryTarget() override { force_simd_target(0); }
};

TEST_F(LossOnEveryTarget, LinesAgreeWithReference) {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    for (const auto& variant : measure::loss_variants(measure::Purpose::test)) {
      for (const int threads : {1, 2}) {
        const auto result = variant.check({threads, 11});
        if (result.elements == 0 && result.faults.empty()) continue;  // no rows
        EXPECT_TRUE(result.passed())
            << target.name << " " << dtype_name(variant.line.dtype) << " " << variant.shape
            << " threads " << threads << ": " << result.describe();
      }
    }
  }
}

template <class L, class D = L>
struct Rows {
  LossShape shape;
  Guarded<L> logits;
  std::vector<int32_t> targets;
  Guarded<D> gradient;
  Guarded<double> losses;

  explicit Rows(const LossShape& given)
      : shape(given),
        logits(given.rows * given.columns),
        targets(static_cast<size_t>(given.rows)),
        gradient(given.rows * given.columns),
        losses(given.rows) {
    measure::fill_normal(logits, 3, "logits", 1.5);
    for (int64_t r = 0; r < given.rows; ++r) {
      targets[static_cast<size_t>(r)] = static_cast<int32_t>((r * 7 + 1) % given.vocab);
    }
  }
  void run(int threads = 1, const double* scale = nullptr) {
    LossForward<L, D> args;
    args.logits = logits.data();
    args.logit_stride = shape.columns;
    args.targets = targets.data();
    args.row_loss = losses.data();
    args.dlogits = gradient.data();
    args.dlogit_stride = shape.columns;
    args.gradient_scale = scale;
    Workspace(threads).run([&](Context& context) { softmax_cross_entropy(context, shape, args); });
  }
  double total() {
    run();
    double sum = 0;
    for (int64_t r = 0; r < shape.rows; ++r) sum += losses[r];
    return sum;
  }
};

LossShape shape_of(int64_t rows, int64_t vocab, int64_t columns) {
  LossShape shape;
  shape.rows = rows;
  shape.vocab = vocab;
  shape.columns = columns;
  return shape;
}

TEST_F(LossOnEveryTarget, GradientEqualsCentralDifferences) {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    LossShape shape = shape_of(3, 19, 21);
    shape.label_smoothing = 0.1;
    shape.z_loss = 0.01;
    Rows<double> rows(shape);
    rows.targets[1] = kIgnoreIndex;
    rows.run();
    const Guarded<double> gradient = rows.gradient;
    double largest = 0;
    for (int64_t i = 0; i < gradient.count(); ++i)
      largest = std::max(largest, std::abs(gradient[i]));
    constexpr double kStep = 1e-5;
    for (int64_t i = 0; i < gradient.count(); ++i) {
      const double kept = rows.logits[i];
      rows.logits[i] = kept + kStep;
      const double above = rows.total();
      rows.logits[i] = kept - kStep;
      const double below = rows.total();
      rows.logits[i] = kept;
      EXPECT_NEAR((above - below) / (2 * kStep), gradient[i], 1e-7 * largest)
          << target.name << " logit " << i;
    }
  }
}

TEST(Loss, SameBitsForAnyThreadCountAndRowsDoNotMeet) {
  const LossShape shape = shape_of(97, 501, 512);
  Rows<float> one(shape), two(shape);
  one.run(1);
  two.run(2);
  const auto bytes = static_cast<size_t>(one.gradient.count()) * sizeof(float);
  EXPECT_EQ(std::memcmp(one.gradient.data(), two.gradient.data(), bytes), 0);
  EXPECT_EQ(one.losses.widened(), two.losses.widened());

  LossShape alone = shape;
  alone.rows = 1;
  Rows<float> row(alone);
  row.run();
  EXPECT_EQ(row.losses[0], one.losses[0]);
  EXPECT_EQ(std::memcmp(row.gradient.data(), one.gradient.data(), 512 * sizeof(float)), 0);
}

TEST(Loss, IgnoredRowsAndPaddedColumnsGiveZero) {
  Rows<float> rows(shape_of(4, 30, 32));
  rows.targets[2] = kIgnoreIndex;
  rows.logits[31] = std::numeric_limits<float>::quiet_NaN();  // padded: never read
  rows.run();
  EXPECT_EQ(rows.losses[2], 0);
  for (int64_t c = 0; c < 32; ++c) EXPECT_EQ(rows.gradient[2 * 32 + c], 0);
  EXPECT_EQ(rows.gradient[30], 0);
  EXPECT_EQ(rows.gradient[31], 0);
  EXPECT_TRUE(std::isfinite(rows.losses[0]));
  double sum = 0;
  for (int64_t c = 0; c < 30; ++c) sum += rows.gradient[c];
  EXPECT_NEAR(sum, 0, 1e-6);
}

TEST(Loss, MinusInfinityMeansProbabilityZero) {
  Rows<float> rows(shape_of(1, 20, 20));
  for (int64_t c = 2; c < 20; ++c) rows.logits[c] = -std::numeric_limits<float>::infinity();
  rows.logits[0] = 1;
  rows.logits[1] = 1;
  rows.targets[0] = 1;
  rows.run();
  EXPECT_NEAR(rows.losses[0], std::log(2.0), 1e-7);
  EXPECT_FLOAT_EQ(rows.gradient[0], 0.5f);
  EXPECT_FLOAT_EQ(rows.gradient[1], -0.5f);
  for (int64_t c = 2; c < 20; ++c) EXPECT_EQ(rows.gradient[c], 0);
}

TEST(Loss, NanIsNotHidden) {
  Rows<float> rows(shape_of(1, 40, 40));
  rows.logits[33] = std::numeric_limits<float>::quiet_NaN();
  rows.run();
  EXPECT_TRUE(std::isnan(rows.losses[0]));
  EXPECT_TRUE(std::isnan(rows.gradient[0]));
}

TEST(Loss, AddingAConstantChangesNothing) {
  Rows<double> rows(shape_of(5, 33, 33)), shifted(shape_of(5, 33, 33));
  for (int64_t i = 0; i < shifted.logits.count(); ++i) shifted.logits[i] += 700;
  rows.run();
  shifted.run();
  for (int64_t i = 0; i < rows.gradient.count(); ++i) {
    EXPECT_NEAR(rows.gradient[i], shifted.gradient[i], 1e-12);
  }
}

// A gradient scaled by 1.001 must turn the comparison red.
TEST(Loss, ComparisonSeesAPlantedDefect) {
  Rows<float> rows(shape_of(4, 64, 64));
  rows.run();
  measure::OutputCheck output{"dlogits", Dtype::f32, {}, rows.gradient.widened(), {}, {}};
  const double wrong = 1.001;
  rows.run(1, &wrong);
  output.got = rows.gradient.widened();
  measure::Comparison comparison;
  comparison.add(output);
  EXPECT_FALSE(comparison.passed());
}

// The gradient in bf16 is the one in f32, converted.
TEST_F(LossOnEveryTarget, NarrowGradientIsTheWideOneRoundedOnce) {
  LossShape shape = shape_of(13, 211, 224);
  shape.label_smoothing = 0.1;
  shape.z_loss = 1e-3;
  const double scale = 1.0 / 7;
  for (const auto& target : simd_targets()) {
    SCOPED_TRACE(target.name);
    force_simd_target(target.bits);
    Rows<float> wide(shape);
    Rows<float, Bf16> narrow(shape);
    wide.targets[3] = narrow.targets[3] = kIgnoreIndex;
    wide.logits[5 * 224 + 9] = narrow.logits[5 * 224 + 9] = std::nanf("");
    wide.run(2, &scale);
    narrow.run(2, &scale);
    for (int64_t r = 0; r < shape.rows; ++r) {
      if (r == 5) continue;
      EXPECT_EQ(wide.losses[r], narrow.losses[r]) << r;
    }
    for (int64_t i = 0; i < wide.gradient.count(); ++i) {
      const float value = wide.gradient[i];
      const uint16_t expected = std::isnan(value) ? uint16_t{0x7FC0} : bf16_bits_from_float(value);
      ASSERT_EQ(narrow.gradient[i].bits, expected) << i;
    }
    EXPECT_TRUE(std::isnan(static_cast<float>(narrow.gradient[5 * 224])));
  }
}

// A half and a quarter of a gradient are exact.
TEST(Loss, GradientScaleIsReadFromMemory) {
  Rows<float> whole(shape_of(4, 64, 64)), half(shape_of(4, 64, 64));
  double scale = 0.5;
  whole.run();
  half.run(1, &scale);
  for (int64_t i = 0; i < whole.gradient.count(); ++i) {
    EXPECT_EQ(half.gradient[i], 0.5f * whole.gradient[i]);
  }
  scale = 0.25;
  half.run(1, &scale);
  for (int64_t i = 0; i < whole.gradient.count(); ++i) {
    EXPECT_EQ(half.gradient[i], 0.25f * whole.gradient[i]);
  }
}

double sum_of(const std::vector<double>& losses, double before, bool accumulate, int threads) {
  double sum = before;
  Workspace(threads).run([&](Context& context) {
    sum_losses(context, {static_cast<int64_t>(losses.size())}, {losses.data(), &sum, accumulate});
  });
  return sum;
}

// 1e16 + 1 is 1e16: only one order gives these sums.
TEST(Loss, SumGoesRowByRow) {
  EXPECT_EQ(sum_of({1, 1, 1e16, -1e16}, NAN, false, 1), 2);
  EXPECT_EQ(sum_of({1e16, 1, 1, -1e16}, NAN, false, 2), 0);
  EXPECT_EQ(sum_of({1, 1, -1e16}, 1e16, true, 2), 0);
  EXPECT_EQ(sum_of({-1e16, 1, 1}, 1e16, true, 1), 2);
  EXPECT_EQ(sum_of({}, NAN, false, 1), 0);
  EXPECT_EQ(sum_of({}, 5, true, 1), 5);
  EXPECT_TRUE(std::isnan(sum_of({1, NAN, 2}, 0, false, 1)));
}

template <class Run>
std::string error_of(const Run& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Loss, TheDoorsNameTheField) {
  Rows<float> rows(shape_of(3, 10, 12));
  const auto run = [&] { return error_of([&] { rows.run(); }); };
  EXPECT_EQ(run(), "no error");
  rows.shape.columns = 9;
  EXPECT_EQ(run(), "loss: columns: bad shape: expected >= 10, got 9");
  rows.shape.columns = 12;
  rows.shape.label_smoothing = 1;
  EXPECT_EQ(run(), "loss: label_smoothing: bad shape: expected < 1, got 1");
  rows.shape.label_smoothing = 0;
  rows.shape.z_loss = -1;
  EXPECT_EQ(run().substr(0, 23), "loss: z_loss: bad shape");
  rows.shape.z_loss = 0;
  LossForward<float, float> args;
  args.logits = rows.logits.data();
  args.logit_stride = 11;
  args.targets = rows.targets.data();
  args.row_loss = rows.losses.data();
  const auto door = [&] {
    return error_of(
        [&] { Workspace(1).run([&](Context& c) { softmax_cross_entropy(c, rows.shape, args); }); });
  };
  EXPECT_EQ(door(), "loss: logit_stride: bad shape: expected >= 12 (width), got 11");
  args.logit_stride = 12;
  EXPECT_EQ(door(), "no error");
  args.dlogits = rows.gradient.data();
  EXPECT_EQ(door(), "loss: dlogit_stride: bad shape: expected >= 12 (width), got 0");
  args.targets = nullptr;
  EXPECT_EQ(door(), "loss: targets: bad shape: expected an array, got none");
  EXPECT_EQ(error_of([&] {
              Workspace(1).run([&](Context& c) { sum_losses(c, {1}, {rows.losses.data()}); });
            }),
            "loss: sum: bad shape: expected an array, got none");
}

}  // namespace
}  // namespace adder
