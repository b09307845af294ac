#include "kernels/ssd/ssd.h"

#include <cmath>

#include "kernels/ssd/ssd_call_test.h"

namespace adder::ssd {
namespace {

SsdShape small() {
  SsdShape shape = sizes(70, 4, 20, 9, 2, 32);
  shape.batch = 2;
  return shape;
}

TEST(Ssd, APlantedDefectTurnsTheComparisonRed) {
  auto call = dense<float>(small());
  call.run_both(1, {.name = "recurrent"});
  // Judged as the sum of products in bf16 it would have passed: the type matters.
  const auto [fine, coarse] = expect_defect_is_seen(call, "y", 777, 1e-3);
  EXPECT_LT(coarse, fine / 1000);
}

template <class T>
void same_bits_for_any_thread_count() {
  measure::on_every_target([] {
    for_each_line<T>(small(), [](const Choice& choice) {
      auto one = dense<T>(small()), two = dense<T>(small());
      one.run_both(1, choice);
      two.run_both(2, choice);
      expect_same_bits(one, two, std::string(choice.name));
    });
  });
}

TEST(Ssd, SameBitsForAnyThreadCount) {
  same_bits_for_any_thread_count<float>();
  same_bits_for_any_thread_count<Bf16>();
}

// exact_class 1: training forward = loop of steps = any split, bit for bit.
template <class T>
void exact_lines_equal_their_steps() {
  int checked = 0;
  SsdShape shape = small();
  shape.batch = 1;
  for (const auto& line : ssd_lines<T>()) {
    if (line.info.exact_class == 0) continue;
    const Choice choice{.name = {}, .exact_class = line.info.exact_class};
    measure::expect_forward_equals_steps<SsdCall<T>>(
        SsdCase::dense(shape), {.name = line.info.name},
        [&](Context& context, const SsdShape& one, const SsdForward<T>& args) {
          ssd_step(context, one, args, choice);
        },
        0);
    ++checked;
  }
  EXPECT_GT(checked, 0);
}

TEST(Ssd, ExactLinesEqualTheirStepsBitForBit) {
  measure::on_every_target([] {
    exact_lines_equal_their_steps<float>();
    exact_lines_equal_their_steps<Bf16>();
  });
}

// docs/duality.md shows the lengths at which one form becomes faster than another.
template <class T>
std::string picked(int64_t batch, int64_t len, int64_t state, Direction direction) {
  SsdShape shape = sizes(len, 24, 64, state, 1, 64);
  shape.batch = batch;
  return pick_line("ssd", ssd_lines<T>(), cpu_caps(), shape, direction).info.name;
}

TEST(Ssd, DispatchTakesTheRecurrenceForOneTokenAndChunksForMany) {
  for (const int64_t state : {16, 64, 128}) {
    for (const int64_t batch : {1, 8, 64}) {
      EXPECT_EQ(picked<float>(batch, 1, state, kForward), "recurrent") << state;
      EXPECT_EQ(picked<Bf16>(batch, 1, state, kForward), "recurrent") << state;
      for (const auto direction : {kForward, kBackward}) {
        EXPECT_EQ(picked<float>(batch, 512, state, direction), "chunked") << batch << " " << state;
        EXPECT_NE(picked<float>(batch, 4, state, direction), "quadratic") << batch << " " << state;
      }
    }
  }
}

TEST(Ssd, TheDoorNamesTheField) {
  const auto shaped = [](const SsdShape& shape) {
    return measure::error_of(
        [&](Context& context) { ssd_forward(context, shape, SsdForward<float>{}); });
  };
  const auto with = [&](auto member, int64_t value) {
    SsdShape shape = small();
    shape.*member = value;
    return shaped(shape);
  };
  const auto names = [](const std::string& error, const std::string& field) {
    EXPECT_EQ(error.find("ssd: " + field + ": bad shape"), 0u) << error;
  };
  EXPECT_EQ(with(&SsdShape::len, -1), "ssd: len: bad shape: expected >= 0, got -1");
  names(with(&SsdShape::batch, -1), "batch");
  names(with(&SsdShape::heads, 0), "heads");
  names(with(&SsdShape::head_dim, 0), "head_dim");
  names(with(&SsdShape::state, 0), "state");
  names(with(&SsdShape::chunk, 0), "chunk");
  names(with(&SsdShape::groups, 3), "groups");
  names(with(&SsdShape::sequences, 1), "batch");
  SsdShape packed = small();
  packed.batch = 1;
  packed.sequences = 2;
  EXPECT_EQ(shaped(packed), measure::absent("ssd: cu_seqlens"));
  EXPECT_EQ(shaped(small()), measure::absent("ssd: x"));
}

TEST(Ssd, TheDoorAsksForEveryArrayThatIsNeeded) {
  auto call = dense<float>(small());
  const auto without = [&](const auto& take) { return measure::error_without(call, take); };
  using measure::absent;
  EXPECT_EQ(without([](auto&, auto&) {}), "no error");
  EXPECT_EQ(without([](auto& f, auto&) { f.in.A = nullptr; }), absent("ssd: A"));
  EXPECT_EQ(without([](auto& f, auto&) { f.in.z.data = nullptr; }), absent("ssd: z"));
  EXPECT_EQ(without([](auto& f, auto&) { f.y.data = nullptr; }), absent("ssd: y"));
  EXPECT_EQ(without([](auto&, auto& b) { b.gy.data = nullptr; }), absent("ssd: gy"));
  EXPECT_EQ(without([](auto&, auto& b) { b.saved = nullptr; }), absent("ssd: saved"));
  const auto strided = [](const std::string& error, const std::string& field) {
    EXPECT_EQ(error, "ssd: " + field + ": bad shape: expected channel stride 1, got 2");
  };
  strided(without([](auto& f, auto&) { f.in.B.channel_stride = 2; }), "B");
  strided(without([](auto& f, auto&) { f.in.x.channel_stride = 2; }), "x");
  strided(without([](auto&, auto& b) { b.dC.channel_stride = 2; }), "dC");
  EXPECT_NE(without([](auto& f, auto&) { f.in.dt_min = 2, f.in.dt_max = 1; }).find("dt_min"),
            std::string::npos);
}

TEST(Ssd, AStepIsOneTokenNotPacked) {
  auto call = dense<float>(small());
  call.upload(Workspace(1).context());
  EXPECT_NE(measure::error_of([&](Context& context) {
              ssd_step(context, call.given.shape, call.forward(measure::Side::device));
            }),
            "no error");
}

TEST(Ssd, DecayRatesAreCheckedOnTheHost) {
  const auto check = [](std::vector<float> A) { check_decay(small(), std::span<const float>(A)); };
  check({-1, -0.0f, 0, NAN});
  const std::string error = measure::error_of([&](Context&) { check({-1, 0.5f, 0, 0}); });
  EXPECT_NE(error.find("ssd: A"), std::string::npos) << error;
  EXPECT_NE(error.find("entries <= 0"), std::string::npos) << error;
}

template <class T>
void accumulates(const SsdCase& given) {
  for_each_line<T>(given.shape, [&](const Choice& choice) {
    for (const int threads : {1, 2}) {
      measure::expect_accumulated<SsdCall<T>>(
          given, [&](auto& call) { call.run_both(threads, choice); }, std::string(choice.name));
    }
  });
  measure::expect_accumulated<SsdCall<T>>(
      given, [](auto& call) { call.reference(kBackward, false, nullptr); }, "reference");
}

TEST(Ssd, AccumulatingEqualsAWriteAndAnAdd) {
  SsdShape by_channel = small(), packed = small(), empty = small();
  by_channel.d_per_channel = true;
  packed.batch = 1;
  packed.sequences = 3;
  empty.batch = 0;
  measure::on_every_target([&] {
    for (const SsdCase& given : {SsdCase::dense(small()), SsdCase::dense(by_channel),
                                 SsdCase::dense(packed, {0, 33, 33, 70}), SsdCase::dense(empty)}) {
      accumulates<float>(given);
      accumulates<double>(given);
      accumulates<Bf16>(given);
    }
  });
}

TEST(Ssd, SavedStatesOfPackedSequencesHaveTheirPlaces) {
  SsdShape shape = small();
  shape.batch = 1;
  shape.sequences = 7;
  for_each_line<float>(shape, [&](const Choice& choice) {
    measure::expect_places_of_saved_states<SsdCall<float>>(
        SsdCase::dense(shape, {0, 0, 1, 3, 67, 68, 70, 70}), choice, shape.chunk, 1e-6);
  });
}

}  // namespace
}  // namespace adder::ssd
