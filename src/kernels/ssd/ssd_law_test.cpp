// The laws of math.md 11 and the gradients, for every line of the table: in double up to rounding,
// in single where they hold bit for bit.
#include <algorithm>
#include <cmath>

#include "kernels/ssd/ssd_call_test.h"

namespace adder::ssd {
namespace {

using measure::expect_close;
using measure::Guarded;

std::string named(const Choice& choice, const std::string& what) {
  return std::string(choice.name) + " " + what;
}

TEST(SsdLaw, ChunkLengthDoesNotMatter) {
  SsdShape shape = sizes(49, 4, 5, 3, 2);
  auto expected = dense<double>(shape);
  expected.run_both(1, {.name = "recurrent"});
  for (const int64_t chunk : {1, 2, 15, 16, 17, 48, 49, 64, 256}) {
    shape.chunk = chunk;
    for_each_line<double>(shape, [&](const Choice& choice) {
      auto call = dense<double>(shape);
      call.run_both(1, choice);
      expect_all_close(call, expected, 1e-12, named(choice, "chunk " + std::to_string(chunk)));
    });
  }
}

// Lengths around the chunk against the sequential reference.
TEST(SsdLaw, AnyLength) {
  for (const int64_t len : {0, 1, 15, 16, 17, 32, 49, 131, 1050}) {
    const SsdShape shape = sizes(len, 3, 4, 7, 3);
    auto expected = dense<double>(shape);
    for (const auto direction : {kForward, kBackward}) {
      expected.reference(direction, false, nullptr);
    }
    for_each_line<double>(shape, [&](const Choice& choice) {
      auto call = dense<double>(shape);
      call.run_both(1, choice);
      expect_all_close(call, expected, 1e-12, named(choice, "len " + std::to_string(len)));
    });
  }
}

TEST(SsdLaw, ForwardIsALoopOfSteps) {
  const SsdShape shape = sizes(37, 3, 17, 9, 3);
  for_each_line<double>(shape, [&](const Choice& choice) {
    measure::expect_forward_equals_steps<SsdCall<double>>(
        SsdCase::dense(shape), choice,
        [](Context& context, const SsdShape& one, const SsdForward<double>& args) {
          ssd_step(context, one, args);
        },
        1e-13);
  });
}

constexpr measure::LawLimits kRounding{.output = 1e-12, .gradient = 1e-12, .sum = 1e-12};

TEST(SsdLaw, PrefixPlusSuffixIsTheWhole) {
  for (const int64_t cut : {0, 1, 15, 16, 23, 32, 49, 50}) {
    for_each_line<double>(sizes(50), [&](const Choice& choice) {
      measure::expect_prefix_and_suffix<SsdCall<double>>(SsdCase::dense(sizes(50)), cut, choice,
                                                         kRounding);
    });
  }
}

// Boundaries inside chunks, empty sequences, sequences of one token.
TEST(SsdLaw, PackedEqualsSeparate) {
  SsdShape shape = sizes(101, 4, 6, 5, 2);
  shape.sequences = 9;
  const auto given = SsdCase::dense(shape, {0, 0, 1, 3, 20, 20, 52, 53, 101, 101});
  for_each_line<double>(shape, [&](const Choice& choice) {
    measure::expect_packed_equals_separate<SsdCall<double>>(given, 2, choice, kRounding);
  });
}

TEST(SsdLaw, BatchMatesDoNotMatter) {
  SsdShape shape = sizes(37, 2, 9, 8);
  shape.batch = 3;
  for_each_line<float>(shape, [&](const Choice& choice) {
    measure::expect_batch_mates_do_not_matter<SsdCall<float>>(SsdCase::dense(shape), choice);
  });
}

// G groups = the rows of B and C repeated for each head.
TEST(SsdLaw, GroupsEqualRepeatedRows) {
  const int64_t len = 35, heads = 6, state = 5, groups = 2;
  const SsdShape shape = sizes(len, heads, 4, state, groups);
  for_each_line<double>(shape, [&](const Choice& choice) {
    auto grouped = dense<double>(shape),
         repeated = dense<double>(sizes(len, heads, 4, state, heads));
    const auto row = [&](int64_t t, int64_t head) {
      return (t * groups + head / (heads / groups)) * state;
    };
    for (int64_t i = 0; i < len * heads; ++i) {
      const int64_t from = row(i / heads, i % heads);
      std::copy_n(grouped.B.data() + from, state, repeated.B.data() + i * state);
      std::copy_n(grouped.C.data() + from, state, repeated.C.data() + i * state);
    }
    grouped.run_both(1, choice);
    repeated.run_both(1, choice);
    Guarded<double> dB(grouped.dB.count()), dC(dB.count());
    dB.zero(), dC.zero();
    for (int64_t i = 0; i < len * heads * state; ++i) {
      const int64_t head = i / state;
      const int64_t to = row(head / heads, head % heads) + i % state;
      dB[to] += repeated.dB[i];
      dC[to] += repeated.dC[i];
    }
    expect_close(dB, grouped.dB, 0, 1e-12, named(choice, "dB"));
    expect_close(dC, grouped.dC, 0, 1e-12, named(choice, "dC"));
    expect_close(repeated.y, grouped.y, 0, 1e-12, named(choice, "y"));
    expect_close(repeated.dx, grouped.dx, 0, 1e-12, named(choice, "dx"));
    expect_close(repeated.dA, grouped.dA, 0, 1e-12, named(choice, "dA"));
  });
}

TEST(SsdLaw, DPerChannelEqualsDPerHead) {
  SsdShape wide = sizes(21, 3, 6, 4);
  wide.d_per_channel = true;
  for_each_line<double>(wide, [&](const Choice& choice) {
    auto by_head = dense<double>(sizes(21, 3, 6, 4)), by_channel = dense<double>(wide);
    for (int64_t i = 0; i < 18; ++i) by_channel.D[i] = by_head.D[i / 6];
    by_head.run_both(1, choice);
    by_channel.run_both(1, choice);
    EXPECT_TRUE(by_head.y.same_bits(by_channel.y)) << choice.name;
    EXPECT_TRUE(by_head.dx.same_bits(by_channel.dx)) << choice.name;
    Guarded<double> sum(3);
    sum.zero();
    for (int64_t i = 0; i < 18; ++i) sum[i / 6] += by_channel.dD[i];
    expect_close(sum, by_head.dD, 0, 1e-13, named(choice, "dD"));
  });
}

// A padded token has delta = 0 (math.md 0.4): the state passes through, nothing else changes.
TEST(SsdLaw, PaddingWithZeroDeltaChangesNothing) {
  SsdShape shape = sizes(41, 2, 7, 6), longer = sizes(60, 2, 7, 6);
  shape.softplus = longer.softplus = false;
  for_each_line<double>(shape, [&](const Choice& choice) {
    auto plain = dense<double>(shape), padded = dense<double>(longer);
    padded.dt_bias.zero();
    for (double& dt : padded.dt.span()) dt = std::exp(dt);
    take_part(padded, 0, 0, plain);
    for (int64_t i = 41 * 2; i < 60 * 2; ++i) padded.dt[i] = 0;
    for (int64_t i = 41 * 14; i < 60 * 14; ++i) padded.gy[i] = 0;
    plain.run_both(1, choice);
    padded.run_both(1, choice);
    for (const measure::Listed& each : plain.arrays()) {
      if (!is_result(each) || each.array == &plain.ddt_bias) continue;  // a bias would thaw padding
      expect_close(*each.array, padded.array(each.name), 0, 1e-12, named(choice, each.name));
    }
  });
}

TEST(SsdLaw, EmptyBatchesAndRowsHaveZeroGradients) {
  for (const auto& [batch, len] : {std::pair<int64_t, int64_t>{0, 5}, {2, 0}}) {
    SsdShape shape = sizes(len, 3, 4, 5);
    shape.batch = batch;
    for_each_line<float>(shape, [&](const Choice& choice) {
      auto call = dense<float>(shape);
      call.run_both(1, choice);
      EXPECT_TRUE(call.hT.same_bits(call.h0)) << choice.name;
      EXPECT_TRUE(call.dh0.same_bits(call.ghT)) << choice.name;
      for (int64_t i = 0; i < 3; ++i) {
        EXPECT_EQ(call.dA[i], 0) << choice.name;
        EXPECT_EQ(call.ddt_bias[i], 0) << choice.name;
        EXPECT_EQ(call.dD[i], 0) << choice.name;
      }
    });
  }
}

// delta A -> -inf forgets the state, delta A -> 0 keeps it; dt raw = +-100 (math.md 11).
template <class T>
void extremes_stay_finite() {
  const SsdShape shape = sizes(67, 8, 9, 16, 2, 32);
  for_each_line<T>(shape, [&](const Choice& choice) {
    auto call = dense<T>(shape);
    for (int64_t i = 0; i < call.dt.count(); ++i) call.dt.set(i, i % 3 == 0 ? -100 : 100);
    for (int64_t i = 0; i < call.A.count(); ++i) {
      const double rates[] = {-0.0, -1e4, -1e30, -1e-30};
      call.A.set(i, rates[i % 4]);
    }
    call.run_both(1, choice);
    expect_all_finite(call, std::string(choice.name));
  });
}

TEST(SsdLaw, ExtremesStayFinite) {
  measure::on_every_target([] {
    extremes_stay_finite<float>();
    extremes_stay_finite<double>();
  });
}

void check_every_line(const SsdCall<double>& given) {
  for_each_line<double>(given.given.shape, [&](const Choice& choice) {
    SsdCall<double> call = given;
    expect_gradients(call, given.given.describe(), choice);
  });
}

TEST(SsdGradient, SeveralChunks) {
  SsdShape shape = sizes(35, 4, 3, 5, 2);
  shape.batch = 2;
  check_every_line(dense<double>(shape));
}

TEST(SsdGradient, WiderThanAWord) { check_every_line(dense<double>(sizes(17, 2, 19, 33))); }

TEST(SsdGradient, DPerChannelAndOneGroupAHead) {
  SsdShape shape = sizes(20, 3, 4, 2, 3);
  shape.d_per_channel = true;
  check_every_line(dense<double>(shape));
}

TEST(SsdGradient, Packed) {
  SsdShape shape = sizes(40, 2, 3, 2);
  shape.sequences = 5;
  check_every_line(dense<double>(shape, {0, 1, 1, 19, 36, 40}));
}

TEST(SsdGradient, Limits) {
  auto call = dense<double>(sizes(20, 2, 5, 4));
  call.given.dt_min = 0.1;
  call.given.dt_max = 1;
  check_every_line(call);
}

TEST(SsdGradient, WithoutSoftplus) {
  SsdShape shape = sizes(20, 2, 5, 4);
  shape.softplus = false;
  auto call = dense<double>(shape);
  for (double& dt : call.dt.span()) dt = std::exp(dt);
  for (double& bias : call.dt_bias.span()) bias = 0.1;
  check_every_line(call);
}

// The check can go red: one gradient moved by a thousandth of itself.
TEST(SsdGradient, APlantedDefectIsSeen) {
  auto call = dense<double>(sizes(9, 2, 3, 4));
  const auto report =
      measure::compare_gradients(call, {.name = "recurrent"}, [&] { call.dA[1] *= 1.001; });
  EXPECT_FALSE(report.passed()) << report.worst;
}

}  // namespace
}  // namespace adder::ssd
