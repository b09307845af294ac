#include "kernels/s6/s6.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/simd_targets.h"
#include "kernels/ref/s6_ref.h"
#include "kernels/s6/s6_call_test.h"
#include "measure/variant.h"

namespace adder {
namespace {

// Elements of `part` against `whole` from `first` on, relative to the largest of `whole`.
void expect_close(const Guarded<double>& part, const Guarded<double>& whole, int64_t first,
                  double limit, const char* name) {
  double largest = 0;
  for (int64_t i = 0; i < whole.count(); ++i) largest = std::max(largest, std::abs(whole[i]));
  for (int64_t i = 0; i < part.count(); ++i) {
    ASSERT_NEAR(part[i], whole[first + i], limit * largest) << name << " " << i;
  }
}

template <class T>
void copy_from(const Guarded<T>& from, int64_t first, Guarded<T>& to) {
  std::copy_n(from.data() + first, to.count(), to.data());
}

// The tokens [first, first + part.len) of batch row 0.
template <class T>
void take_tokens(const Call<T>& whole, int64_t first, Call<T>& part) {
  const int64_t channels = first * whole.shape.dim;
  const int64_t shared = first * whole.shape.groups * whole.shape.state_numbers();
  copy_from(whole.u, channels, part.u);
  copy_from(whole.dt, channels, part.dt);
  copy_from(whole.z, channels, part.z);
  copy_from(whole.gy, channels, part.gy);
  copy_from(whole.B, shared, part.B);
  copy_from(whole.C, shared, part.C);
}

TEST(S6, EveryLineMatchesTheReferenceOnEveryTarget) {
  const auto variants = measure::s6_variants(measure::Purpose::test);
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

TEST(S6, APlantedDefectTurnsTheComparisonRed) {
  Call<float> call({.batch = 1, .len = 70, .dim = 20, .state = 4});
  call.run();
  const auto whole = call.y.converted<double>();
  measure::Comparison clean;
  measure::compare_output(clean, "y", call.y, whole, call.y, whole);
  EXPECT_TRUE(clean.passed()) << clean.describe();
  call.y[777] += 1e-3f;
  measure::Comparison red;
  measure::compare_output(red, "y", call.y, whole, whole.converted<float>(), whole);
  EXPECT_FALSE(red.passed()) << red.describe();
}

template <class T>
void same_bits_for_any_thread_count() {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    const S6Shape shape{.batch = 3, .len = 601, .dim = 140, .state = 4};
    Call<T> one(shape), two(shape), chunked(shape), parallel_one(shape), parallel_two(shape);
    one.run(1, {.name = "sequential"});
    two.run(2, {.name = "sequential"});
    chunked.run(2, {.name = "chunked"});
    expect_same_bits(one, two);
    expect_same_bits(one, chunked);
    parallel_one.run(1, {.name = "parallel"});
    parallel_two.run(2, {.name = "parallel"});
    expect_same_bits(parallel_one, parallel_two);
  }
  force_simd_target(0);
}

TEST(S6, SameBitsForAnyThreadCountAndInAClass) {
  same_bits_for_any_thread_count<float>();
  same_bits_for_any_thread_count<Bf16>();
  same_bits_for_any_thread_count<double>();
}

// exact_class 1: training forward = loop of steps = any split, bit for bit.
template <class T>
void forward_equals_steps(const char* line, int64_t state) {
  const int64_t len = 70, dim = 37;
  const bool complex = std::string_view(line) == "complex";
  Call<T> whole({.batch = 2, .len = len, .dim = dim, .state = state, .complex = complex});
  whole.run(1, {.name = line});
  Call<T> step(whole.shape);
  step.hT = step.h0;
  measure::run_planned(1, [&](Context& context) {
    auto args = step.forward();
    args.in.h0 = args.hT = step.hT.data();
    S6Shape shape = step.shape;
    shape.len = 1;
    if (context.arena->measuring())
      return s6_step(context, shape, args, {.name = {}, .exact_class = 1});
    for (int64_t t = 0; t < len; ++t) {
      auto now = args;
      for (auto* view : {&now.in.u, &now.in.dt, &now.in.z}) view->data += t * dim;
      for (auto* view : {&now.in.B, &now.in.C}) view->data += t * shape.state_numbers();
      now.y.data += t * dim;
      s6_step(context, shape, now, {.name = {}, .exact_class = 1});
    }
  });
  EXPECT_TRUE(same_bits(whole.y, step.y)) << line << " state " << state;
  EXPECT_TRUE(same_bits(whole.hT, step.hT)) << line << " state " << state;
}

TEST(S6, ForwardEqualsALoopOfStepsBitForBit) {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    for (const char* line : {"sequential", "chunked", "complex"}) {
      for (const int64_t state : {1, 16, 21}) {
        forward_equals_steps<float>(line, state);
        forward_equals_steps<Bf16>(line, state);
      }
    }
  }
  force_simd_target(0);
}

TEST(S6, ParallelEqualsSequentialUpToRounding) {
  const S6Shape shape{.batch = 1, .len = 1700, .dim = 5, .state = 6};
  Call<double> sequential(shape), parallel(shape);
  sequential.run(1, {.name = "sequential"});
  parallel.run(2, {.name = "parallel"});
  expect_close(parallel.y, sequential.y, 0, 1e-13, "y");
  expect_close(parallel.hT, sequential.hT, 0, 1e-13, "hT");
  expect_close(parallel.du, sequential.du, 0, 1e-13, "du");
  expect_close(parallel.ddt, sequential.ddt, 0, 1e-13, "ddt");
  expect_close(parallel.dB, sequential.dB, 0, 1e-13, "dB");
  expect_close(parallel.dC, sequential.dC, 0, 1e-13, "dC");
  expect_close(parallel.dA, sequential.dA, 0, 1e-13, "dA");
  expect_close(parallel.dh0, sequential.dh0, 0, 1e-13, "dh0");
}

// Prefix and suffix with the carried state and its gradient give the whole.
void prefix_and_suffix(int64_t cut, const Choice& choice) {
  const int64_t len = 150, dim = 19, state = 5;
  Call<double> whole({.batch = 1, .len = len, .dim = dim, .state = state});
  whole.run(1, choice);
  Call<double> head({.batch = 1, .len = cut, .dim = dim, .state = state});
  Call<double> tail({.batch = 1, .len = len - cut, .dim = dim, .state = state});
  take_tokens(whole, 0, head);
  take_tokens(whole, cut, tail);
  measure::run_planned(1, [&](Context& context) {
    s6_forward(context, head.shape, head.forward(), choice);
    tail.h0 = head.hT;
    s6_forward(context, tail.shape, tail.forward(), choice);
    s6_backward(context, tail.shape, tail.backward(), choice);
    head.ghT = tail.dh0;
    s6_backward(context, head.shape, head.backward(), choice);
  });
  EXPECT_TRUE(same_bits(tail.hT, whole.hT)) << cut;
  expect_close(head.y, whole.y, 0, 0, "y");
  expect_close(tail.y, whole.y, cut * dim, 0, "y");
  expect_close(head.du, whole.du, 0, 1e-14, "du");
  expect_close(tail.du, whole.du, cut * dim, 1e-14, "du");
  expect_close(head.ddt, whole.ddt, 0, 1e-13, "ddt");
  expect_close(head.dB, whole.dB, 0, 1e-13, "dB");
  expect_close(tail.dC, whole.dC, cut * state, 1e-13, "dC");
  expect_close(head.dh0, whole.dh0, 0, 1e-13, "dh0");
  for (int64_t i = 0; i < whole.dA.count(); ++i) {
    EXPECT_NEAR(head.dA[i] + tail.dA[i], whole.dA[i], 1e-12 * std::abs(whole.dA[i]) + 1e-12);
  }
}

TEST(S6, PrefixPlusSuffixIsTheWhole) {
  for (const int64_t cut : {0, 1, 2, 31, 32, 64, 149, 150}) {
    prefix_and_suffix(cut, {.name = "sequential"});
    prefix_and_suffix(cut, {.name = "chunked"});
  }
}

void packed_equals_separate(const Choice& choice) {
  const int64_t dim = 21, state = 16;
  const std::vector<int32_t> cu = {0, 0, 1, 3, 67, 68, 200, 331, 331};
  const bool complex = choice.name == "complex";
  Call<float> packed({.len = 331, .dim = dim, .state = state, .sequences = 8, .complex = complex},
                     cu);
  packed.run(2, choice);
  for (size_t q = 0; q + 1 < cu.size(); ++q) {
    Call<float> alone({.len = cu[q + 1] - cu[q], .dim = dim, .state = state, .complex = complex});
    const int64_t row = static_cast<int64_t>(q) * dim * alone.shape.state_numbers();
    take_tokens(packed, cu[q], alone);
    copy_from(packed.h0, row, alone.h0);
    copy_from(packed.ghT, row, alone.ghT);
    alone.run(1, choice);
    const auto same = [&](const Guarded<float>& part, const Guarded<float>& whole, int64_t first) {
      const auto bytes = static_cast<size_t>(part.count()) * sizeof(float);
      return std::memcmp(part.data(), whole.data() + first, bytes) == 0;
    };
    EXPECT_TRUE(same(alone.y, packed.y, cu[q] * dim)) << q;
    EXPECT_TRUE(same(alone.du, packed.du, cu[q] * dim)) << q;
    EXPECT_TRUE(same(alone.ddt, packed.ddt, cu[q] * dim)) << q;
    EXPECT_TRUE(same(alone.dz, packed.dz, cu[q] * dim)) << q;
    EXPECT_TRUE(same(alone.dB, packed.dB, cu[q] * alone.shape.state_numbers())) << q;
    EXPECT_TRUE(same(alone.dC, packed.dC, cu[q] * alone.shape.state_numbers())) << q;
    EXPECT_TRUE(same(alone.hT, packed.hT, row)) << q;
    EXPECT_TRUE(same(alone.dh0, packed.dh0, row)) << q;
  }
}

TEST(S6, PackedEqualsSeparateBitForBit) {
  packed_equals_separate({.name = "sequential"});
  packed_equals_separate({.name = "chunked"});
  packed_equals_separate({.name = "complex"});
}

TEST(S6, BatchMatesDoNotMatter) {
  const int64_t row = 65 * 9;
  Call<float> three({.batch = 3, .len = 65, .dim = 9, .state = 16});
  three.run();
  for (int64_t b = 0; b < 3; ++b) {
    Call<float> alone({.batch = 1, .len = 65, .dim = 9, .state = 16});
    take_tokens(three, b * 65, alone);
    copy_from(three.h0, b * 9 * 16, alone.h0);
    copy_from(three.ghT, b * 9 * 16, alone.ghT);
    alone.run();
    const auto bytes = static_cast<size_t>(row) * sizeof(float);
    EXPECT_EQ(std::memcmp(alone.y.data(), three.y.data() + b * row, bytes), 0);
    EXPECT_EQ(std::memcmp(alone.ddt.data(), three.ddt.data() + b * row, bytes), 0);
  }
}

// G groups = the rows of B and C repeated for each channel.
TEST(S6, GroupsEqualRepeatedRows) {
  const int64_t len = 40, dim = 12, state = 5;
  Call<double> grouped({.batch = 1, .len = len, .dim = dim, .state = state, .groups = 3});
  Call<double> repeated({.batch = 1, .len = len, .dim = dim, .state = state, .groups = dim});
  for (int64_t t = 0; t < len; ++t) {
    for (int64_t d = 0; d < dim; ++d) {
      for (int64_t n = 0; n < state; ++n) {
        repeated.B[(t * dim + d) * state + n] = grouped.B[(t * 3 + d / 4) * state + n];
        repeated.C[(t * dim + d) * state + n] = grouped.C[(t * 3 + d / 4) * state + n];
      }
    }
  }
  grouped.run();
  repeated.run();
  EXPECT_TRUE(same_bits(grouped.y, repeated.y));
  EXPECT_TRUE(same_bits(grouped.du, repeated.du));
  EXPECT_TRUE(same_bits(grouped.dA, repeated.dA));
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
  const int64_t len = 45, dim = 6, state = 3, width = dim * state;
  Call<double> repeated({.batch = 2, .len = len, .dim = dim, .state = state, .groups = dim});
  for (int64_t i = width; i < repeated.B.count(); ++i) {
    repeated.B[i] = repeated.B[i % width];
    repeated.C[i] = repeated.C[i % width];
  }
  repeated.run(1, {.name = "sequential"});
  Call<double> constant(repeated.shape);
  measure::run_planned(1, [&](Context& context) {
    auto forward = constant.forward();
    auto backward = constant.backward();
    for (auto* in : {&forward.in, &backward.in}) {
      in->B = {repeated.B.data(), 0, 0, 1};
      in->C = {repeated.C.data(), 0, 0, 1};
    }
    backward.dB = {constant.dB.data(), 0, 0, 1};
    backward.dC = {constant.dC.data(), 0, 0, 1};
    s6_forward(context, constant.shape, forward, {.name = "sequential"});
    s6_backward(context, constant.shape, backward, {.name = "sequential"});
  });
  EXPECT_TRUE(same_bits(constant.y, repeated.y));
  EXPECT_TRUE(same_bits(constant.dA, repeated.dA));
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
  const S6Shape shape{.batch = 1, .len = 90, .dim = 7, .state = 16, .softplus = false};
  Call<float> plain({.batch = 1, .len = 60, .dim = 7, .state = 16, .softplus = false});
  Call<float> padded(shape);
  for (auto* call : {&plain, &padded}) {
    for (int64_t d = 0; d < 7; ++d) call->bias[d] = 0;
    for (int64_t i = 0; i < call->dt.count(); ++i) call->dt[i] = std::exp(call->dt[i]);
  }
  take_tokens(padded, 0, plain);
  for (int64_t i = 60 * 7; i < 90 * 7; ++i) padded.dt[i] = padded.gy[i] = 0;
  plain.run();
  padded.run();
  EXPECT_TRUE(same_bits(plain.hT, padded.hT));
  EXPECT_TRUE(same_bits(plain.dA, padded.dA));
  EXPECT_TRUE(same_bits(plain.dh0, padded.dh0));
  EXPECT_EQ(std::memcmp(plain.ddt.data(), padded.ddt.data(), 60 * 7 * sizeof(float)), 0);
}

// delta A -> -inf forgets the state, delta A -> 0 keeps it; dt raw = +-100 (math.md 11).
template <class T>
void extremes_stay_finite() {
  Call<T> call({.batch = 1, .len = 67, .dim = 20, .state = 16});
  using Acc = accumulate_t<T>;
  for (int64_t i = 0; i < call.dt.count(); ++i) {
    call.dt[i] = measure::from_double<T>(i % 3 == 0 ? -100 : 100);
  }
  for (int64_t i = 0; i < call.A.count(); ++i) {
    const Acc rates[] = {Acc(-0.0), Acc(-1e4), Acc(-1e30), Acc(-1e-30)};
    call.A[i] = rates[i % 4];
  }
  for (const char* line : {"sequential", "chunked", "parallel"}) {
    call.run(1, {.name = line});
    const auto finite = [](const auto& array) {
      for (int64_t i = 0; i < array.count(); ++i) {
        if (!std::isfinite(measure::to_double(array[i]))) return false;
      }
      return true;
    };
    for (const auto* array : {&call.y, &call.du, &call.ddt, &call.dz, &call.dB, &call.dC}) {
      EXPECT_TRUE(finite(*array)) << line;
    }
    for (const auto* array : {&call.hT, &call.dD, &call.dbias, &call.dh0}) {
      EXPECT_TRUE(finite(*array)) << line;
    }
  }
}

TEST(S6, ExtremesStayFinite) {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    extremes_stay_finite<float>();
    extremes_stay_finite<Bf16>();
    extremes_stay_finite<double>();
  }
  force_simd_target(0);
}

TEST(S6, EmptyBatchesAndSequencesHaveZeroGradients) {
  for (const char* line : {"sequential", "chunked", "parallel"}) {
    for (const S6Shape& shape : {S6Shape{.batch = 0, .len = 5, .dim = 3, .state = 4},
                                 S6Shape{.batch = 2, .len = 0, .dim = 3, .state = 4}}) {
      Call<float> call(shape);
      call.run(1, {.name = line});
      EXPECT_TRUE(same_bits(call.hT, call.h0));
      EXPECT_TRUE(same_bits(call.dh0, call.ghT));
      for (int64_t i = 0; i < call.dA.count(); ++i) EXPECT_EQ(call.dA[i], 0);
      for (int64_t i = 0; i < call.dD.count(); ++i) EXPECT_EQ(call.dD[i] + call.dbias[i], 0);
    }
  }
}

TEST(S6, GradientsMatchCentralDifferences) {
  for (const char* line : {"sequential", "parallel"}) {
    const Choice choice{.name = line};
    check_call(Call<double>({.batch = 2, .len = 35, .dim = 4, .state = 3, .groups = 2}), choice);
    check_call(Call<double>({.batch = 1, .len = 3, .dim = 19, .state = 16}), choice);
    check_call(
        Call<double>({.len = 70, .dim = 3, .state = 2, .sequences = 5}, {0, 1, 1, 34, 66, 70}),
        choice);
    Call<double> limited({.batch = 1, .len = 20, .dim = 5, .state = 4});
    limited.dt_min = 0.1;
    limited.dt_max = 1;
    check_call(limited, choice);
    Call<double> plain({.batch = 1, .len = 20, .dim = 5, .state = 4, .softplus = false});
    for (int64_t i = 0; i < plain.dt.count(); ++i) plain.dt[i] = std::exp(plain.dt[i]);
    for (int64_t i = 0; i < plain.bias.count(); ++i) plain.bias[i] = 0.1;
    check_call(plain, choice);
  }
  check_call(Call<double>({.batch = 1, .len = 1030, .dim = 2, .state = 2}), {.name = "parallel"});
}

void expect_error(const S6Shape& shape, std::vector<int32_t> cu, const std::string& part) {
  S6Forward<float> args;
  args.in.cu_seqlens = cu.empty() ? nullptr : cu.data();
  Arena arena(64, Memory{});
  Context context;
  context.arena = &arena;
  try {
    s6_forward(context, shape, args);
    FAIL() << "no error for " << shape.describe();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(S6, BadShapesAreErrorsThatNameTheField) {
  expect_error({.len = -1, .dim = 4, .state = 1}, {}, "s6: len: bad shape: expected >= 0, got -1");
  expect_error({.len = 1, .dim = 0, .state = 1}, {}, "dim");
  expect_error({.len = 1, .dim = 4, .state = 0}, {}, "state");
  expect_error({.len = 1, .dim = 4, .state = 1, .groups = 3}, {}, "groups");
  expect_error({.batch = 2, .len = 1, .dim = 4, .state = 1, .sequences = 1}, {0, 1}, "batch");
  expect_error({.len = 3, .dim = 4, .state = 1, .sequences = 2}, {}, "cu_seqlens");
  expect_error({.len = 3, .dim = 4, .state = 1}, {}, "s6: u");
}

// Planning reads the same arguments as running, so that it finds what is missing.
TEST(S6, BadArgumentsAreErrorsThatNameThem) {
  const auto expect = [](const char* part, const auto& spoil) {
    Call<float> call({.batch = 1, .len = 8, .dim = 4, .state = 2, .gated = true});
    auto args = call.forward();
    spoil(args);
    Arena measuring;
    Context context;
    context.arena = &measuring;
    try {
      s6_forward(context, call.shape, args);
      FAIL() << "no error for " << part;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  expect("s6: A", [](auto& args) { args.in.A = nullptr; });
  expect("s6: z", [](auto& args) { args.in.z.data = nullptr; });
  expect("s6: dt_min", [](auto& args) { args.in.dt_max = -1; });
  expect("s6: B", [](auto& args) { args.in.B.channel_stride = 2; });
  expect("s6: y", [](auto& args) { args.y.data = nullptr; });
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
  try {
    check(real, {-1, 0.5f, 0, 0});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("s6: A"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("entries <= 0"), std::string::npos) << error.what();
  }
}

// Gradients of parameters are written or added to: the bits of a write followed by an add.
template <class T>
void accumulates(const S6Shape& shape, const std::vector<int32_t>& cu) {
  using Acc = accumulate_t<T>;
  const auto fill = [](Call<T>& call) {
    for (auto* a : {&call.dA, &call.dD, &call.dbias}) fill_normal(*a, 7, "accumulate");
  };
  const auto expect_sum = [&](const Call<T>& got, const Call<T>& written, const char* line) {
    Call<T> before(shape, cu);
    fill(before);
    const auto each = [&](const Guarded<Acc>& sum, const Guarded<Acc>& there,
                          const Guarded<Acc>& term, const char* name) {
      for (int64_t i = 0; i < sum.count(); ++i) {
        ASSERT_EQ(sum[i], there[i] + term[i]) << line << " " << name << " " << i;
      }
    };
    each(got.dA, before.dA, written.dA, "dA");
    each(got.dD, before.dD, written.dD, "dD");
    each(got.dbias, before.dbias, written.dbias, "ddt_bias");
    EXPECT_TRUE(same_bits(got.du, written.du)) << line;
    EXPECT_TRUE(same_bits(got.dB, written.dB)) << line;
    EXPECT_TRUE(same_bits(got.dh0, written.dh0)) << line;
  };
  for (const auto& line : s6_lines<T>()) {
    if (!line.accepts(cpu_caps(), shape)) continue;
    Call<T> written(shape, cu), added(shape, cu);
    written.run(2, {.name = line.info.name});
    fill(added);
    added.accumulate = true;
    added.run(2, {.name = line.info.name});
    expect_sum(added, written, line.info.name);
  }
  Call<T> written(shape, cu), added(shape, cu);
  ref::s6_backward(shape, written.backward());
  fill(added);
  added.accumulate = true;
  ref::s6_backward(shape, added.backward());
  expect_sum(added, written, "reference");
}

TEST(S6, AccumulatingEqualsAWriteAndAnAdd) {
  for (const bool complex : {false, true}) {
    for (const auto& target : simd_targets()) {
      force_simd_target(target.bits);
      const S6Shape shape{.batch = 2, .len = 45, .dim = 37, .state = 5, .complex = complex};
      const S6Shape packed{.len = 40, .dim = 6, .state = 3, .sequences = 3, .complex = complex};
      const S6Shape empty{.batch = 0, .len = 5, .dim = 3, .state = 4, .complex = complex};
      for (const S6Shape& each : {shape, packed, empty}) {
        std::vector<int32_t> cu;
        if (each.packed()) cu = {0, 33, 33, 40};
        accumulates<float>(each, cu);
        accumulates<double>(each, cu);
        accumulates<Bf16>(each, cu);
      }
    }
  }
  force_simd_target(0);
}

// The state that enters chunk c of packed sequence q has the index cu[q] / kS6Chunk + q + c, and
// nothing else of `saved` is written.
void saved_states_have_their_places(std::string_view line, bool complex) {
  const std::vector<int32_t> cu = {0, 0, 1, 3, 67, 68, 200, 331, 331};
  const int64_t dim = 5, state = 4;
  Call<float> packed({.len = 331, .dim = dim, .state = state, .sequences = 8, .complex = complex},
                     cu);
  packed.run(2, {.name = line});
  const int64_t row = dim * packed.shape.state_numbers();
  std::vector<bool> owned(static_cast<size_t>(packed.shape.saved_chunks()));
  for (size_t q = 0; q + 1 < cu.size(); ++q) {
    Call<float> alone({.len = cu[q + 1] - cu[q], .dim = dim, .state = state, .complex = complex});
    take_tokens(packed, cu[q], alone);
    copy_from(packed.h0, static_cast<int64_t>(q) * row, alone.h0);
    alone.run(1, {.name = line});
    const int64_t first = cu[q] / kS6Chunk + static_cast<int64_t>(q);
    for (int64_t c = 0; c < alone.shape.saved_chunks(); ++c) {
      EXPECT_EQ(std::memcmp(packed.saved.data() + (first + c) * row, alone.saved.data() + c * row,
                            static_cast<size_t>(row) * sizeof(float)),
                0)
          << line << " " << q << " " << c;
      EXPECT_FALSE(owned[static_cast<size_t>(first + c)]);
      owned[static_cast<size_t>(first + c)] = true;
    }
  }
  for (int64_t i = 0; i < packed.saved.count(); ++i) {
    if (!owned[static_cast<size_t>(i / row)]) {
      EXPECT_TRUE(measure::is_poison(packed.saved[i])) << line << " " << i;
    }
  }
}

TEST(S6, SavedStatesOfPackedSequencesHaveTheirPlaces) {
  for (const char* line : {"sequential", "chunked", "parallel"}) {
    saved_states_have_their_places(line, false);
  }
  saved_states_have_their_places("complex", true);
}

}  // namespace
}  // namespace adder
