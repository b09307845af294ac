#include "kernels/loss/loss.h"

#include <cmath>
#include <limits>

#include "measure/call_laws_test.h"
#include "measure/loss_call.h"

namespace adder {
namespace {

using measure::LossCall;
using measure::Side;

LossShape shape_of(int64_t rows, int64_t vocab, int64_t columns) {
  return {.rows = rows, .vocab = vocab, .columns = columns};
}

/// Dense, with a target in every row.
template <class L, class D = L>
LossCall<L, D> rows_of(const LossShape& shape) {
  LossCall<L, D> call({.shape = shape, .scale = 1.5}, 3);
  for (int64_t r = 0; r < shape.rows; ++r) {
    call.targets[r] = static_cast<int32_t>((r * 7 + 1) % shape.vocab);
  }
  call.gradient_scale[0] = 1;
  return call;
}

void run(measure::Call& call, int threads = 1) {
  Workspace workspace(threads);
  call.run(workspace, {Direction::forward}, {});
}

double total(LossCall<double, double>& rows) {
  run(rows);
  double sum = 0;
  for (const double loss : rows.row_loss.span()) sum += loss;
  return sum;
}

TEST(Loss, GradientEqualsCentralDifferences) {
  LossShape shape = shape_of(3, 19, 21);
  shape.label_smoothing = 0.1;
  shape.z_loss = 0.01;
  measure::on_every_target([&] {
    auto rows = rows_of<double>(shape);
    rows.targets[1] = kIgnoreIndex;
    run(rows);
    const auto gradient = rows.dlogits;
    const measure::GradInput logits{"logits", rows.logits.span(), gradient.span()};
    const auto report = measure::check_gradients([&] { return total(rows); }, {&logits, 1});
    EXPECT_TRUE(report.passed()) << report.worst << " " << report.worst_at;
  });
}

TEST(Loss, SameBitsForAnyThreadCountAndRowsDoNotMeet) {
  auto one = rows_of<float>(shape_of(97, 501, 512)), two = one;
  run(one, 1);
  run(two, 2);
  expect_same_bits(one, two);
  auto row = rows_of<float>(shape_of(1, 501, 512));
  run(row);
  EXPECT_TRUE(one.row_loss.holds(row.row_loss, 0));
  EXPECT_TRUE(one.dlogits.holds(row.dlogits, 0));
}

TEST(Loss, IgnoredRowsAndPaddedColumnsGiveZero) {
  auto rows = rows_of<float>(shape_of(4, 30, 32));
  rows.targets[2] = kIgnoreIndex;
  rows.logits[31] = std::numeric_limits<float>::quiet_NaN();  // padded: never read
  run(rows);
  EXPECT_EQ(rows.row_loss[2], 0);
  for (int64_t c = 0; c < 32; ++c) EXPECT_EQ(rows.dlogits[2 * 32 + c], 0);
  EXPECT_EQ(rows.dlogits[30], 0);
  EXPECT_EQ(rows.dlogits[31], 0);
  EXPECT_TRUE(std::isfinite(rows.row_loss[0]));
  double sum = 0;
  for (int64_t c = 0; c < 30; ++c) sum += rows.dlogits[c];
  EXPECT_NEAR(sum, 0, 1e-6);
}

TEST(Loss, MinusInfinityMeansProbabilityZero) {
  auto rows = rows_of<float>(shape_of(1, 20, 20));
  for (int64_t c = 2; c < 20; ++c) rows.logits[c] = -std::numeric_limits<float>::infinity();
  rows.logits[0] = 1;
  rows.logits[1] = 1;
  rows.targets[0] = 1;
  run(rows);
  EXPECT_NEAR(rows.row_loss[0], std::log(2.0), 1e-7);
  EXPECT_FLOAT_EQ(rows.dlogits[0], 0.5f);
  EXPECT_FLOAT_EQ(rows.dlogits[1], -0.5f);
  for (int64_t c = 2; c < 20; ++c) EXPECT_EQ(rows.dlogits[c], 0);
}

TEST(Loss, NanIsNotHidden) {
  auto rows = rows_of<float>(shape_of(1, 40, 40));
  rows.logits[33] = std::numeric_limits<float>::quiet_NaN();
  run(rows);
  EXPECT_TRUE(std::isnan(rows.row_loss[0]));
  EXPECT_TRUE(std::isnan(rows.dlogits[0]));
}

TEST(Loss, AddingAConstantChangesNothing) {
  auto rows = rows_of<double>(shape_of(5, 33, 33)), shifted = rows;
  for (double& logit : shifted.logits.span()) logit += 700;
  run(rows);
  run(shifted);
  for (int64_t i = 0; i < rows.dlogits.count(); ++i) {
    EXPECT_NEAR(rows.dlogits[i], shifted.dlogits[i], 1e-12);
  }
}

TEST(Loss, APlantedDefectTurnsTheComparisonRed) {
  auto rows = rows_of<float>(shape_of(4, 64, 64));
  run(rows);
  expect_defect_is_seen(rows, "dlogits", 65, 1e-3 * rows.dlogits[65]);
}

// The gradient in bf16 is the one in f32, converted.
TEST(Loss, NarrowGradientIsTheWideOneRoundedOnce) {
  LossShape shape = shape_of(13, 211, 224);
  shape.label_smoothing = 0.1;
  shape.z_loss = 1e-3;
  measure::on_every_target([&] {
    auto wide = rows_of<float>(shape);
    auto narrow = rows_of<float, Bf16>(shape);
    wide.targets[3] = narrow.targets[3] = kIgnoreIndex;
    wide.logits[5 * 224 + 9] = narrow.logits[5 * 224 + 9] = std::nanf("");
    wide.gradient_scale[0] = narrow.gradient_scale[0] = 1.0 / 7;
    run(wide, 2);
    run(narrow, 2);
    for (int64_t r = 0; r < shape.rows; ++r) {
      if (r == 5) continue;
      EXPECT_EQ(wide.row_loss[r], narrow.row_loss[r]) << r;
    }
    for (int64_t i = 0; i < wide.dlogits.count(); ++i) {
      const float value = wide.dlogits[i];
      const uint16_t expected = std::isnan(value) ? uint16_t{0x7FC0} : bf16_bits_from_float(value);
      ASSERT_EQ(narrow.dlogits[i].bits, expected) << i;
    }
    EXPECT_TRUE(std::isnan(static_cast<float>(narrow.dlogits[5 * 224])));
  });
}

// A half and a quarter of a gradient are exact.
TEST(Loss, GradientScaleIsReadFromMemory) {
  auto whole = rows_of<float>(shape_of(4, 64, 64)), part = whole;
  run(whole);
  for (const float scale : {0.5f, 0.25f}) {
    part.gradient_scale[0] = scale;
    run(part);
    for (int64_t i = 0; i < whole.dlogits.count(); ++i) {
      EXPECT_EQ(part.dlogits[i], scale * whole.dlogits[i]);
    }
  }
}

double sum_of(const std::vector<double>& losses, double before, bool accumulate, int threads) {
  const auto count = static_cast<int64_t>(losses.size());
  auto rows =
      measure::filled<double>(count, [&](int64_t i) { return losses[static_cast<size_t>(i)]; });
  auto sum = measure::filled<double>(1, [&](int64_t) { return before; });
  measure::run_on_device(
      threads,
      [&](Context& context) {
        sum_losses(context, {count}, {rows.at(Side::device), sum.at(Side::device), accumulate});
      },
      rows, sum);
  return sum[0];
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

TEST(Loss, TheDoorsNameTheField) {
  auto rows = rows_of<float>(shape_of(3, 10, 12));
  rows.upload(Workspace(1).context());
  LossShape shape = rows.given.shape;
  auto args = rows.forward(Side::device);
  const auto door = [&] {
    return measure::error_of([&](Context& c) { softmax_cross_entropy(c, shape, args); });
  };
  EXPECT_EQ(door(), "no error");
  shape.columns = 9;
  EXPECT_EQ(door(), "loss: columns: bad shape: expected >= 10, got 9");
  shape.columns = 12;
  shape.label_smoothing = 1;
  EXPECT_EQ(door(), "loss: label_smoothing: bad shape: expected < 1, got 1");
  shape.label_smoothing = 0;
  shape.z_loss = -1;
  EXPECT_EQ(door().substr(0, 23), "loss: z_loss: bad shape");
  shape.z_loss = 0;
  args.logit_stride = 11;
  EXPECT_EQ(door(), "loss: logit_stride: bad shape: expected >= 12 (width), got 11");
  args.logit_stride = 12;
  args.dlogit_stride = 0;
  EXPECT_EQ(door(), "loss: dlogit_stride: bad shape: expected >= 12 (width), got 0");
  args.dlogits = nullptr;
  EXPECT_EQ(door(), "no error");
  args.targets = nullptr;
  EXPECT_EQ(door(), measure::absent("loss: targets"));
  EXPECT_EQ(
      measure::error_of([&](Context& c) { sum_losses(c, {1}, {rows.row_loss.at(Side::device)}); }),
      measure::absent("loss: sum"));
}

}  // namespace
}  // namespace adder
