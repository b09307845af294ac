#include "kernels/ssd/ssd.h"

#include "core/simd_targets.h"
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

// Where the forms cross: docs/duality.md.
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
  expect_error(packed, {0, 2, 1}, "cu_seqlens");
  expect_error(packed, {0, 2, 4}, "cu_seqlens");
  expect_error(packed, {}, "cu_seqlens");
  expect_error(good, {}, "ssd: x");
}

TEST(Ssd, BadArgumentsAreErrorsThatNameThem) {
  const auto expect = [](const char* part, const auto& spoil) {
    Call<float> call(small());
    measure::run_planned(1, [&](Context& context) {
      auto args = call.forward();
      spoil(call, args);
      if (context.arena->measuring()) return ssd_forward(context, call.shape, args);
      try {
        ssd_forward(context, call.shape, args);
        FAIL() << "no error for " << part;
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
      }
    });
  };
  expect("ssd: A", [](auto& call, auto&) { call.A[3] = 0.5f; });
  expect("ssd: dt_min", [](auto&, auto& args) { args.in.dt_max = -1; });
  expect("ssd: B", [](auto&, auto& args) { args.in.B.channel_stride = 2; });
  expect("ssd: x", [](auto&, auto& args) { args.in.x.channel_stride = 2; });
  expect("ssd: z", [](auto&, auto& args) { args.in.z.data = nullptr; });
  expect("ssd: y", [](auto&, auto& args) { args.y.data = nullptr; });
  std::vector<int32_t> order(70, 0);
  order[69] = 70;
  expect("ssd: order", [&](auto&, auto& args) { args.in.order = order.data(); });
  const int32_t index[] = {0, -1};
  expect("ssd: state_index", [&](auto&, auto& args) { args.in.state_index = index; });
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

}  // namespace
}  // namespace adder::ssd
