#include "kernels/s6/s6.h"

#include <cmath>

#include "measure/call_laws_test.h"
#include "measure/s6_call.h"

namespace adder {
namespace {

using measure::Guarded;
using measure::kBackward;
using measure::kForward;
using measure::S6Call;
using measure::S6Case;

/// With every option, dense.
template <class T>
S6Call<T> dense(const S6Shape& shape, std::vector<int32_t> cu = {}) {
  return {S6Case::dense(shape, std::move(cu)), 1};
}

TEST(S6, APlantedDefectTurnsTheComparisonRed) {
  auto call = dense<float>({.batch = 1, .len = 70, .dim = 20, .state = 4});
  call.run_both(1);
  expect_defect_is_seen(call, "y", 777, 1e-3);
}

template <class T>
void lines_of_a_class_agree() {
  measure::on_every_target([] {
    const S6Shape shape{.batch = 3, .len = 601, .dim = 140, .state = 4};
    auto one = dense<T>(shape), two = dense<T>(shape), chunked = dense<T>(shape);
    one.run_both(1, {.name = "sequential"});
    two.run_both(2, {.name = "sequential"});
    chunked.run_both(2, {.name = "chunked"});
    expect_same_bits(one, two);
    expect_same_bits(one, chunked);
    auto parallel_one = dense<T>(shape), parallel_two = dense<T>(shape);
    parallel_one.run_both(1, {.name = "parallel"});
    parallel_two.run_both(2, {.name = "parallel"});
    expect_same_bits(parallel_one, parallel_two);
  });
}

TEST(S6, SameBitsForAnyThreadCountAndInAClass) {
  lines_of_a_class_agree<float>();
  lines_of_a_class_agree<Bf16>();
  lines_of_a_class_agree<double>();
}

// exact_class 1: training forward = loop of steps = any split, bit for bit.
template <class T>
void forward_equals_steps(const char* line, int64_t state) {
  const bool complex = std::string_view(line) == "complex";
  measure::expect_forward_equals_steps<S6Call<T>>(
      S6Case::dense({.batch = 2, .len = 70, .dim = 37, .state = state, .complex = complex}),
      {.name = line},
      [](Context& context, const S6Shape& shape, const S6Forward<T>& args) {
        s6_step(context, shape, args, {.name = {}, .exact_class = 1});
      },
      0);
}

TEST(S6, ForwardEqualsALoopOfStepsBitForBit) {
  measure::on_every_target([] {
    for (const char* line : {"sequential", "chunked", "complex"}) {
      for (const int64_t state : {1, 16, 21}) {
        forward_equals_steps<float>(line, state);
        forward_equals_steps<Bf16>(line, state);
      }
    }
  });
}

TEST(S6, ParallelEqualsSequentialUpToRounding) {
  const S6Shape shape{.batch = 1, .len = 1700, .dim = 5, .state = 6};
  auto sequential = dense<double>(shape), parallel = dense<double>(shape);
  sequential.run_both(1, {.name = "sequential"});
  parallel.run_both(2, {.name = "parallel"});
  expect_all_close(parallel, sequential, 1e-13, "parallel");
}

TEST(S6, PrefixPlusSuffixIsTheWhole) {
  const auto given = S6Case::dense({.batch = 1, .len = 150, .dim = 19, .state = 5});
  for (const int64_t cut : {0, 1, 2, 31, 32, 64, 149, 150}) {
    for (const char* line : {"sequential", "chunked"}) {
      measure::expect_prefix_and_suffix<S6Call<double>>(
          given, cut, {.name = line}, {.output = 0, .gradient = 1e-14, .sum = 1e-13});
    }
  }
}

TEST(S6, PackedEqualsSeparateBitForBit) {
  for (const char* line : {"sequential", "chunked", "complex"}) {
    const bool complex = std::string_view(line) == "complex";
    const S6Shape shape{.len = 331, .dim = 21, .state = 16, .sequences = 8, .complex = complex};
    measure::expect_packed_equals_separate<S6Call<float>>(
        S6Case::dense(shape, {0, 0, 1, 3, 67, 68, 200, 331, 331}), 2, {.name = line}, {});
  }
}

TEST(S6, BatchMatesDoNotMatter) {
  measure::expect_batch_mates_do_not_matter<S6Call<float>>(
      S6Case::dense({.batch = 3, .len = 65, .dim = 9, .state = 16}), {});
}

// G groups = the rows of B and C repeated for each channel.
TEST(S6, GroupsEqualRepeatedRows) {
  const int64_t len = 40, dim = 12, state = 5;
  auto grouped = dense<double>({.batch = 1, .len = len, .dim = dim, .state = state, .groups = 3});
  auto repeated =
      dense<double>({.batch = 1, .len = len, .dim = dim, .state = state, .groups = dim});
  for (int64_t i = 0; i < len * dim * state; ++i) {
    const int64_t t = i / (dim * state), d = i / state % dim, n = i % state;
    repeated.B[i] = grouped.B[(t * 3 + d / 4) * state + n];
    repeated.C[i] = grouped.C[(t * 3 + d / 4) * state + n];
  }
  grouped.run_both(1);
  repeated.run_both(1);
  EXPECT_TRUE(grouped.y.same_bits(repeated.y));
  EXPECT_TRUE(grouped.dx.same_bits(repeated.dx));
  EXPECT_TRUE(grouped.dA.same_bits(repeated.dA));
  for (int64_t t = 0; t < len; ++t) {
    for (int64_t i = 0; i < 3 * state; ++i) {
      double sum = 0;
      for (int64_t d = 0; d < 4; ++d) {
        sum += repeated.dB[(t * dim + i / state * 4 + d) * state + i % state];
      }
      EXPECT_NEAR(sum, grouped.dB[t * 3 * state + i], 1e-12);
    }
  }
}

// Constant B and C: the gradient is the sum over the tokens of repeated rows.
TEST(S6, ConstantRowsEqualRepeatedRows) {
  const int64_t dim = 6, state = 3, width = dim * state;
  const auto given =
      S6Case::dense({.batch = 2, .len = 45, .dim = dim, .state = state, .groups = dim});
  S6Call<double> repeated(given, 1);
  for (int64_t i = width; i < repeated.B.count(); ++i) {
    repeated.B[i] = repeated.B[i % width];
    repeated.C[i] = repeated.C[i % width];
  }
  repeated.run_both(1, {.name = "sequential"});
  S6Case constant_given = given;
  constant_given.constant_B = constant_given.constant_C = true;
  S6Call<double> constant(constant_given, 1);
  constant.run_both(1, {.name = "sequential"});
  EXPECT_TRUE(constant.y.same_bits(repeated.y));
  EXPECT_TRUE(constant.dA.same_bits(repeated.dA));
  for (int64_t n = 0; n < width; ++n) {
    double dB = 0, dC = 0;
    for (int64_t i = n; i < repeated.dB.count(); i += width) {
      dB += repeated.dB[i];
      dC += repeated.dC[i];
    }
    EXPECT_NEAR(constant.dB[n], dB, 1e-12) << n;
    EXPECT_NEAR(constant.dC[n], dC, 1e-12) << n;
  }
}

// A padded token has delta = 0 (math.md 0.4): the state passes through, nothing else changes.
TEST(S6, PaddingWithZeroDeltaChangesNothing) {
  auto plain = dense<float>({.batch = 1, .len = 60, .dim = 7, .state = 16, .softplus = false});
  auto padded = dense<float>({.batch = 1, .len = 90, .dim = 7, .state = 16, .softplus = false});
  padded.dt_bias.zero();
  for (int64_t i = 0; i < padded.dt.count(); ++i) padded.dt[i] = std::exp(padded.dt[i]);
  take_part(padded, 0, 0, plain);
  for (int64_t i = 60 * 7; i < 90 * 7; ++i) padded.dt[i] = padded.gy[i] = 0;
  plain.run_both(1);
  padded.run_both(1);
  EXPECT_TRUE(plain.hT.same_bits(padded.hT));
  EXPECT_TRUE(plain.dA.same_bits(padded.dA));
  EXPECT_TRUE(plain.dh0.same_bits(padded.dh0));
  EXPECT_TRUE(padded.ddt.holds(plain.ddt, 0));
}

// delta A -> -inf forgets the state, delta A -> 0 keeps it; dt raw = +-100 (math.md 11).
template <class T>
void extremes_stay_finite() {
  auto call = dense<T>({.batch = 1, .len = 67, .dim = 20, .state = 16});
  for (int64_t i = 0; i < call.dt.count(); ++i) call.dt.set(i, i % 3 == 0 ? -100 : 100);
  for (int64_t i = 0; i < call.A.count(); ++i) {
    const double rates[] = {-0.0, -1e4, -1e30, -1e-30};
    call.A.set(i, rates[i % 4]);
  }
  for (const char* line : {"sequential", "chunked", "parallel"}) {
    call.run_both(1, {.name = line});
    for (auto* array : {&call.y, &call.dx, &call.ddt, &call.dz, &call.dB, &call.dC}) {
      for (const double x : array->widened()) ASSERT_TRUE(std::isfinite(x)) << line;
    }
    for (auto* array : {&call.hT, &call.dD, &call.ddt_bias, &call.dh0}) {
      for (const double x : array->widened()) ASSERT_TRUE(std::isfinite(x)) << line;
    }
  }
}

TEST(S6, ExtremesStayFinite) {
  measure::on_every_target([] {
    extremes_stay_finite<float>();
    extremes_stay_finite<Bf16>();
    extremes_stay_finite<double>();
  });
}

TEST(S6, EmptyBatchesAndSequencesHaveZeroGradients) {
  for (const char* line : {"sequential", "chunked", "parallel"}) {
    for (const S6Shape& shape : {S6Shape{.batch = 0, .len = 5, .dim = 3, .state = 4},
                                 S6Shape{.batch = 2, .len = 0, .dim = 3, .state = 4}}) {
      auto call = dense<float>(shape);
      call.run_both(1, {.name = line});
      EXPECT_TRUE(call.hT.same_bits(call.h0));
      EXPECT_TRUE(call.dh0.same_bits(call.ghT));
      for (int64_t i = 0; i < call.dA.count(); ++i) EXPECT_EQ(call.dA[i], 0);
      for (int64_t i = 0; i < call.dD.count(); ++i) {
        EXPECT_EQ(call.dD[i], 0);
        EXPECT_EQ(call.ddt_bias[i], 0);
      }
    }
  }
}

void check_gradients(S6Case given, const Choice& choice) {
  S6Call<double> call(given, 2);
  if (!given.shape.softplus) {
    for (double& dt : call.dt.span()) dt = std::exp(dt);
    for (double& bias : call.dt_bias.span()) bias = 0.1;
  }
  expect_gradients(call, given.describe(), choice);
}

TEST(S6, GradientsMatchCentralDifferences) {
  S6Case limited = S6Case::dense({.batch = 1, .len = 20, .dim = 5, .state = 4});
  limited.dt_min = 0.1;
  limited.dt_max = 1;
  const S6Case cases[] = {
      S6Case::dense({.batch = 2, .len = 35, .dim = 4, .state = 3, .groups = 2}),
      S6Case::dense({.batch = 1, .len = 3, .dim = 19, .state = 16}),
      S6Case::dense({.len = 70, .dim = 3, .state = 2, .sequences = 5}, {0, 1, 1, 34, 66, 70}),
      limited, S6Case::dense({.batch = 1, .len = 20, .dim = 5, .state = 4, .softplus = false})};
  for (const char* line : {"sequential", "parallel"}) {
    for (const S6Case& given : cases) check_gradients(given, {.name = line});
  }
  check_gradients(S6Case::dense({.batch = 1, .len = 1030, .dim = 2, .state = 2}),
                  {.name = "parallel"});
}

// Imaginary parts of zero: twice the real scan (math.md 3.5).
TEST(S6Complex, WithoutImaginaryPartsIsTwiceTheRealScan) {
  auto real = dense<double>({.batch = 1, .len = 77, .dim = 9, .state = 5});
  auto pairs = dense<double>({.batch = 1, .len = 77, .dim = 9, .state = 5, .complex = true});
  const auto embed = [](const Guarded<double>& from, Guarded<double>& to) {
    for (int64_t i = 0; i < from.count(); ++i) to[2 * i] = from[i], to[2 * i + 1] = 0;
  };
  embed(real.A, pairs.A), embed(real.B, pairs.B), embed(real.C, pairs.C);
  embed(real.h0, pairs.h0), embed(real.ghT, pairs.ghT);
  for (auto* call : {&real, &pairs}) call->D.zero();
  for (int64_t i = 0; i < real.ghT.count(); ++i) real.ghT[i] /= 2;
  real.run_both(1, {.name = "sequential"});
  pairs.run_both(1);
  for (int64_t i = 0; i < real.y.count(); ++i) EXPECT_NEAR(pairs.y[i], 2 * real.y[i], 1e-12);
  for (int64_t i = 0; i < real.ddt.count(); ++i) EXPECT_NEAR(pairs.ddt[i], 2 * real.ddt[i], 1e-11);
  for (int64_t i = 0; i < real.dB.count(); ++i) EXPECT_NEAR(pairs.dB[2 * i], 2 * real.dB[i], 1e-11);
  for (int64_t i = 0; i < real.hT.count(); ++i) {
    EXPECT_NEAR(pairs.hT[2 * i], real.hT[i], 1e-12);
    EXPECT_EQ(pairs.hT[2 * i + 1], 0);
  }
}

TEST(S6Complex, GradientsMatchCentralDifferences) {
  S6Case limited = S6Case::dense({.len = 20, .dim = 5, .state = 4, .complex = true});
  limited.dt_min = 0.1;
  limited.dt_max = 1;
  const S6Case cases[] = {
      S6Case::dense({.batch = 2, .len = 35, .dim = 4, .state = 3, .groups = 2, .complex = true}),
      S6Case::dense({.len = 70, .dim = 3, .state = 2, .sequences = 5, .complex = true},
                    {0, 1, 1, 34, 66, 70}),
      limited};
  for (const S6Case& given : cases) check_gradients(given, {});
}

TEST(S6Complex, HasTheSameBitsForAnyThreadCount) {
  const S6Shape shape{.batch = 3, .len = 101, .dim = 140, .state = 3, .complex = true};
  auto one = dense<float>(shape), two = dense<float>(shape);
  one.run_both(1);
  two.run_both(2);
  expect_same_bits(one, two);
}

TEST(S6, TheDoorNamesTheField) {
  const auto shaped = [](const S6Shape& shape) {
    return measure::error_of(
        [&](Context& context) { s6_forward(context, shape, S6Forward<float>{}); });
  };
  EXPECT_EQ(shaped({.len = -1, .dim = 4, .state = 1}), "s6: len: bad shape: expected >= 0, got -1");
  EXPECT_NE(shaped({.len = 1, .dim = 0, .state = 1}).find("s6: dim"), std::string::npos);
  EXPECT_NE(shaped({.len = 1, .dim = 4, .state = 0}).find("s6: state"), std::string::npos);
  EXPECT_NE(shaped({.len = 1, .dim = 4, .state = 1, .groups = 3}).find("groups"),
            std::string::npos);
  EXPECT_NE(shaped({.batch = 2, .len = 1, .dim = 4, .state = 1, .sequences = 1}).find("batch"),
            std::string::npos);
  EXPECT_EQ(shaped({.len = 3, .dim = 4, .state = 1, .sequences = 2}),
            measure::absent("s6: cu_seqlens"));
  EXPECT_EQ(shaped({.len = 3, .dim = 4, .state = 1}), measure::absent("s6: u"));
}

TEST(S6, TheDoorAsksForEveryArrayThatIsNeeded) {
  auto call = dense<float>({.batch = 1, .len = 8, .dim = 4, .state = 2});
  const auto without = [&](const auto& take) { return measure::error_without(call, take); };
  using measure::absent;
  EXPECT_EQ(without([](auto&, auto&) {}), "no error");
  EXPECT_EQ(without([](auto& f, auto&) { f.in.A = nullptr; }), absent("s6: A"));
  EXPECT_EQ(without([](auto& f, auto&) { f.in.z.data = nullptr; }), absent("s6: z"));
  EXPECT_EQ(without([](auto& f, auto&) { f.y.data = nullptr; }), absent("s6: y"));
  EXPECT_EQ(without([](auto&, auto& b) { b.gy.data = nullptr; }), absent("s6: gy"));
  EXPECT_EQ(without([](auto&, auto& b) { b.saved = nullptr; }), absent("s6: saved"));
  EXPECT_NE(without([](auto& f, auto&) { f.in.dt_min = 2, f.in.dt_max = 1; }).find("dt_min"),
            std::string::npos);
  EXPECT_NE(without([](auto& f, auto&) { f.in.B.channel_stride = 2; }).find("s6: B"),
            std::string::npos);
}

TEST(S6, DecayRatesAreCheckedOnTheHost) {
  const S6Shape real{.len = 1, .dim = 2, .state = 2};
  const S6Shape complex{.len = 1, .dim = 2, .state = 1, .complex = true};
  const auto check = [](const S6Shape& shape, std::vector<float> A) {
    check_decay(shape, std::span<const float>(A));
  };
  check(real, {-1, -0.0f, 0, NAN});
  check(complex, {-1, 3, 0, 5});
  EXPECT_THROW(check(complex, {-1, 3, 2, 5}), Error);
  const std::string error = measure::error_of([&](Context&) { check(real, {-1, 0.5f, 0, 0}); });
  EXPECT_NE(error.find("s6: A"), std::string::npos) << error;
  EXPECT_NE(error.find("entries <= 0"), std::string::npos) << error;
}

template <class T>
void accumulates(const S6Case& given) {
  for (const auto& line : s6_lines<T>()) {
    if (!line.accepts(cpu_caps(), given.shape)) continue;
    measure::expect_accumulated<S6Call<T>>(
        given, [&](auto& call) { call.run_both(2, {.name = line.info.name}); }, line.info.name);
  }
  measure::expect_accumulated<S6Call<T>>(
      given, [](auto& call) { call.reference(kBackward, false, nullptr); }, "reference");
}

TEST(S6, AccumulatingEqualsAWriteAndAnAdd) {
  measure::on_every_target([] {
    for (const bool complex : {false, true}) {
      const S6Case cases[] = {
          S6Case::dense({.batch = 2, .len = 45, .dim = 37, .state = 5, .complex = complex}),
          S6Case::dense({.len = 40, .dim = 6, .state = 3, .sequences = 3, .complex = complex},
                        {0, 33, 33, 40}),
          S6Case::dense({.batch = 0, .len = 5, .dim = 3, .state = 4, .complex = complex})};
      for (const S6Case& given : cases) {
        accumulates<float>(given);
        accumulates<double>(given);
        accumulates<Bf16>(given);
      }
    }
  });
}

// The state that enters chunk c of packed sequence q has the index cu[q] / kS6Chunk + q + c.
TEST(S6, SavedStatesOfPackedSequencesHaveTheirPlaces) {
  for (const char* line : {"sequential", "chunked", "parallel", "complex"}) {
    S6Shape shape{.len = 331, .dim = 5, .state = 4, .sequences = 8};
    shape.complex = std::string_view(line) == "complex";
    measure::expect_places_of_saved_states<S6Call<float>>(
        S6Case::dense(shape, {0, 0, 1, 3, 67, 68, 200, 331, 331}), {.name = line}, kS6Chunk, 0);
  }
}

}  // namespace
}  // namespace adder
