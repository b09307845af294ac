#include "kernels/embed/embed.h"

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
using measure::Guarded;

TEST(Embed, EveryLineMatchesTheReferenceOnEveryTarget) {
  const auto variants = measure::embed_variants(measure::Purpose::test);
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

template <class Acc>
struct Call {
  EmbedShape shape;
  Guarded<int32_t> ids;
  Guarded<Acc> table, out, g, dtable;

  Call(const EmbedShape& given, uint64_t vocab_used)
      : shape(given),
        ids(given.rows),
        table(given.vocab * given.width),
        out(given.rows * given.width),
        g(out.count()),
        dtable(table.count()) {
    for (int64_t i = 0; i < ids.count(); ++i) {
      ids[i] = static_cast<int32_t>(uniform_below(1, 2, static_cast<uint64_t>(i), vocab_used));
    }
    fill_normal(table, 1, "table");
    fill_normal(g, 1, "g");
  }
  void run(int threads = 1, bool accumulate = false) {
    measure::run_planned(threads, [&](Context& context) {
      embed_forward<Acc, Acc>(context, shape, {ids.data(), table.data(), out.data()});
      embed_backward<Acc, Acc>(context, shape, {ids.data(), g.data(), dtable.data(), accumulate});
    });
  }
};

TEST(Embed, SumsInRowOrderForAnyThreadCount) {
  for (const uint64_t used : {1u, 3u, 500u}) {
    Call<float> one({.rows = 1500, .vocab = 500, .width = 300}, used);
    Call<float> two(one.shape, used);
    one.run(1);
    two.run(2);
    Call<float> added(one.shape, used);
    fill_normal(added.dtable, 2, "dtable");
    std::vector<float> onto(added.dtable.data(), added.dtable.data() + added.dtable.count());
    added.run(2, true);
    const auto bytes = static_cast<size_t>(one.dtable.count()) * sizeof(float);
    EXPECT_EQ(std::memcmp(one.dtable.data(), two.dtable.data(), bytes), 0);
    std::vector<float> plain(static_cast<size_t>(one.dtable.count()), 0.0f);
    for (int64_t row = 0; row < 1500; ++row) {
      for (int64_t c = 0; c < 300; ++c) {
        const auto at = static_cast<size_t>(one.ids[row] * 300 + c);
        plain[at] += one.g[row * 300 + c];
        onto[at] += one.g[row * 300 + c];
      }
    }
    EXPECT_EQ(std::memcmp(one.dtable.data(), plain.data(), bytes), 0);
    EXPECT_EQ(std::memcmp(added.dtable.data(), onto.data(), bytes), 0);
  }
}

TEST(Embed, APlantedDefectTurnsTheComparisonRed) {
  Call<float> call({.rows = 30, .vocab = 10, .width = 20}, 10);
  call.run();
  const auto clean = call.dtable;
  const auto whole = clean.converted<double>();
  call.dtable[77] += 1e-5f;
  measure::Comparison red;
  measure::compare_output(red, "dtable", call.dtable, whole, clean, whole);
  EXPECT_FALSE(red.passed()) << red.describe();
}

TEST(Embed, GradientsMatchCentralDifferences) {
  Call<double> call({.rows = 23, .vocab = 7, .width = 5}, 6);
  call.run();
  const auto span = [](Guarded<double>& array) {
    return std::span<double>(array.data(), static_cast<size_t>(array.count()));
  };
  const auto loss = [&] {
    measure::run_planned(1, [&](Context& context) {
      embed_forward<double, double>(context, call.shape,
                                    {call.ids.data(), call.table.data(), call.out.data()});
    });
    double sum = 0;
    for (int64_t i = 0; i < call.out.count(); ++i) sum += call.out[i] * call.g[i];
    return sum;
  };
  const std::vector<measure::GradInput> inputs = {{"table", span(call.table), span(call.dtable)}};
  const auto report = measure::check_gradients(loss, inputs);
  EXPECT_TRUE(report.passed()) << report.worst << " " << report.worst_at;
}

TEST(Embed, NoRowsWriteZerosOrAddNothing) {
  Call<float> call({.rows = 0, .vocab = 3, .width = 4}, 3);
  call.run(2);
  EXPECT_TRUE(call.out.intact());
  for (int64_t i = 0; i < call.dtable.count(); ++i) EXPECT_EQ(call.dtable[i], 0);
  call.dtable[5] = 1.5f;
  call.run(2, true);
  for (int64_t i = 0; i < call.dtable.count(); ++i) EXPECT_EQ(call.dtable[i], i == 5 ? 1.5f : 0);
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

TEST(Embed, TheDoorNamesTheField) {
  Call<float> call({.rows = 2, .vocab = 4, .width = 2}, 4);
  const EmbedForward<float, float> forward = {call.ids.data(), call.table.data(), call.out.data()};
  const EmbedBackward<float> backward = {call.ids.data(), call.g.data(), call.dtable.data()};
  const auto shaped = [&](const EmbedShape& shape) {
    return error_of([&](Context& context) { embed_forward(context, shape, forward); });
  };
  EXPECT_EQ(shaped({.rows = -1, .vocab = 4, .width = 2}),
            "embed: rows: bad shape: expected >= 0, got -1");
  EXPECT_EQ(shaped({.rows = 2, .vocab = 0, .width = 2}),
            "embed: vocab: bad shape: expected >= 1, got 0");
  EXPECT_EQ(shaped({.rows = 2, .vocab = 4, .width = 0}),
            "embed: width: bad shape: expected >= 1, got 0");
  const auto without = [&](const auto& take) {
    return error_of([&](Context& context) {
      auto f = forward;
      auto b = backward;
      take(f, b);
      embed_forward(context, call.shape, f);
      embed_backward<float, float>(context, call.shape, b);
    });
  };
  const auto none = [](const std::string& field) {
    return "embed: " + field + ": bad shape: expected an array, got none";
  };
  EXPECT_EQ(without([](auto& f, auto&) { f.ids = nullptr; }), none("ids"));
  EXPECT_EQ(without([](auto& f, auto&) { f.table = nullptr; }), none("table"));
  EXPECT_EQ(without([](auto& f, auto&) { f.out = nullptr; }), none("out"));
  EXPECT_EQ(without([](auto&, auto& b) { b.g = nullptr; }), none("g"));
  EXPECT_EQ(without([](auto&, auto& b) { b.dtable = nullptr; }), none("dtable"));
  EXPECT_EQ(without([](auto&, auto&) {}), "no error");
}

}  // namespace
}  // namespace adder
