// The laws of math.md 11, for every line of the table: in double up to rounding, in single where
// they hold bit for bit.
#include "core/simd_targets.h"
#include "kernels/ref/ssd_ref.h"
#include "kernels/ssd/ssd_call_test.h"

namespace adder::ssd {
namespace {

SsdShape sizes(int64_t len, int64_t heads = 2, int64_t head_dim = 5, int64_t state = 3,
               int64_t groups = 1, int64_t chunk = 16) {
  SsdShape shape;
  shape.len = len;
  shape.heads = heads;
  shape.head_dim = head_dim;
  shape.state = state;
  shape.groups = groups;
  shape.chunk = chunk;
  return shape;
}

template <class Body>
void for_each_line(const SsdShape& shape, const Body& body) {
  const auto names = lines_for<double>(shape);
  ASSERT_FALSE(names.empty());
  for (const std::string& name : names) body(Choice{.name = name});
}

TEST(SsdLaw, ChunkLengthDoesNotMatter) {
  SsdShape shape = sizes(49, 4, 5, 3, 2);
  Call<double> expected(shape);
  expected.run({.name = "recurrent"});
  for (const int64_t chunk : {1, 2, 15, 16, 17, 48, 49, 64, 256}) {
    shape.chunk = chunk;
    for_each_line(shape, [&](const Choice& choice) {
      Call<double> call(shape);
      call.run(choice);
      expect_all_close(call, expected, 1e-12,
                       std::string(choice.name) + " chunk " + std::to_string(chunk));
    });
  }
}

// Lengths around the chunk against the sequential reference.
TEST(SsdLaw, AnyLength) {
  for (const int64_t len : {0, 1, 15, 16, 17, 32, 49, 131, 1050}) {
    const SsdShape shape = sizes(len, 3, 4, 7, 3);
    Call<double> expected(shape);
    ref::ssd_forward(expected.shape, expected.forward());
    ref::ssd_backward(expected.shape, expected.backward());
    for_each_line(shape, [&](const Choice& choice) {
      Call<double> call(shape);
      call.run(choice);
      expect_all_close(call, expected, 1e-12,
                       std::string(choice.name) + " len " + std::to_string(len));
    });
  }
}

TEST(SsdLaw, ForwardIsALoopOfSteps) {
  const SsdShape shape = sizes(37, 3, 17, 9, 3);
  for_each_line(shape, [&](const Choice& choice) {
    Call<double> whole(shape), step(shape);
    whole.run_forward(choice);
    step.hT = step.h0;
    SsdShape one = whole.shape;
    one.len = 1;
    measure::run_planned(1, [&](Context& context) {
      auto args = step.forward();
      args.in.h0 = args.hT;
      for (int64_t t = 0; t < shape.len; ++t) {
        auto now = args;
        for (auto* view : {&now.in.x, &now.in.dt, &now.in.B, &now.in.C, &now.in.z}) {
          view->data += t * view->token_stride;
        }
        now.y.data += t * now.y.token_stride;
        ssd_step(context, one, now);
      }
    });
    expect_close(step.y.widened(), whole.y.widened(), 0, 1e-13, std::string(choice.name) + " y");
    expect_close(step.hT.widened(), whole.hT.widened(), 0, 1e-13, std::string(choice.name) + " hT");
  });
}

// Prefix and suffix with the carried state and its gradient give the whole.
void prefix_and_suffix(int64_t cut, const Choice& choice) {
  const int64_t len = 50;
  Call<double> whole(sizes(len));
  whole.run(choice);
  Call<double> head(sizes(cut)), tail(sizes(len - cut));
  take_tokens(whole, 0, head);
  take_tokens(whole, cut, tail);
  head.h0 = whole.h0;
  tail.ghT = whole.ghT;
  measure::run_planned(1, [&](Context& context) {
    ssd_forward(context, head.shape, head.forward(), choice);
    tail.h0 = head.hT;
    ssd_forward(context, tail.shape, tail.forward(), choice);
    ssd_backward(context, tail.shape, tail.backward(), choice);
    head.ghT = tail.dh0;
    ssd_backward(context, head.shape, head.backward(), choice);
  });
  const auto all = outputs_of(whole), first = outputs_of(head), second = outputs_of(tail);
  for (size_t i = 0; i < all.size(); ++i) {
    const std::string what =
        std::string(choice.name) + " cut " + std::to_string(cut) + " " + all[i].name;
    if (all[i].by_token > 0) {
      expect_close(first[i].values, all[i].values, 0, 1e-12, what);
      expect_close(second[i].values, all[i].values, cut * all[i].by_token, 1e-12, what);
    } else if (all[i].name == "hT" || all[i].name == "dh0") {
      const auto& end = all[i].name == "hT" ? second : first;
      expect_close(end[i].values, all[i].values, 0, 1e-12, what);
    } else {
      std::vector<double> sum = first[i].values;
      for (size_t k = 0; k < sum.size(); ++k) sum[k] += second[i].values[k];
      expect_close(sum, all[i].values, 0, 1e-12, what);
    }
  }
}

TEST(SsdLaw, PrefixPlusSuffixIsTheWhole) {
  for (const int64_t cut : {0, 1, 15, 16, 23, 32, 49, 50}) {
    for_each_line(sizes(50), [&](const Choice& choice) { prefix_and_suffix(cut, choice); });
  }
}

// Boundaries inside chunks, empty sequences, sequences of one token.
TEST(SsdLaw, PackedEqualsSeparate) {
  const std::vector<int32_t> cu = {0, 0, 1, 3, 20, 20, 52, 53, 101, 101};
  SsdShape shape = sizes(cu.back(), 4, 6, 5, 2);
  shape.sequences = static_cast<int64_t>(cu.size()) - 1;
  for_each_line(shape, [&](const Choice& choice) {
    Call<double> packed(shape, cu);
    packed.run(choice, 2);
    const auto all = outputs_of(packed);
    std::vector<std::vector<double>> sums(all.size());
    for (size_t q = 0; q + 1 < cu.size(); ++q) {
      Call<double> alone(sizes(cu[q + 1] - cu[q], 4, 6, 5, 2));
      take_tokens(packed, cu[q], alone);
      const int64_t row = static_cast<int64_t>(q) * shape.state_elements();
      copy_from(packed.h0, row, alone.h0);
      copy_from(packed.ghT, row, alone.ghT);
      alone.run(choice);
      const auto part = outputs_of(alone);
      for (size_t i = 0; i < all.size(); ++i) {
        const std::string what =
            std::string(choice.name) + " sequence " + std::to_string(q) + " " + all[i].name;
        const bool by_row = all[i].name == "hT" || all[i].name == "dh0";
        if (by_row || all[i].by_token > 0) {
          expect_close(part[i].values, all[i].values, by_row ? row : cu[q] * all[i].by_token, 1e-12,
                       what);
        } else {
          sums[i].resize(part[i].values.size());
          for (size_t k = 0; k < sums[i].size(); ++k) sums[i][k] += part[i].values[k];
        }
      }
    }
    for (size_t i = 0; i < all.size(); ++i) {
      if (!sums[i].empty()) expect_close(sums[i], all[i].values, 0, 1e-12, all[i].name);
    }
  });
}

TEST(SsdLaw, BatchMatesDoNotMatter) {
  SsdShape shape = sizes(37, 2, 9, 8);
  shape.batch = 3;
  for (const std::string& name : lines_for<float>(shape)) {
    Call<float> three(shape);
    three.run({.name = name});
    const auto all = outputs_of(three);
    for (int64_t b = 0; b < 3; ++b) {
      Call<float> alone(sizes(37, 2, 9, 8));
      take_tokens(three, b * 37, alone);
      copy_from(three.h0, b * shape.state_elements(), alone.h0);
      copy_from(three.ghT, b * shape.state_elements(), alone.ghT);
      alone.run({.name = name});
      const auto part = outputs_of(alone);
      for (size_t i = 0; i < all.size(); ++i) {
        if (all[i].by_token == 0) continue;
        const auto* begin = all[i].values.data() + b * 37 * all[i].by_token;
        EXPECT_TRUE(std::equal(part[i].values.begin(), part[i].values.end(), begin))
            << name << " " << b << " " << all[i].name;
      }
    }
  }
}

// G groups = the rows of B and C repeated for each head.
TEST(SsdLaw, GroupsEqualRepeatedRows) {
  const int64_t len = 35, heads = 6, state = 5, groups = 2;
  for_each_line(sizes(len, heads, 4, state, groups), [&](const Choice& choice) {
    Call<double> grouped(sizes(len, heads, 4, state, groups));
    Call<double> repeated(sizes(len, heads, 4, state, heads));
    take_tokens(grouped, 0, grouped);
    repeated.x = grouped.x, repeated.z = grouped.z, repeated.gy = grouped.gy;
    repeated.dt = grouped.dt, repeated.h0 = grouped.h0, repeated.ghT = grouped.ghT;
    repeated.A = grouped.A, repeated.D = grouped.D, repeated.bias = grouped.bias;
    const auto row = [&](int64_t t, int64_t head) {
      return (t * groups + head / (heads / groups)) * state;
    };
    for (int64_t i = 0; i < len * heads; ++i) {
      const int64_t from = row(i / heads, i % heads);
      std::copy_n(grouped.B.data() + from, state, repeated.B.data() + i * state);
      std::copy_n(grouped.C.data() + from, state, repeated.C.data() + i * state);
    }
    grouped.run(choice);
    repeated.run(choice);
    std::vector<double> dB(static_cast<size_t>(grouped.dB.count())), dC(dB.size());
    for (int64_t i = 0; i < len * heads * state; ++i) {
      const int64_t head = i / state;
      const auto to = static_cast<size_t>(row(head / heads, head % heads) + i % state);
      dB[to] += repeated.dB[i];
      dC[to] += repeated.dC[i];
    }
    const std::string name(choice.name);
    expect_close(dB, grouped.dB.widened(), 0, 1e-12, name + " dB");
    expect_close(dC, grouped.dC.widened(), 0, 1e-12, name + " dC");
    expect_close(repeated.y.widened(), grouped.y.widened(), 0, 1e-12, name + " y");
    expect_close(repeated.dx.widened(), grouped.dx.widened(), 0, 1e-12, name + " dx");
    expect_close(repeated.dA.widened(), grouped.dA.widened(), 0, 1e-12, name + " dA");
  });
}

TEST(SsdLaw, DPerChannelEqualsDPerHead) {
  for_each_line(sizes(21, 3, 6, 4), [&](const Choice& choice) {
    SsdShape wide = sizes(21, 3, 6, 4);
    wide.d_per_channel = true;
    Call<double> by_head(sizes(21, 3, 6, 4)), by_channel(wide);
    take_tokens(by_head, 0, by_channel);
    by_channel.D = Guarded<double>(18);
    for (int64_t i = 0; i < 18; ++i) by_channel.D[i] = by_head.D[i / 6];
    by_head.run(choice);
    by_channel.run(choice);
    EXPECT_TRUE(same_bits(by_head.y, by_channel.y)) << choice.name;
    EXPECT_TRUE(same_bits(by_head.dx, by_channel.dx)) << choice.name;
    std::vector<double> sum(3);
    for (int64_t i = 0; i < 18; ++i) sum[static_cast<size_t>(i / 6)] += by_channel.dD[i];
    expect_close(sum, by_head.dD.widened(), 0, 1e-13, std::string(choice.name) + " dD");
  });
}

// A padded token has delta = 0 (math.md 0.4): the state passes through, nothing else changes.
TEST(SsdLaw, PaddingWithZeroDeltaChangesNothing) {
  SsdShape shape = sizes(41, 2, 7, 6), longer = sizes(60, 2, 7, 6);
  shape.softplus = longer.softplus = false;
  for_each_line(shape, [&](const Choice& choice) {
    Call<double> plain(shape), padded(longer);
    for (int64_t h = 0; h < 2; ++h) padded.bias[h] = 0;
    for (int64_t i = 0; i < padded.dt.count(); ++i) padded.dt[i] = std::exp(padded.dt[i]);
    take_tokens(padded, 0, plain);
    plain.h0 = padded.h0;
    plain.ghT = padded.ghT;
    for (int64_t i = 41 * 2; i < 60 * 2; ++i) padded.dt[i] = 0;
    for (int64_t i = 41 * 14; i < 60 * 14; ++i) padded.gy[i] = 0;
    plain.run(choice);
    padded.run(choice);
    const auto expected = outputs_of(plain), got = outputs_of(padded);
    for (size_t i = 0; i < expected.size(); ++i) {
      if (expected[i].name == "ddt_bias") continue;  // a bias would thaw the padding
      expect_close(expected[i].values, got[i].values, 0, 1e-12,
                   std::string(choice.name) + " " + expected[i].name);
    }
  });
}

TEST(SsdLaw, EmptyBatchesAndRowsHaveZeroGradients) {
  for (const auto& [batch, len] : {std::pair<int64_t, int64_t>{0, 5}, {2, 0}}) {
    SsdShape shape = sizes(len, 3, 4, 5);
    shape.batch = batch;
    for (const std::string& name : lines_for<float>(shape)) {
      Call<float> call(shape);
      call.run({.name = name});
      EXPECT_TRUE(same_bits(call.hT, call.h0)) << name;
      EXPECT_TRUE(same_bits(call.dh0, call.ghT)) << name;
      for (int64_t i = 0; i < 3; ++i) {
        EXPECT_EQ(call.dA[i], 0) << name;
        EXPECT_EQ(call.dbias[i], 0) << name;
        EXPECT_EQ(call.dD[i], 0) << name;
      }
    }
  }
}

// delta A -> -inf forgets the state, delta A -> 0 keeps it; dt raw = +-100 (math.md 11).
template <class T>
void extremes_stay_finite() {
  SsdShape shape = sizes(67, 8, 9, 16, 2, 32);
  for (const std::string& name : lines_for<T>(shape)) {
    Call<T> call(shape);
    for (int64_t i = 0; i < call.dt.count(); ++i) {
      call.dt[i] = measure::from_double<T>(i % 3 == 0 ? -100 : 100);
    }
    for (int64_t i = 0; i < call.A.count(); ++i) {
      const double rates[] = {-0.0, -1e4, -1e30, -1e-30};
      call.A[i] = static_cast<accumulate_t<T>>(rates[i % 4]);
    }
    call.run({.name = name});
    for (const auto& output : outputs_of(call)) {
      for (const double value : output.values) {
        ASSERT_TRUE(std::isfinite(value)) << name << " " << output.name;
      }
    }
  }
}

TEST(SsdLaw, ExtremesStayFinite) {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    extremes_stay_finite<float>();
    extremes_stay_finite<double>();
  }
  force_simd_target(0);
}

}  // namespace
}  // namespace adder::ssd
