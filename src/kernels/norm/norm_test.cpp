#include "kernels/norm/norm.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/simd_targets.h"
#include "core/workspace.h"
#include "measure/evaluation.h"
#include "measure/gradcheck.h"
#include "measure/variant.h"

namespace adder {
namespace {

using measure::fill_normal;
using measure::fill_uniform;
using measure::Guarded;

// r = residual_in + x, forward then backward from what forward kept.
template <class T, class R>
struct NormCall {
  using Acc = accumulate_t<T>;
  NormShape shape;
  Guarded<T> x, y, gy, dx;
  Guarded<R> residual_in, residual_out, g_later, dr;
  Guarded<Acc> w, b, dw, db, rstd, mean;

  explicit NormCall(const NormShape& given) : shape(given) {
    const int64_t count = shape.rows * shape.width;
    for (auto* array : {&x, &y, &gy, &dx}) *array = Guarded<T>(count);
    for (auto* array : {&residual_in, &residual_out, &g_later, &dr}) *array = Guarded<R>(count);
    for (auto* array : {&w, &b, &dw, &db}) *array = Guarded<Acc>(shape.width);
    for (auto* array : {&rstd, &mean}) *array = Guarded<Acc>(shape.rows);
    fill_normal(x, 1, "x");
    fill_normal(gy, 1, "gy");
    fill_normal(residual_in, 1, "residual_in");
    fill_normal(g_later, 1, "g_later");
    fill_uniform(w, 1, "w", -1.5, 1.5);
    fill_uniform(b, 1, "b", -1.0, 1.0);
  }
  NormForward<T, R> forward() {
    return {x.data(), shape.width,         residual_in.data(), w.data(),   b.data(),
            y.data(), residual_out.data(), rstd.data(),        mean.data()};
  }
  NormBackward<T, R> backward() {
    return {residual_out.data(), rstd.data(), mean.data(), w.data(),  gy.data(),
            g_later.data(),      dr.data(),   dx.data(),   dw.data(), db.data()};
  }
  void run(int threads = 1) {
    measure::run_planned(threads, [&](Context& context) {
      norm_forward(context, shape, forward());
      norm_backward(context, shape, backward());
    });
  }
};

template <class T>
struct GatedCall {
  using Acc = accumulate_t<T>;
  GatedNormShape shape;
  Guarded<T> y, z, out, gout, dy, dz;
  Guarded<Acc> w, dw, rstd;

  explicit GatedCall(const GatedNormShape& given) : shape(given) {
    const int64_t count = shape.rows * shape.width;
    for (auto* array : {&y, &z, &out, &gout, &dy, &dz}) *array = Guarded<T>(count);
    for (auto* array : {&w, &dw}) *array = Guarded<Acc>(shape.width);
    rstd = Guarded<Acc>(shape.rows * (shape.width / shape.group_width()));
    fill_normal(y, 1, "y");
    fill_normal(z, 1, "z");
    fill_normal(gout, 1, "gout");
    fill_uniform(w, 1, "w", -1.5, 1.5);
  }
  GatedNormForward<T> forward() {
    const int64_t stride = shape.width;
    return {y.data(), stride, z.data(), stride, w.data(), out.data(), stride, rstd.data()};
  }
  GatedNormBackward<T> backward() {
    const int64_t stride = shape.width;
    return {y.data(), stride,    z.data(), stride,    w.data(), rstd.data(), gout.data(),
            stride,   dy.data(), stride,   dz.data(), stride,   dw.data()};
  }
  void run(int threads = 1) {
    measure::run_planned(threads, [&](Context& context) {
      gated_norm_forward(context, shape, forward());
      gated_norm_backward(context, shape, backward());
    });
  }
};

template <class T>
bool same_bits(const Guarded<T>& a, const Guarded<T>& b) {
  return a.count() == b.count() &&
         std::memcmp(a.data(), b.data(), static_cast<size_t>(a.count()) * sizeof(T)) == 0;
}

std::span<double> span_of(Guarded<double>& array) {
  return {array.data(), static_cast<size_t>(array.count())};
}

double dot(const Guarded<double>& a, const Guarded<double>& b) {
  double sum = 0;
  for (int64_t i = 0; i < a.count(); ++i) sum += a[i] * b[i];
  return sum;
}

TEST(Norm, EveryLineMatchesTheReferenceOnEveryTarget) {
  const auto variants = measure::norm_variants(measure::Purpose::test);
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    int run = 0;
    for (const auto& variant : variants) {
      ASSERT_TRUE(variant.accepted) << variant.shape;
      const auto comparison = variant.check({.threads = 1 + run++ % 2});
      EXPECT_TRUE(comparison.passed())
          << target.name << " " << variant.line.name << " " << dtype_name(variant.line.dtype) << " "
          << direction_name(variant.direction) << " " << variant.shape << ": "
          << comparison.describe();
    }
    std::printf("%s: %d variants\n", target.name.c_str(), run);
  }
  force_simd_target(0);
}

TEST(Norm, APlantedDefectTurnsTheComparisonRed) {
  NormCall<Bf16, float> call({.rows = 9, .width = 70});
  call.run();
  const auto clean = call.residual_out;
  const auto whole = clean.converted<double>();
  measure::Comparison green;
  measure::compare_output(green, "residual_out", call.residual_out, whole, clean, whole);
  EXPECT_TRUE(green.passed()) << green.describe();
  call.residual_out[77] *= 1.00001f;
  measure::Comparison red;
  measure::compare_output(red, "residual_out", call.residual_out, whole, clean, whole);
  EXPECT_FALSE(red.passed()) << red.describe();
}

template <class T, class R>
void same_bits_for_any_thread_count() {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    NormCall<T, R> one({.rows = 700, .width = 131, .kind = NormKind::layer}), two(one.shape);
    one.run(1);
    two.run(2);
    EXPECT_TRUE(same_bits(one.y, two.y) && same_bits(one.residual_out, two.residual_out));
    EXPECT_TRUE(same_bits(one.dr, two.dr) && same_bits(one.dx, two.dx));
    EXPECT_TRUE(same_bits(one.dw, two.dw) && same_bits(one.db, two.db));
    GatedCall<T> first({.rows = 700, .width = 132, .group = 33}), second(first.shape);
    first.run(1);
    second.run(2);
    EXPECT_TRUE(same_bits(first.out, second.out) && same_bits(first.dw, second.dw));
    EXPECT_TRUE(same_bits(first.dy, second.dy) && same_bits(first.dz, second.dz));
  }
  force_simd_target(0);
}

TEST(Norm, SameBitsForAnyThreadCount) {
  same_bits_for_any_thread_count<float, float>();
  same_bits_for_any_thread_count<Bf16, float>();
  same_bits_for_any_thread_count<Bf16, Bf16>();
  same_bits_for_any_thread_count<double, double>();
}

TEST(Norm, NoRowsGiveZeroParameterGradients) {
  NormCall<float, float> call({.rows = 0, .width = 21});
  call.run(2);
  GatedCall<float> gated({.rows = 0, .width = 21});
  gated.run(2);
  for (int64_t i = 0; i < 21; ++i) {
    EXPECT_EQ(call.dw[i], 0);
    EXPECT_EQ(call.db[i], 0);
    EXPECT_EQ(gated.dw[i], 0);
  }
  EXPECT_TRUE(call.y.intact() && gated.out.intact());
}

TEST(Norm, RowMatesDoNotMatter) {
  NormCall<float, float> all({.rows = 50, .width = 301});
  all.run();
  for (const int64_t row : {0, 17, 49}) {
    NormCall<float, float> alone({.rows = 1, .width = 301});
    std::copy_n(all.x.data() + row * 301, 301, alone.x.data());
    std::copy_n(all.residual_in.data() + row * 301, 301, alone.residual_in.data());
    std::copy_n(all.gy.data() + row * 301, 301, alone.gy.data());
    std::copy_n(all.g_later.data() + row * 301, 301, alone.g_later.data());
    alone.run();
    EXPECT_EQ(std::memcmp(alone.y.data(), all.y.data() + row * 301, 301 * sizeof(float)), 0);
    EXPECT_EQ(std::memcmp(alone.dr.data(), all.dr.data() + row * 301, 301 * sizeof(float)), 0);
  }
}

TEST(Norm, GradientsMatchCentralDifferences) {
  for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
    for (const int64_t width : {1, 2, 7, 33}) {
      if (kind == NormKind::layer && width == 1) continue;  // xh is 0: no gradient to compare
      NormCall<double, double> call({.rows = 3, .width = width, .kind = kind});
      call.run();
      const auto loss = [&] {
        measure::run_planned(
            1, [&](Context& context) { norm_forward(context, call.shape, call.forward()); });
        return dot(call.y, call.gy) + dot(call.residual_out, call.g_later);
      };
      const std::vector<measure::GradInput> inputs = {
          {"x", span_of(call.x), span_of(call.dx)},
          {"residual_in", span_of(call.residual_in), span_of(call.dr)},
          {"w", span_of(call.w), span_of(call.dw)},
          {"b", span_of(call.b), span_of(call.db)}};
      const auto report = measure::check_gradients(loss, inputs);
      EXPECT_TRUE(report.passed())
          << call.shape.describe() << ": " << report.worst << " " << report.worst_at;
    }
  }
}

TEST(GatedNorm, GradientsMatchCentralDifferences) {
  for (const bool before_gate : {false, true}) {
    for (const int64_t group : {0, 3, 12}) {
      GatedCall<double> call(
          {.rows = 4, .width = 24, .group = group, .norm_before_gate = before_gate});
      call.run();
      const auto loss = [&] {
        measure::run_planned(
            1, [&](Context& context) { gated_norm_forward(context, call.shape, call.forward()); });
        return dot(call.out, call.gout);
      };
      const std::vector<measure::GradInput> inputs = {{"y", span_of(call.y), span_of(call.dy)},
                                                      {"z", span_of(call.z), span_of(call.dz)},
                                                      {"w", span_of(call.w), span_of(call.dw)}};
      const auto report = measure::check_gradients(loss, inputs);
      EXPECT_TRUE(report.passed())
          << call.shape.describe() << ": " << report.worst << " " << report.worst_at;
    }
  }
}

// A group is a row of its own: groups of n over width W are W / n times as many rows of width n.
TEST(GatedNorm, GroupsEqualSeparateRows) {
  GatedCall<float> grouped({.rows = 6, .width = 60, .group = 20});
  GatedCall<float> separate({.rows = 18, .width = 20});
  for (int64_t g = 0; g < 3; ++g) {
    std::copy_n(separate.w.data(), 20, grouped.w.data() + g * 20);
  }
  grouped.run();
  separate.run();
  EXPECT_TRUE(same_bits(grouped.out, separate.out));
  EXPECT_TRUE(same_bits(grouped.rstd, separate.rstd));
  EXPECT_TRUE(same_bits(grouped.dy, separate.dy));
  EXPECT_TRUE(same_bits(grouped.dz, separate.dz));
}

template <class Acc>
void expect_added(const Guarded<Acc>& got, const Guarded<Acc>& before,
                  const Guarded<Acc>& written) {
  for (int64_t i = 0; i < got.count(); ++i) ASSERT_EQ(got[i], before[i] + written[i]) << i;
}

template <class T, class R>
void accumulated_gradients_are_added_once() {
  for (const auto& target : simd_targets()) {
    SCOPED_TRACE(target.name);
    force_simd_target(target.bits);
    // Many blocks of rows, whose sums come together before they are added.
    NormCall<T, R> written({.rows = 700, .width = 131, .kind = NormKind::layer});
    written.run(2);
    NormCall<T, R> added = written;
    fill_normal(added.dw, 2, "dw");
    fill_normal(added.db, 2, "db");
    const auto dw = added.dw, db = added.db;
    GatedCall<T> gated({.rows = 700, .width = 132, .group = 33});
    gated.run(2);
    GatedCall<T> gated_added = gated;
    fill_normal(gated_added.dw, 2, "dw");
    const auto gated_dw = gated_added.dw;
    measure::run_planned(2, [&](Context& context) {
      auto args = added.backward();
      args.accumulate = true;
      norm_backward(context, added.shape, args);
      auto gated_args = gated_added.backward();
      gated_args.accumulate = true;
      gated_norm_backward(context, gated.shape, gated_args);
    });
    expect_added(added.dw, dw, written.dw);
    expect_added(added.db, db, written.db);
    expect_added(gated_added.dw, gated_dw, gated.dw);
    EXPECT_TRUE(same_bits(added.dr, written.dr) && same_bits(gated_added.dy, gated.dy));
  }
  force_simd_target(0);
}

TEST(Norm, AccumulatedGradientsAreAddedOnce) {
  accumulated_gradients_are_added_once<float, float>();
  accumulated_gradients_are_added_once<Bf16, float>();
  accumulated_gradients_are_added_once<double, double>();
}

template <class Run>
std::string error_of(const Run& run) {
  try {
    Workspace(1).run(run);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string absent(const std::string& field) {
  return field + ": bad shape: expected an array, got none";
}

TEST(Norm, TheDoorNamesTheField) {
  const auto shaped = [](NormShape shape) {
    return error_of(
        [&](Context& context) { norm_forward(context, shape, NormForward<float, float>{}); });
  };
  EXPECT_EQ(shaped({.rows = -1, .width = 4}), "norm: rows: bad shape: expected >= 0, got -1");
  EXPECT_EQ(shaped({.rows = 1, .width = 0}), "norm: width: bad shape: expected >= 1, got 0");
  EXPECT_EQ(shaped({.rows = 1, .width = 4, .eps = -1}).substr(0, 20), "norm: eps: bad shape");
  EXPECT_EQ(shaped({.rows = 1, .width = 4}), absent("norm: x and residual_in"));
  NormCall<float, float> call({.rows = 2, .width = 4, .kind = NormKind::layer});
  const auto without = [&](const auto& take) {
    return error_of([&](Context& context) {
      auto forward = call.forward();
      auto backward = call.backward();
      take(forward, backward);
      norm_forward(context, call.shape, forward);
      norm_backward(context, call.shape, backward);
    });
  };
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
  EXPECT_EQ(error_of([](Context& context) {
              gated_norm_forward(context, {.rows = 1, .width = 10, .group = 4},
                                 GatedNormForward<float>{});
            }),
            "gated_norm: group: bad shape: expected a divisor of width 10, got 4");
  GatedCall<float> call({.rows = 2, .width = 10});
  const auto without = [&](const auto& take) {
    return error_of([&](Context& context) {
      auto forward = call.forward();
      auto backward = call.backward();
      take(forward, backward);
      gated_norm_forward(context, call.shape, forward);
      gated_norm_backward(context, call.shape, backward);
    });
  };
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
