#include "kernels/conv1d/conv1d.h"

#include <gtest/gtest.h>

#include <algorithm>
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

// One call with every option, dense.
template <class T>
struct Call {
  using Acc = accumulate_t<T>;
  Conv1dShape shape;
  Guarded<T> x, gy, y, dx, s0, sT, gsT, ds0;
  Guarded<Acc> w, bias, dw, dbias;
  std::vector<int32_t> cu;

  explicit Call(const Conv1dShape& given, std::vector<int32_t> boundaries = {}, uint64_t seed = 1)
      : shape(given), cu(std::move(boundaries)) {
    const int64_t tokens = shape.batch * shape.len * shape.channels;
    const int64_t states = shape.state_rows() * (shape.width - 1) * shape.channels;
    for (auto* array : {&x, &gy, &y, &dx}) *array = Guarded<T>(tokens);
    for (auto* array : {&s0, &sT, &gsT, &ds0}) *array = Guarded<T>(states);
    for (auto* array : {&w, &dw}) *array = Guarded<Acc>(shape.channels * shape.width);
    for (auto* array : {&bias, &dbias}) *array = Guarded<Acc>(shape.channels);
    fill_normal(x, seed, "x");
    fill_normal(gy, seed, "gy");
    fill_normal(s0, seed, "s0");
    fill_normal(gsT, seed, "gsT");
    fill_uniform(w, seed, "w", -0.7, 0.7);
    fill_uniform(bias, seed, "bias", -0.5, 0.5);
  }
  Conv1dForward<T> forward() {
    Conv1dForward<T> args;
    args.in = {dense_view<const T>(x.data(), shape.len, shape.channels), w.data(), bias.data(),
               s0.data(), cu.empty() ? nullptr : cu.data()};
    args.y = dense_view(y.data(), shape.len, shape.channels);
    args.sT = sT.data();
    return args;
  }
  Conv1dBackward<T> backward() {
    Conv1dBackward<T> args;
    args.in = forward().in;
    args.gy = dense_view<const T>(gy.data(), shape.len, shape.channels);
    args.gsT = gsT.data();
    args.dx = dense_view(dx.data(), shape.len, shape.channels);
    args.dw = dw.data();
    args.dbias = dbias.data();
    args.ds0 = ds0.data();
    return args;
  }
  void run(int threads = 1, const Choice& choice = {}) {
    measure::run_planned(threads, [&](Context& context) {
      conv1d_forward(context, shape, forward(), choice);
      conv1d_backward(context, shape, backward(), choice);
    });
  }
};

template <class T>
bool same_bits(const Guarded<T>& a, const Guarded<T>& b) {
  return a.count() == b.count() &&
         std::memcmp(a.data(), b.data(), static_cast<size_t>(a.count()) * sizeof(T)) == 0;
}

template <class T>
void expect_same_bits(const Call<T>& a, const Call<T>& b) {
  EXPECT_TRUE(same_bits(a.y, b.y));
  EXPECT_TRUE(same_bits(a.sT, b.sT));
  EXPECT_TRUE(same_bits(a.dx, b.dx));
  EXPECT_TRUE(same_bits(a.dw, b.dw));
  EXPECT_TRUE(same_bits(a.dbias, b.dbias));
  EXPECT_TRUE(same_bits(a.ds0, b.ds0));
}

TEST(Conv1d, EveryLineMatchesTheReferenceOnEveryTarget) {
  const auto variants = measure::conv1d_variants(measure::Purpose::test);
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
    std::printf("%s: %d variants, %d not accepted by their line\n", target.name.c_str(), run,
                skipped);
  }
  force_simd_target(0);
}

TEST(Conv1d, APlantedDefectTurnsTheComparisonRed) {
  Call<float> call({.batch = 1, .len = 70, .channels = 20});
  call.run();
  const auto whole = call.y.converted<double>();
  measure::Comparison clean;
  measure::compare_output(clean, "y", call.y, whole, call.y, whole);
  EXPECT_TRUE(clean.passed()) << clean.describe();
  call.y[777] += 1e-4f;
  measure::Comparison red;
  measure::compare_output(red, "y", call.y, whole, whole.converted<float>(), whole);
  EXPECT_FALSE(red.passed()) << red.describe();
}

// x e^x stays a normal number a little beyond the point where e^x is none (x < -87.3).
TEST(Conv1d, SiluKeepsItsTail) {
  Call<float> call({.batch = 1, .len = 300, .channels = 1, .width = 1});
  call.w[0] = 1;
  call.bias[0] = 0;
  for (int64_t t = 0; t < 300; ++t) call.x[t] = -80.0f - 0.1f * static_cast<float>(t);
  call.run();
  for (int64_t t = 0; t < 300; ++t) {
    const double x = call.x[t];
    const double expected = x / (1 + std::exp(-x));
    EXPECT_NEAR(call.y[t], expected, 0x1p-126 + 8 * 0x1p-24 * (1 - x) * std::abs(expected)) << x;
  }
}

template <class T>
void same_bits_for_any_thread_count_and_line() {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    const Conv1dShape shape{.batch = 3, .len = 301, .channels = 300};
    Call<T> one(shape), two(shape), direct(shape);
    one.run(1);
    two.run(2);
    direct.run(2, {.name = "direct"});
    expect_same_bits(one, two);
    expect_same_bits(one, direct);
  }
  force_simd_target(0);
}

TEST(Conv1d, SameBitsForAnyThreadCountAndLine) {
  same_bits_for_any_thread_count_and_line<float>();
  same_bits_for_any_thread_count_and_line<Bf16>();
  same_bits_for_any_thread_count_and_line<double>();
}

template <class T>
void forward_equals_steps(int64_t width) {
  const int64_t len = 140, channels = 37;
  Call<T> whole({.batch = 2, .len = len, .channels = channels, .width = width});
  whole.run();
  Call<T> step(whole.shape);
  measure::run_planned(1, [&](Context& context) {
    auto args = step.forward();
    step.sT = step.s0;
    args.in.s0 = args.sT = step.sT.data();
    Conv1dShape shape = step.shape;
    shape.len = 1;
    for (int64_t t = 0; t < len; ++t) {
      args.in.x.data = step.x.data() + t * channels;
      args.y.data = step.y.data() + t * channels;
      conv1d_forward(context, shape, args);
    }
  });
  EXPECT_TRUE(same_bits(whole.y, step.y)) << "width " << width;
  EXPECT_TRUE(same_bits(whole.sT, step.sT)) << "width " << width;
}

TEST(Conv1d, ForwardEqualsALoopOfStepsBitForBit) {
  for (const int64_t width : {1, 2, 3, 4, 5, 9, 20}) {
    forward_equals_steps<float>(width);
    forward_equals_steps<Bf16>(width);
  }
}

// Prefix and suffix with the carried state and its gradient give the whole.
TEST(Conv1d, PrefixPlusSuffixIsTheWhole) {
  const int64_t channels = 19;
  for (const int64_t cut : {0, 1, 2, 3, 128, 149, 150}) {
    Call<double> whole({.batch = 1, .len = 150, .channels = channels});
    whole.run();
    Call<double> head({.batch = 1, .len = cut, .channels = channels});
    Call<double> tail({.batch = 1, .len = 150 - cut, .channels = channels});
    const auto copy = [&](const Guarded<double>& from, int64_t first, Guarded<double>& to) {
      std::copy_n(from.data() + first, to.count(), to.data());
    };
    for (auto* part : {&head, &tail}) {
      const int64_t first = part == &head ? 0 : cut * channels;
      copy(whole.x, first, part->x);
      copy(whole.gy, first, part->gy);
    }
    measure::run_planned(1, [&](Context& context) {
      conv1d_forward(context, head.shape, head.forward());
      tail.s0 = head.sT;
      conv1d_forward(context, tail.shape, tail.forward());
      tail.gsT = whole.gsT;
      conv1d_backward(context, tail.shape, tail.backward());
      head.gsT = tail.ds0;
      conv1d_backward(context, head.shape, head.backward());
    });
    EXPECT_TRUE(same_bits(tail.sT, whole.sT)) << cut;
    for (int64_t i = 0; i < whole.y.count(); ++i) {
      const bool first = i < cut * channels;
      const int64_t at = first ? i : i - cut * channels;
      EXPECT_EQ(first ? head.y[at] : tail.y[at], whole.y[i]) << cut << " " << i;
      EXPECT_NEAR(first ? head.dx[at] : tail.dx[at], whole.dx[i], 1e-13) << cut << " " << i;
    }
    for (int64_t i = 0; i < whole.ds0.count(); ++i) {
      EXPECT_NEAR(head.ds0[i], whole.ds0[i], 1e-13) << cut;
    }
    for (int64_t i = 0; i < whole.dw.count(); ++i) {
      EXPECT_NEAR(head.dw[i] + tail.dw[i], whole.dw[i], 1e-12) << cut;
    }
  }
}

TEST(Conv1d, PackedEqualsSeparateAndBatchMatesDoNotMatter) {
  const int64_t channels = 21;
  const std::vector<int32_t> cu = {0, 0, 1, 3, 67, 68, 200, 331, 331};
  Call<float> packed({.len = 331, .channels = channels, .sequences = 8}, cu);
  packed.run();
  for (size_t q = 0; q + 1 < cu.size(); ++q) {
    Call<float> alone({.len = cu[q + 1] - cu[q], .channels = channels});
    const int64_t first = cu[q] * channels;
    const int64_t state = static_cast<int64_t>(q) * 3 * channels;
    std::copy_n(packed.x.data() + first, alone.x.count(), alone.x.data());
    std::copy_n(packed.gy.data() + first, alone.gy.count(), alone.gy.data());
    std::copy_n(packed.s0.data() + state, alone.s0.count(), alone.s0.data());
    std::copy_n(packed.gsT.data() + state, alone.gsT.count(), alone.gsT.data());
    alone.run();
    const auto bytes = static_cast<size_t>(alone.y.count()) * sizeof(float);
    const auto state_bytes = static_cast<size_t>(alone.sT.count()) * sizeof(float);
    EXPECT_EQ(std::memcmp(packed.y.data() + first, alone.y.data(), bytes), 0) << q;
    EXPECT_EQ(std::memcmp(packed.dx.data() + first, alone.dx.data(), bytes), 0) << q;
    EXPECT_EQ(std::memcmp(packed.sT.data() + state, alone.sT.data(), state_bytes), 0) << q;
    EXPECT_EQ(std::memcmp(packed.ds0.data() + state, alone.ds0.data(), state_bytes), 0) << q;
  }
}

double loss_of(Call<double>& call) {
  measure::run_planned(
      1, [&](Context& context) { conv1d_forward(context, call.shape, call.forward()); });
  double loss = 0;
  for (int64_t i = 0; i < call.y.count(); ++i) loss += call.y[i] * call.gy[i];
  for (int64_t i = 0; i < call.sT.count(); ++i) loss += call.sT[i] * call.gsT[i];
  return loss;
}

TEST(Conv1d, GradientsMatchCentralDifferences) {
  std::vector<Call<double>> calls;
  for (const int64_t width : {1, 2, 4, 6}) {
    for (const bool silu : {true, false}) {
      calls.emplace_back(
          Conv1dShape{.batch = 2, .len = 9, .channels = 5, .width = width, .silu = silu});
      calls.emplace_back(
          Conv1dShape{.batch = 1, .len = 2, .channels = 3, .width = width, .silu = silu});
    }
  }
  calls.emplace_back(Conv1dShape{.len = 140, .channels = 3, .sequences = 6},
                     std::vector<int32_t>{0, 1, 3, 3, 8, 131, 140});
  const auto span = [](Guarded<double>& array) {
    return std::span<double>(array.data(), static_cast<size_t>(array.count()));
  };
  for (auto& call : calls) {
    call.run();
    std::vector<measure::GradInput> inputs = {{"x", span(call.x), span(call.dx)},
                                              {"w", span(call.w), span(call.dw)},
                                              {"bias", span(call.bias), span(call.dbias)}};
    if (call.s0.count() > 0) inputs.push_back({"s0", span(call.s0), span(call.ds0)});
    const auto report = measure::check_gradients([&] { return loss_of(call); }, inputs);
    EXPECT_TRUE(report.passed()) << call.shape.describe() << ": " << report.worst << " "
                                 << report.worst_at;
  }
}

// Views with a channel stride run on the line that takes them, and on no other by name.
TEST(Conv1d, ChannelStridesChooseTheDirectLine) {
  Call<float> dense({.len = 40, .channels = 9}), strided(dense.shape);
  dense.run();
  Guarded<float> wide(40 * 9 * 2), out(wide.count());
  for (int64_t i = 0; i < strided.x.count(); ++i) wide[2 * i] = strided.x[i];
  auto args = strided.forward();
  args.in.x = {wide.data(), 0, 18, 2};
  args.y = {out.data(), 0, 18, 2};
  measure::run_planned(1, [&](Context& context) { conv1d_forward(context, dense.shape, args); });
  for (int64_t i = 0; i < dense.y.count(); ++i) ASSERT_EQ(out[2 * i], dense.y[i]) << i;
  EXPECT_THROW(Workspace(1).run([&](Context& context) {
    conv1d_forward(context, dense.shape, args, {.name = "tiled"});
  }),
               Error);
}

template <class T>
void accumulated_gradients_are_added_once() {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    // Several time tiles, whose sums come together before they are added.
    Call<T> written({.batch = 2, .len = 301, .channels = 37, .width = 5}), added(written.shape);
    written.run(2);
    fill_normal(added.dw, 2, "dw");
    fill_normal(added.dbias, 2, "dbias");
    const auto dw = added.dw, dbias = added.dbias;
    measure::run_planned(2, [&](Context& context) {
      auto args = added.backward();
      args.accumulate = true;
      conv1d_backward(context, added.shape, args);
    });
    for (int64_t i = 0; i < dw.count(); ++i) {
      ASSERT_EQ(added.dw[i], dw[i] + written.dw[i]) << target.name << " " << i;
    }
    for (int64_t i = 0; i < dbias.count(); ++i) {
      ASSERT_EQ(added.dbias[i], dbias[i] + written.dbias[i]) << target.name << " " << i;
    }
    EXPECT_TRUE(same_bits(added.dx, written.dx) && same_bits(added.ds0, written.ds0));
  }
  force_simd_target(0);
}

TEST(Conv1d, AccumulatedGradientsAreAddedOnce) {
  accumulated_gradients_are_added_once<float>();
  accumulated_gradients_are_added_once<Bf16>();
  accumulated_gradients_are_added_once<double>();
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

TEST(Conv1d, TheDoorNamesTheField) {
  const auto shaped = [](const Conv1dShape& shape) {
    return error_of(
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
  Call<float> call({.len = 3, .channels = 4});
  const auto without = [&](const auto& take) {
    return error_of([&](Context& context) {
      auto forward = call.forward();
      auto backward = call.backward();
      take(forward, backward);
      conv1d_forward(context, call.shape, forward);
      conv1d_backward(context, call.shape, backward);
    });
  };
  const auto none = [](const std::string& field) {
    return "conv1d: " + field + ": bad shape: expected an array, got none";
  };
  EXPECT_EQ(without([](auto& f, auto&) { f.in.x = {}; }), none("x"));
  EXPECT_EQ(without([](auto& f, auto&) { f.in.w = nullptr; }), none("w"));
  EXPECT_EQ(without([](auto& f, auto&) { f.y = {}; }), none("y"));
  EXPECT_EQ(without([](auto&, auto& b) { b.gy = {}; }), none("gy"));
  EXPECT_EQ(without([](auto&, auto& b) { b.dx = {}; }), none("dx"));
  EXPECT_EQ(without([](auto&, auto&) {}), "no error");
}

}  // namespace
}  // namespace adder
