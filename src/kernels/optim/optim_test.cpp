#include "kernels/optim/optim.h"

#include <bit>
#include <cmath>
#include <limits>

#include "measure/call_laws_test.h"
#include "measure/optim_call.h"

namespace adder {
namespace {

using measure::Guarded;
using measure::Side;

/// At the start of a run: no moments yet.
template <class Acc>
struct Parameters : measure::AdamWCall<Acc> {
  explicit Parameters(int64_t count) : measure::AdamWCall<Acc>(first_step(count), 1) {
    fill_normal(this->g, 1, "g");
    this->m.zero();
    this->v.zero();
  }
  static measure::AdamWCase first_step(int64_t count) {
    measure::AdamWCase given{.shape = {count}, .rounded = true};
    given.state.learning_rate = 1e-3;
    given.state.updates = 1;
    return given;
  }
  void step(int64_t first, int64_t count, int threads) {
    Workspace workspace(threads);
    this->upload(workspace.context());
    workspace.run(
        [&](Context& context) { adamw_step(context, {count}, this->range(Side::device, first)); });
    this->download();
  }
};

TEST(Optim, SameBitsForAnyThreadCountAndAnyCutIntoRanges) {
  constexpr int64_t kCount = 100003;
  Parameters<float> one(kCount), two(kCount), cut(kCount);
  for (int64_t t = 1; t <= 3; ++t) {
    for (auto* each : {&one, &two, &cut}) each->state[0].updates = t;
    one.step(0, kCount, 1);
    two.step(0, kCount, 2);
    cut.step(0, 33, 1);
    cut.step(33, kCount - 33, 2);
  }
  expect_same_bits(one, two);
  expect_same_bits(one, cut);
}

// Without a learning rate and gradients p stays, so that `rounded` shows every rounding.
TEST(Optim, RoundedCopyIsTheConversionOfP) {
  const std::pair<uint32_t, uint16_t> bits[] = {
      {0x3F808000, 0x3F80},  // 1 + 2^-8: tie to even
      {0x3F818000, 0x3F82},  // 1 + 3 2^-8: tie to even, upward
      {0x3F808001, 0x3F81}, {0xBF808001, 0xBF81}, {0x7F7FFFFF, 0x7F80}, {0xFF800000, 0xFF80},
      {0x00000001, 0x0000}, {0x80000000, 0x8000}, {0x7F800001, 0x7FC0}, {0xFFFFFFFF, 0x7FC0}};
  measure::on_every_target([&] {
    Parameters<float> parameters(41);
    parameters.state[0].learning_rate = 0;
    for (int64_t i = 0; i < 41; ++i) {
      parameters.p[i] = std::bit_cast<float>(bits[i % 10].first);
      parameters.g[i] = 0;
    }
    parameters.step(0, 41, 1);
    for (int64_t i = 0; i < 41; ++i) {
      EXPECT_EQ(parameters.rounded[i].bits, bits[i % 10].second) << i;
    }
    EXPECT_TRUE(parameters.rounded.intact());
  });
}

// Just above a tie of bf16: as a float it would be the tie.
TEST(Optim, RoundedCopyOfDoublesIsRoundedOnce) {
  measure::on_every_target([&] {
    Parameters<double> parameters(11);
    parameters.state[0].learning_rate = 0;
    for (int64_t i = 0; i < 11; ++i) parameters.p[i] = 1 + 0x1p-8 + (i % 2 == 0 ? 0 : 0x1p-40);
    parameters.step(0, 11, 1);
    for (int64_t i = 0; i < 11; ++i) {
      EXPECT_EQ(parameters.rounded[i].bits, i % 2 == 0 ? 0x3F80 : 0x3F81);
    }
  });
}

TEST(Optim, RoundedCopyMayBeAbsent) {
  Parameters<float> with(1009), without(1009);
  without.given.rounded = false;
  with.step(0, 1009, 1);
  without.step(0, 1009, 1);
  EXPECT_TRUE(with.p.same_bits(without.p));
}

// The first step moves every parameter by lr against the sign of its gradient (up to eps).
TEST(Optim, FirstStepIsTheSignOfTheGradient) {
  Parameters<double> parameters(50);
  parameters.given.constants.weight_decay = 0;
  const Guarded<double> before = parameters.p;
  parameters.step(0, 50, 1);
  for (int64_t i = 0; i < 50; ++i) {
    const double g = parameters.g[i];
    EXPECT_NEAR(parameters.p[i] - before[i], -1e-3 * g / (std::abs(g) + 1e-8), 1e-15);
  }
}

// Ten steps on the loss p^2 / 2, against values worked out by PyTorch's formula in double by hand
// in a loop that shares nothing with the kernel.
TEST(Optim, TenStepsFollowTheFormula) {
  Parameters<double> parameters(1);
  double p = parameters.p[0], m = 0, v = 0;
  for (int64_t t = 1; t <= 10; ++t) {
    parameters.g[0] = parameters.p[0];
    parameters.state[0].updates = t;
    parameters.step(0, 1, 1);
    const double g = p;
    p -= 1e-3 * 0.1 * p;
    m = 0.9 * m + (1 - 0.9) * g;
    v = 0.95 * v + (1 - 0.95) * g * g;
    const double n = static_cast<double>(t);
    p -= 1e-3 / (1 - std::pow(0.9, n)) * m /
         (std::sqrt(v) / std::sqrt(1 - std::pow(0.95, n)) + 1e-8);
    EXPECT_NEAR(parameters.p[0], p, 1e-14) << "step " << t;
  }
}

TEST(Optim, SkipLeavesEverythingAlone) {
  Parameters<float> parameters(100);
  parameters.g[7] = std::numeric_limits<float>::quiet_NaN();
  parameters.state[0].skip = 1;
  parameters.state[0].updates = 0;
  Parameters<float> before = parameters;
  parameters.step(0, 100, 1);
  expect_same_bits(parameters, before);
}

double norm_squared(Guarded<float>& g, int threads, double before = NAN) {
  auto sum = measure::filled<double>(1, [&](int64_t) { return before; });
  measure::run_on_device(
      threads,
      [&](Context& context) {
        sum_of_squares<float>(context, {g.count()},
                              {g.at(Side::device), sum.at(Side::device), !std::isnan(before)});
      },
      g, sum);
  return sum[0];
}

TEST(Optim, SumOfSquares) {
  measure::on_every_target([&] {
    for (const int64_t count : {0, 1, 7, 8, 63, 1009, 16384, 16385, 100003}) {
      Guarded<float> g(count);
      measure::fill_normal(g, 5, "g");
      double expected = 0;
      for (int64_t i = 0; i < count; ++i) expected += double{g[i]} * double{g[i]};
      const double one = norm_squared(g, 1);
      EXPECT_NEAR(one, expected, 1e-13 * expected) << count;
      EXPECT_EQ(one, norm_squared(g, 2)) << count;
      EXPECT_EQ(0.7 + one, norm_squared(g, 2, 0.7)) << count;
    }
    Guarded<float> large(100);
    for (int64_t i = 0; i < 100; ++i) large[i] = 3e38f;  // its square overflows a float
    EXPECT_NEAR(norm_squared(large, 1), 9e78, 1e73);
    for (const float bad :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      for (const int64_t at : {0, 50, 99}) {
        Guarded<float> g(100);
        measure::fill_normal(g, 5, "g");
        g[at] = bad;
        EXPECT_FALSE(std::isfinite(norm_squared(g, 2))) << "at " << at;
      }
    }
  });
}

// A second moment that is off by one part in a thousand.
TEST(Optim, APlantedDefectTurnsTheComparisonRed) {
  Parameters<float> parameters(64);
  parameters.step(0, 64, 1);
  expect_defect_is_seen(parameters, "v", 40, 1e-3 * parameters.v[40]);
}

StepState decided(const StepState& before, double clip_norm) {
  auto state = measure::filled<StepState>(1, [&](int64_t) { return before; });
  measure::run_on_device(
      1, [&](Context& context) { decide_step(context, {state.at(Side::device), clip_norm}); },
      state);
  return state[0];
}

TEST(Decision, ClipsAboveTheNormOnly) {
  StepState state;
  state.learning_rate = 3;
  state.gradient_scale = 5;
  state.loss_sum = 7;
  state.squares = 16;
  state.updates = 41;
  state.skip = 1;  // of the step before
  state.skipped = 2;
  const StepState above = decided(state, 1);
  EXPECT_EQ(above.grad_norm, 4);
  EXPECT_EQ(above.clip, 1 / 4.000001);
  EXPECT_EQ(above.skip, 0);
  EXPECT_EQ(above.skipped, 2);
  EXPECT_EQ(above.updates, 42);
  EXPECT_EQ(above.learning_rate, 3);
  EXPECT_EQ(above.gradient_scale, 5);
  EXPECT_EQ(above.loss_sum, 7);
  EXPECT_EQ(above.squares, 16);
  EXPECT_EQ(decided(state, 5).clip, 1);
  EXPECT_EQ(decided(state, 4).clip, 4 / 4.000001);  // the floor counts at the norm itself
  EXPECT_EQ(decided(state, 0).clip, 1);
  state.squares = 0;
  EXPECT_EQ(decided(state, 1e-7).clip, 1e-7 / 1e-6);
}

TEST(Decision, SkipsWhatIsNotFinite) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  StepState good;
  good.squares = 1;
  good.loss_sum = 2;
  good.clip = 0.25;
  good.updates = 9;
  for (const double bad : {kInfinity, -kInfinity, static_cast<double>(NAN)}) {
    for (const bool in_loss : {false, true}) {
      StepState state = good;
      (in_loss ? state.loss_sum : state.squares) = bad;
      state = decided(state, 1);
      EXPECT_EQ(state.skip, 1);
      EXPECT_EQ(state.skipped, 1);
      EXPECT_EQ(state.updates, 9);
      EXPECT_EQ(state.clip, 0.25);
      state.loss_sum = 2;
      state.squares = 1;
      state = decided(decided(state, 1), 1);
      EXPECT_EQ(state.skip, 0);
      EXPECT_EQ(state.skipped, 1);
      EXPECT_EQ(state.updates, 11);
    }
  }
}

// The chain of a step: squares, decision, AdamW with the clip that it found.
TEST(Decision, AdamWReadsWhatItDecided) {
  Parameters<double> chained(20), by_hand(20);
  chained.state[0].updates = 0;
  Workspace workspace(1);
  chained.upload(workspace.context());
  workspace.run([&](Context& context) {
    StepState* state = chained.state.at(Side::device);
    sum_of_squares<double>(context, {20}, {chained.g.at(Side::device), &state->squares, false});
    decide_step(context, {state, 0.5});
    adamw_step(context, {20}, chained.forward(Side::device));
  });
  chained.download();
  double squares = 0;
  for (int64_t i = 0; i < 20; ++i) squares += by_hand.g[i] * by_hand.g[i];
  const double clip = 0.5 / (std::sqrt(squares) + 1e-6);
  ASSERT_LT(clip, 1);
  for (int64_t i = 0; i < 20; ++i) by_hand.g[i] *= clip;
  by_hand.step(0, 20, 1);
  EXPECT_EQ(chained.state[0].updates, 1);
  for (int64_t i = 0; i < 20; ++i) EXPECT_NEAR(chained.p[i], by_hand.p[i], 1e-15);
}

TEST(Optim, TheDoorsNameTheField) {
  using measure::absent;
  using measure::error_of;
  Parameters<float> parameters(4);
  parameters.upload(Workspace(1).context());
  const auto with = [&](const auto& change) {
    return error_of([&](Context& context) {
      auto args = parameters.forward(Side::device);
      change(args);
      adamw_step(context, {4}, args);
    });
  };
  EXPECT_EQ(with([](auto&) {}), "no error");
  EXPECT_EQ(with([](auto& a) { a.constants.beta2 = 1; }),
            "optim: beta2: bad shape: expected < 1, got 1");
  EXPECT_EQ(with([](auto& a) { a.constants.eps = -1; }).substr(0, 21), "optim: eps: bad shape");
  EXPECT_EQ(with([](auto& a) { a.state = nullptr; }), absent("optim: state"));
  EXPECT_EQ(with([](auto& a) { a.g = nullptr; }), absent("optim: g"));
  EXPECT_EQ(with([](auto& a) { a.v = nullptr; }), absent("optim: v"));
  EXPECT_EQ(error_of([&](Context& c) { adamw_step(c, {-1}, parameters.forward(Side::device)); }),
            "optim: count: bad shape: expected >= 0, got -1");
  const float* g = parameters.g.at(Side::device);
  EXPECT_EQ(error_of([&](Context& c) { sum_of_squares<float>(c, {4}, {g, nullptr}); }),
            absent("optim: sum"));
  EXPECT_EQ(error_of([&](Context& c) { decide_step(c, {nullptr, 1}); }), absent("optim: state"));
  StepState* state = parameters.state.at(Side::device);
  EXPECT_EQ(error_of([&](Context& c) { decide_step(c, {state, NAN}); }).substr(0, 27),
            "optim: clip_norm: bad shape");
}

}  // namespace
}  // namespace adder
