#include "kernels/conv1d/conv1d.h"

#include <cmath>

#include "measure/call_laws_test.h"
#include "measure/conv1d_call.h"

namespace adder {
namespace {

using measure::Conv1dCall;
using measure::Conv1dCase;

/// With every option, dense.
template <class T>
Conv1dCall<T> dense(const Conv1dShape& shape, std::vector<int32_t> cu = {}) {
  return {Conv1dCase::dense(shape, std::move(cu)), 1};
}

TEST(Conv1d, APlantedDefectTurnsTheComparisonRed) {
  auto call = dense<float>({.batch = 1, .len = 70, .channels = 20});
  call.run_both(1);
  expect_defect_is_seen(call, "y", 777, 1e-4);
}

// x e^x stays a normal number a little beyond the point where e^x is none (x < -87.3).
TEST(Conv1d, SiluKeepsItsTail) {
  auto call = dense<float>({.batch = 1, .len = 300, .channels = 1, .width = 1});
  call.w[0] = 1;
  call.bias[0] = 0;
  for (int64_t t = 0; t < 300; ++t) call.x[t] = -80.0f - 0.1f * static_cast<float>(t);
  call.run_both(1);
  for (int64_t t = 0; t < 300; ++t) {
    const double x = call.x[t];
    const double expected = x / (1 + std::exp(-x));
    EXPECT_NEAR(call.y[t], expected, 0x1p-126 + 8 * 0x1p-24 * (1 - x) * std::abs(expected)) << x;
  }
}

template <class T>
void same_bits_for_any_thread_count_and_line() {
  measure::on_every_target([] {
    const Conv1dShape shape{.batch = 3, .len = 301, .channels = 300};
    auto one = dense<T>(shape), two = dense<T>(shape), direct = dense<T>(shape);
    one.run_both(1);
    two.run_both(2);
    direct.run_both(2, {.name = "direct"});
    expect_same_bits(one, two);
    expect_same_bits(one, direct);
  });
}

TEST(Conv1d, SameBitsForAnyThreadCountAndLine) {
  same_bits_for_any_thread_count_and_line<float>();
  same_bits_for_any_thread_count_and_line<Bf16>();
  same_bits_for_any_thread_count_and_line<double>();
}

template <class T>
void forward_equals_steps(int64_t width) {
  measure::expect_forward_equals_steps<Conv1dCall<T>>(
      Conv1dCase::dense({.batch = 2, .len = 140, .channels = 37, .width = width}), {},
      [](Context& context, const Conv1dShape& shape, const Conv1dForward<T>& args) {
        conv1d_forward(context, shape, args);
      },
      0);
}

TEST(Conv1d, ForwardEqualsALoopOfStepsBitForBit) {
  for (const int64_t width : {1, 2, 3, 4, 5, 9, 20}) {
    forward_equals_steps<float>(width);
    forward_equals_steps<Bf16>(width);
  }
}

TEST(Conv1d, PrefixPlusSuffixIsTheWhole) {
  for (const int64_t cut : {0, 1, 2, 3, 128, 149, 150}) {
    measure::expect_prefix_and_suffix<Conv1dCall<double>>(
        Conv1dCase::dense({.batch = 1, .len = 150, .channels = 19}), cut, {},
        {.output = 0, .gradient = 1e-14, .sum = 1e-14});
  }
}

TEST(Conv1d, PackedEqualsSeparateAndBatchMatesDoNotMatter) {
  measure::expect_packed_equals_separate<Conv1dCall<float>>(
      Conv1dCase::dense({.len = 331, .channels = 21, .sequences = 8},
                        {0, 0, 1, 3, 67, 68, 200, 331, 331}),
      1, {}, {});
  measure::expect_batch_mates_do_not_matter<Conv1dCall<float>>(
      Conv1dCase::dense({.batch = 3, .len = 67, .channels = 21}), {});
}

TEST(Conv1d, GradientsMatchCentralDifferences) {
  std::vector<Conv1dCase> cases = {
      Conv1dCase::dense({.len = 140, .channels = 3, .sequences = 6}, {0, 1, 3, 3, 8, 131, 140})};
  for (const int64_t width : {1, 2, 4, 6}) {
    for (const bool silu : {true, false}) {
      cases.push_back(
          Conv1dCase::dense({.batch = 2, .len = 9, .channels = 5, .width = width, .silu = silu}));
      cases.push_back(
          Conv1dCase::dense({.batch = 1, .len = 2, .channels = 3, .width = width, .silu = silu}));
    }
  }
  for (const Conv1dCase& given : cases) {
    Conv1dCall<double> call(given, 1);
    expect_gradients(call, given.describe());
  }
}

// Views with a channel stride run on the line that takes them, and on no other by name.
TEST(Conv1d, ChannelStridesChooseTheDirectLine) {
  const Conv1dShape shape{.len = 40, .channels = 9};
  auto plain = dense<float>(shape);
  plain.run_both(1);
  Conv1dCase given = Conv1dCase::dense(shape);
  given.channel_stride = 2;
  Conv1dCall<float> strided(given, 1);
  strided.s0 = plain.s0;
  for (int64_t i = 0; i < plain.x.count(); ++i) strided.x[2 * i] = plain.x[i];
  strided.run_both(1);
  for (int64_t i = 0; i < plain.y.count(); ++i) ASSERT_EQ(strided.y[2 * i], plain.y[i]) << i;
  EXPECT_THROW(strided.run_both(1, {.name = "tiled"}), NoLine);
}

template <class T>
void accumulated_gradients_are_added_once() {
  // Several time tiles, whose sums come together before they are added.
  measure::on_every_target([] {
    measure::expect_accumulated<Conv1dCall<T>>(
        Conv1dCase::dense({.batch = 2, .len = 301, .channels = 37, .width = 5}),
        [](auto& call) { call.run_both(2); }, "conv1d");
  });
}

TEST(Conv1d, AccumulatedGradientsAreAddedOnce) {
  accumulated_gradients_are_added_once<float>();
  accumulated_gradients_are_added_once<Bf16>();
  accumulated_gradients_are_added_once<double>();
}

TEST(Conv1d, TheDoorNamesTheField) {
  const auto shaped = [](const Conv1dShape& shape) {
    return measure::error_of(
        [&](Context& context) { conv1d_forward(context, shape, Conv1dForward<float>{}); });
  };
  EXPECT_EQ(shaped({.len = -1, .channels = 4}), "conv1d: len: bad shape: expected >= 0, got -1");
  EXPECT_EQ(shaped({.len = 1, .channels = 0}), "conv1d: channels: bad shape: expected >= 1, got 0");
  EXPECT_EQ(shaped({.len = 1, .channels = 4, .width = 0}),
            "conv1d: width: bad shape: expected >= 1, got 0");
  EXPECT_EQ(shaped({.batch = 2, .len = 1, .channels = 4, .sequences = 1}),
            "conv1d: batch: bad shape: expected 1 (packed), got 2");
  EXPECT_EQ(shaped({.len = 3, .channels = 4, .sequences = 2}),
            "conv1d: cu_seqlens: bad shape: expected an array, got none");
}

TEST(Conv1d, TheDoorAsksForEveryArrayThatIsNeeded) {
  auto call = dense<float>({.len = 3, .channels = 4});
  const auto without = [&](const auto& take) { return measure::error_without(call, take); };
  using measure::absent;
  EXPECT_EQ(without([](auto& f, auto&) { f.in.x = {}; }), absent("conv1d: x"));
  EXPECT_EQ(without([](auto& f, auto&) { f.in.w = nullptr; }), absent("conv1d: w"));
  EXPECT_EQ(without([](auto& f, auto&) { f.y = {}; }), absent("conv1d: y"));
  EXPECT_EQ(without([](auto&, auto& b) { b.gy = {}; }), absent("conv1d: gy"));
  EXPECT_EQ(without([](auto&, auto& b) { b.dx = {}; }), absent("conv1d: dx"));
  EXPECT_EQ(without([](auto&, auto&) {}), "no error");
}

}  // namespace
}  // namespace adder
