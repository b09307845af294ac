#include "kernels/norm/norm.h"

#include <algorithm>

#include "measure/call_laws_test.h"
#include "measure/norm_call.h"

namespace adder {
namespace {

template <class T>
using GatedCall = measure::GatedNormCall<T>;
template <class T, class R>
using NormCall = measure::NormCall<T, R>;

/// r = residual_in + x, forward then backward from what forward kept.
measure::NormCase whole(const NormShape& shape) {
  return {.shape = shape, .b = true, .chained = true};
}
measure::GatedNormCase whole(const GatedNormShape& shape) {
  return {.shape = shape, .chained = true};
}

TEST(Norm, APlantedDefectTurnsTheComparisonRed) {
  NormCall<Bf16, float> call(whole(NormShape{.rows = 9, .width = 70}), 1);
  call.run_both(1);
  expect_defect_is_seen(call, "residual_out", 77, 1e-5 * call.residual_out[77]);
}

/// The call on one thread and on two.
template <class C>
void expect_same_bits_for_two_threads(const typename C::Given& given) {
  C one(given, 1), two(given, 1);
  one.run_both(1);
  two.run_both(2);
  expect_same_bits(one, two);
}

const NormShape kManyRows{.rows = 700, .width = 131, .kind = NormKind::layer};
const GatedNormShape kManyGatedRows{.rows = 700, .width = 132, .group = 33};

template <class T, class R>
void same_bits_for_any_thread_count() {
  measure::on_every_target([] {
    expect_same_bits_for_two_threads<NormCall<T, R>>(whole(kManyRows));
    expect_same_bits_for_two_threads<GatedCall<T>>(whole(kManyGatedRows));
  });
}

TEST(Norm, SameBitsForAnyThreadCount) {
  same_bits_for_any_thread_count<float, float>();
  same_bits_for_any_thread_count<Bf16, float>();
  same_bits_for_any_thread_count<Bf16, Bf16>();
  same_bits_for_any_thread_count<double, double>();
}

TEST(Norm, NoRowsGiveZeroParameterGradients) {
  NormCall<float, float> call(whole(NormShape{.rows = 0, .width = 21}), 1);
  GatedCall<float> gated(whole(GatedNormShape{.rows = 0, .width = 21}), 1);
  call.run_both(2);
  gated.run_both(2);
  for (const auto* sum : {&call.dw, &call.db, &gated.dw}) {
    for (const float g : sum->span()) EXPECT_EQ(g, 0);
  }
  EXPECT_TRUE(call.y.intact() && gated.out.intact());
}

TEST(Norm, RowMatesDoNotMatter) {
  NormCall<float, float> all(whole(NormShape{.rows = 50, .width = 301}), 1);
  all.run_both(1);
  for (const int64_t row : {0, 17, 49}) {
    NormCall<float, float> alone(whole(NormShape{.rows = 1, .width = 301}), 1);
    alone.x.take(all.x, row * 301);
    alone.residual_in.take(all.residual_in, row * 301);
    alone.gy.take(all.gy, row * 301);
    alone.g_later.take(all.g_later, row * 301);
    alone.run_both(1);
    EXPECT_TRUE(all.y.holds(alone.y, row * 301));
    EXPECT_TRUE(all.dr.holds(alone.dr, row * 301));
  }
}

TEST(Norm, GradientsMatchCentralDifferences) {
  for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
    for (const int64_t width : {1, 2, 7, 33}) {
      if (kind == NormKind::layer && width == 1) continue;  // xh is 0: no gradient to compare
      NormCall<double, double> call(whole(NormShape{.rows = 3, .width = width, .kind = kind}), 1);
      expect_gradients(call, call.given.describe());
    }
  }
}

TEST(GatedNorm, GradientsMatchCentralDifferences) {
  for (const bool before_gate : {false, true}) {
    for (const int64_t group : {0, 3, 12}) {
      GatedCall<double> call(
          whole(GatedNormShape{
              .rows = 4, .width = 24, .group = group, .norm_before_gate = before_gate}),
          1);
      expect_gradients(call, call.given.describe());
    }
  }
}

// A group is a row of its own: groups of n over width W are W / n times as many rows of width n.
TEST(GatedNorm, GroupsEqualSeparateRows) {
  GatedCall<float> grouped(whole(GatedNormShape{.rows = 6, .width = 60, .group = 20}), 1);
  GatedCall<float> separate(whole(GatedNormShape{.rows = 18, .width = 20}), 1);
  for (int64_t g = 0; g < 3; ++g) {
    std::copy_n(separate.w.data(), 20, grouped.w.data() + g * 20);
  }
  grouped.run_both(1);
  separate.run_both(1);
  EXPECT_TRUE(grouped.out.same_bits(separate.out));
  EXPECT_TRUE(grouped.rstd.same_bits(separate.rstd));
  EXPECT_TRUE(grouped.dy.same_bits(separate.dy));
  EXPECT_TRUE(grouped.dz.same_bits(separate.dz));
}

// Many blocks of rows, whose sums come together before they are added.
template <class T, class R>
void accumulated_gradients_are_added_once() {
  const auto run = [](auto& call) { call.run_both(2); };
  measure::on_every_target([&] {
    measure::expect_accumulated<NormCall<T, R>>(whole(kManyRows), run, "norm");
    measure::expect_accumulated<GatedCall<T>>(whole(kManyGatedRows), run, "gated_norm");
  });
}

TEST(Norm, AccumulatedGradientsAreAddedOnce) {
  accumulated_gradients_are_added_once<float, float>();
  accumulated_gradients_are_added_once<Bf16, float>();
  accumulated_gradients_are_added_once<double, double>();
}

TEST(Norm, TheDoorNamesTheField) {
  using measure::absent;
  const auto shaped = [](NormShape shape) {
    return measure::error_of(
        [&](Context& context) { norm_forward(context, shape, NormForward<float, float>{}); });
  };
  EXPECT_EQ(shaped({.rows = -1, .width = 4}), "norm: rows: bad shape: expected >= 0, got -1");
  EXPECT_EQ(shaped({.rows = 1, .width = 0}), "norm: width: bad shape: expected >= 1, got 0");
  EXPECT_EQ(shaped({.rows = 1, .width = 4, .eps = -1}).substr(0, 20), "norm: eps: bad shape");
  EXPECT_EQ(shaped({.rows = 1, .width = 4}), absent("norm: x and residual_in"));
  NormCall<float, float> call(whole(NormShape{.rows = 2, .width = 4, .kind = NormKind::layer}), 1);
  const auto without = [&](const auto& take) { return measure::error_without(call, take); };
  EXPECT_EQ(without([](auto& f, auto&) { f.x_stride = 3; }),
            "norm: x_stride: bad shape: expected >= 4 (width), got 3");
  EXPECT_EQ(without([](auto& f, auto&) { f.y = nullptr; }), absent("norm: y"));
  EXPECT_EQ(without([](auto&, auto& b) { b.r = nullptr; }), absent("norm: r"));
  EXPECT_EQ(without([](auto&, auto& b) { b.rstd = nullptr; }), absent("norm: rstd"));
  EXPECT_EQ(without([](auto&, auto& b) { b.mean = nullptr; }), absent("norm: mean"));
  EXPECT_EQ(without([](auto&, auto& b) { b.gy = nullptr; }), absent("norm: gy"));
  EXPECT_EQ(without([](auto&, auto& b) { b.dr = nullptr; }), absent("norm: dr"));
  EXPECT_EQ(without([](auto&, auto&) {}), "no error");
}

TEST(GatedNorm, TheDoorNamesTheField) {
  using measure::absent;
  EXPECT_EQ(measure::error_of([](Context& context) {
              gated_norm_forward(context, {.rows = 1, .width = 10, .group = 4},
                                 GatedNormForward<float>{});
            }),
            "gated_norm: group: bad shape: expected a divisor of width 10, got 4");
  GatedCall<float> call(whole(GatedNormShape{.rows = 2, .width = 10}), 1);
  const auto without = [&](const auto& take) { return measure::error_without(call, take); };
  EXPECT_EQ(without([](auto& f, auto&) { f.y_stride = 9; }),
            "gated_norm: y_stride: bad shape: expected >= 10 (width), got 9");
  EXPECT_EQ(without([](auto& f, auto&) { f.z = nullptr; }), absent("gated_norm: z"));
  EXPECT_EQ(without([](auto& f, auto&) { f.w = nullptr; }), absent("gated_norm: w"));
  EXPECT_EQ(without([](auto&, auto& b) { b.rstd = nullptr; }), absent("gated_norm: rstd"));
  EXPECT_EQ(without([](auto&, auto& b) { b.dz = nullptr; }), absent("gated_norm: dz"));
  EXPECT_EQ(without([](auto&, auto&) {}), "no error");
}

}  // namespace
}  // namespace adder
