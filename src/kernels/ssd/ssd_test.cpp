#include "kernels/ssd/ssd.h"

#include "core/simd_targets.h"
#include "kernels/ref/ssd_ref.h"
#include "kernels/ssd/ssd_call_test.h"
#include "measure/variant.h"

namespace adder::ssd {
namespace {

TEST(Ssd, EveryLineMatchesTheReferenceOnEveryTarget) {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    // Anew: which lines accept anything depends on the target.
    const auto variants = measure::ssd_variants(measure::Purpose::test);
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
    EXPECT_GT(run, 0);
  }
  force_simd_target(0);
}

SsdShape small() {
  SsdShape shape;
  shape.batch = 2;
  shape.len = 70;
  shape.heads = 4;
  shape.head_dim = 20;
  shape.state = 9;
  shape.groups = 2;
  shape.chunk = 32;
  return shape;
}

TEST(Ssd, APlantedDefectTurnsTheComparisonRed) {
  Call<float> call(small());
  call.run({.name = "recurrent"});
  const auto whole = call.y.converted<double>();
  measure::Comparison clean;
  measure::compare_output(clean, "y", call.y, whole, call.y, whole);
  EXPECT_TRUE(clean.passed()) << clean.describe();
  call.y[777] += 1e-3f;
  measure::Comparison red;
  measure::compare_output(red, "y", call.y, whole, whole.converted<float>(), whole);
  EXPECT_FALSE(red.passed()) << red.describe();
  // Judged as the sum of products in bf16 it would have passed: the type matters.
  measure::Comparison coarse;
  measure::compare_output(coarse, "y", call.y, whole, whole.converted<float>(), whole, Dtype::bf16);
  EXPECT_LT(coarse.worst, red.worst / 1000) << coarse.describe();
}

template <class T>
void same_bits_for_any_thread_count() {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    for (const std::string& name : lines_for<T>(small())) {
      Call<T> one(small()), two(small());
      one.run({.name = name}, 1);
      two.run({.name = name}, 2);
      expect_same_bits(one, two, target.name + " " + name);
      EXPECT_TRUE(same_bits(one.saved, two.saved)) << name;
    }
  }
  force_simd_target(0);
}

TEST(Ssd, SameBitsForAnyThreadCount) {
  same_bits_for_any_thread_count<float>();
  same_bits_for_any_thread_count<Bf16>();
}

// exact_class 1: training forward = loop of steps = any split, bit for bit.
template <class T>
void exact_lines_equal_their_steps() {
  int checked = 0;
  for (const auto& line : ssd_lines<T>()) {
    if (line.info.exact_class == 0) continue;
    const Choice choice{.name = {}, .exact_class = line.info.exact_class};
    SsdShape shape = small();
    shape.batch = 1;
    Call<T> whole(shape), step(shape);
    whole.run_forward({.name = line.info.name});
    step.hT = step.h0;
    SsdShape one = step.shape;
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
        ssd_step(context, one, now, choice);
      }
    });
    EXPECT_TRUE(same_bits(whole.y, step.y)) << line.info.name;
    EXPECT_TRUE(same_bits(whole.hT, step.hT)) << line.info.name;
    ++checked;
  }
  EXPECT_GT(checked, 0);
}

TEST(Ssd, ExactLinesEqualTheirStepsBitForBit) {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    exact_lines_equal_their_steps<float>();
    exact_lines_equal_their_steps<Bf16>();
  }
  force_simd_target(0);
}

// docs/duality.md shows the lengths at which one form becomes faster than another.
template <class T>
std::string picked(int64_t batch, int64_t len, int64_t state, Direction direction) {
  SsdShape shape;
  shape.batch = batch;
  shape.len = len;
  shape.heads = 24;
  shape.head_dim = 64;
  shape.state = state;
  return pick_line("ssd", ssd_lines<T>(), cpu_caps(), shape, direction).info.name;
}

TEST(Ssd, DispatchTakesTheRecurrenceForOneTokenAndChunksForMany) {
  for (const int64_t state : {16, 64, 128}) {
    for (const int64_t batch : {1, 8, 64}) {
      EXPECT_EQ(picked<float>(batch, 1, state, Direction::forward), "recurrent") << state;
      EXPECT_EQ(picked<Bf16>(batch, 1, state, Direction::forward), "recurrent") << state;
      for (const auto direction : {Direction::forward, Direction::backward}) {
        EXPECT_EQ(picked<float>(batch, 512, state, direction), "chunked") << batch << " " << state;
        EXPECT_NE(picked<float>(batch, 4, state, direction), "quadratic") << batch << " " << state;
      }
    }
  }
}

void expect_error(const SsdShape& shape, std::vector<int32_t> cu, const std::string& part) {
  SsdForward<float> args;
  args.in.cu_seqlens = cu.empty() ? nullptr : cu.data();
  Arena arena(64, Memory{});
  Context context;
  context.arena = &arena;
  try {
    ssd_forward(context, shape, args);
    FAIL() << "no error for " << shape.describe();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Ssd, BadShapesAreErrorsThatNameTheField) {
  const SsdShape good = small();
  const auto with = [&](auto member, int64_t value) {
    SsdShape shape = good;
    shape.*member = value;
    return shape;
  };
  expect_error(with(&SsdShape::len, -1), {}, "ssd: len: bad shape: expected >= 0, got -1");
  expect_error(with(&SsdShape::batch, -1), {}, "batch");
  expect_error(with(&SsdShape::heads, 0), {}, "heads");
  expect_error(with(&SsdShape::head_dim, 0), {}, "head_dim");
  expect_error(with(&SsdShape::state, 0), {}, "state");
  expect_error(with(&SsdShape::chunk, 0), {}, "chunk");
  expect_error(with(&SsdShape::groups, 3), {}, "groups");
  expect_error(with(&SsdShape::sequences, 1), {0, 70}, "batch");
  SsdShape packed = with(&SsdShape::batch, 1);
  packed.sequences = 2;
  packed.len = 3;
  expect_error(packed, {}, "cu_seqlens");
  expect_error(good, {}, "ssd: x");
}

// Planning reads the same arguments as running, so that it finds what is missing.
TEST(Ssd, BadArgumentsAreErrorsThatNameThem) {
  const auto expect = [](const char* part, const auto& spoil) {
    Call<float> call(small());
    auto args = call.forward();
    spoil(args);
    Arena measuring;
    Context context;
    context.arena = &measuring;
    try {
      ssd_forward(context, call.shape, args);
      FAIL() << "no error for " << part;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  expect("ssd: A", [](auto& args) { args.in.A = nullptr; });
  expect("ssd: dt_min", [](auto& args) { args.in.dt_max = -1; });
  expect("ssd: B", [](auto& args) { args.in.B.channel_stride = 2; });
  expect("ssd: x", [](auto& args) { args.in.x.channel_stride = 2; });
  expect("ssd: z", [](auto& args) { args.in.z.data = nullptr; });
  expect("ssd: y", [](auto& args) { args.y.data = nullptr; });
}

TEST(Ssd, DecayRatesAreCheckedOnTheHost) {
  const auto check = [](std::vector<float> A) { check_decay(small(), std::span<const float>(A)); };
  check({-1, -0.0f, 0, NAN});
  try {
    check({-1, 0.5f, 0, 0});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("ssd: A"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("entries <= 0"), std::string::npos) << error.what();
  }
}

TEST(Ssd, BackwardNamesWhatIsMissing) {
  Call<float> call(small());
  const auto expect = [&](const char* part, const auto& spoil) {
    auto args = call.backward();
    spoil(args);
    Arena arena(64, Memory{});
    Context context;
    context.arena = &arena;
    try {
      ssd_backward(context, call.shape, args);
      FAIL() << "no error for " << part;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  expect("ssd: gy", [](auto& args) { args.gy.data = nullptr; });
  expect("ssd: saved", [](auto& args) { args.saved = nullptr; });
  expect("ssd: dC", [](auto& args) { args.dC.channel_stride = 2; });
}

TEST(Ssd, AStepIsOneTokenNotPacked) {
  Call<float> call(small());
  Arena arena(64, Memory{});
  Context context;
  context.arena = &arena;
  EXPECT_THROW(ssd_step(context, call.shape, call.forward()), Error);
}

// Gradients of parameters are written or added to: the bits of a write followed by an add.
template <class T>
void expect_accumulated(const Call<T>& got, const Call<T>& before, const Call<T>& written,
                        const std::string& line) {
  using Acc = accumulate_t<T>;
  const auto each = [&](const Guarded<Acc>& sum, const Guarded<Acc>& there,
                        const Guarded<Acc>& term, const char* name) {
    for (int64_t i = 0; i < sum.count(); ++i) {
      ASSERT_EQ(sum[i], there[i] + term[i]) << line << " " << name << " " << i;
    }
  };
  each(got.dA, before.dA, written.dA, "dA");
  each(got.dD, before.dD, written.dD, "dD");
  each(got.dbias, before.dbias, written.dbias, "ddt_bias");
  EXPECT_TRUE(same_bits(got.dx, written.dx)) << line;
  EXPECT_TRUE(same_bits(got.dB, written.dB)) << line;
  EXPECT_TRUE(same_bits(got.dh0, written.dh0)) << line;
}

template <class T>
void accumulates(const SsdShape& shape, const std::vector<int32_t>& cu) {
  const auto pair = [&](const std::string& line, const auto& run) {
    Call<T> before(shape, cu), written(shape, cu), added(shape, cu);
    for (auto* call : {&before, &added}) {
      for (auto* a : {&call->dA, &call->dD, &call->dbias}) fill_normal(*a, 7, "accumulate");
    }
    added.accumulate = true;
    run(written);
    run(added);
    expect_accumulated(added, before, written, line);
  };
  for (const std::string& name : lines_for<T>(shape)) {
    for (const int threads : {1, 2}) {
      pair(name, [&](Call<T>& call) { call.run({.name = name}, threads); });
    }
  }
  pair("reference", [](Call<T>& call) { ref::ssd_backward(call.shape, call.backward()); });
}

TEST(Ssd, AccumulatingEqualsAWriteAndAnAdd) {
  SsdShape shape = small(), by_channel = small(), packed = small(), empty = small();
  by_channel.d_per_channel = true;
  packed.batch = 1;
  packed.sequences = 3;
  empty.batch = 0;
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    for (const SsdShape& each : {shape, by_channel, packed, empty}) {
      std::vector<int32_t> cu;
      if (each.packed()) cu = {0, 33, 33, 70};
      accumulates<float>(each, cu);
      accumulates<double>(each, cu);
      accumulates<Bf16>(each, cu);
    }
  }
  force_simd_target(0);
}

// The state that enters chunk c of packed sequence q has the index cu[q] / chunk + q + c, and
// nothing else of `saved` is written.
TEST(Ssd, SavedStatesOfPackedSequencesHaveTheirPlaces) {
  const std::vector<int32_t> cu = {0, 0, 1, 3, 67, 68, 70, 70};
  SsdShape shape = small();
  shape.batch = 1;
  shape.sequences = static_cast<int64_t>(cu.size()) - 1;
  const int64_t row = shape.state_elements();
  for (const std::string& name : lines_for<float>(shape)) {
    Call<float> packed(shape, cu);
    packed.run({.name = name}, 2);
    std::vector<bool> owned(static_cast<size_t>(shape.saved_chunks()));
    for (size_t q = 0; q + 1 < cu.size(); ++q) {
      SsdShape one = small();
      one.batch = 1;
      one.len = cu[q + 1] - cu[q];
      Call<float> alone(one);
      take_tokens(packed, cu[q], alone);
      copy_from(packed.h0, static_cast<int64_t>(q) * row, alone.h0);
      alone.run({.name = name});
      const int64_t first = cu[q] / shape.chunk + static_cast<int64_t>(q);
      for (int64_t c = 0; c < one.saved_chunks(); ++c) {
        for (int64_t i = 0; i < row; ++i) {
          ASSERT_NEAR(packed.saved[(first + c) * row + i], alone.saved[c * row + i], 1e-5)
              << name << " " << q << " " << c;
        }
        EXPECT_FALSE(owned[static_cast<size_t>(first + c)]);
        owned[static_cast<size_t>(first + c)] = true;
      }
    }
    for (int64_t i = 0; i < packed.saved.count(); ++i) {
      if (owned[static_cast<size_t>(i / row)]) continue;
      EXPECT_TRUE(measure::is_poison(packed.saved[i])) << name << " " << i;
    }
  }
}

}  // namespace
}  // namespace adder::ssd
