#include "kernels/embed/embed.h"

#include "measure/call_laws_test.h"
#include "measure/embed_call.h"

namespace adder {
namespace {

using measure::EmbedCase;

template <class T>
using Call = measure::EmbedCall<T, T>;

/// Ids below `used`.
EmbedCase of(const EmbedShape& shape, int64_t used, bool accumulate = false) {
  return {.shape = shape, .accumulate = accumulate, .used = used};
}

TEST(Embed, SumsInRowOrderForAnyThreadCount) {
  for (const int64_t used : {1, 3, 500}) {
    const EmbedShape shape{.rows = 1500, .vocab = 500, .width = 300};
    Call<float> one(of(shape, used), 1), two(of(shape, used), 1), added(of(shape, used, true), 1);
    auto plain = one.dtable, onto = added.dtable;
    plain.zero();
    one.run_both(1);
    two.run_both(2);
    added.run_both(2);
    expect_same_bits(one, two);
    for (int64_t row = 0; row < 1500; ++row) {
      for (int64_t c = 0; c < 300; ++c) {
        const int64_t at = int64_t{one.ids[row]} * 300 + c;
        plain[at] += one.g[row * 300 + c];
        onto[at] += one.g[row * 300 + c];
      }
    }
    EXPECT_TRUE(one.dtable.same_bits(plain));
    EXPECT_TRUE(added.dtable.same_bits(onto));
  }
}

TEST(Embed, APlantedDefectTurnsTheComparisonRed) {
  Call<float> call(of({.rows = 30, .vocab = 10, .width = 20}, 10), 1);
  call.run_both(1);
  expect_defect_is_seen(call, "dtable", 77, 1e-5);
}

TEST(Embed, GradientsMatchCentralDifferences) {
  Call<double> call(of({.rows = 23, .vocab = 7, .width = 5}, 6), 1);
  expect_gradients(call, "embed");
}

TEST(Embed, NoRowsWriteZerosOrAddNothing) {
  Call<float> call(of({.rows = 0, .vocab = 3, .width = 4}, 3), 1);
  call.run_both(2);
  EXPECT_TRUE(call.out.intact());
  for (const float g : call.dtable.span()) EXPECT_EQ(g, 0);
  call.dtable[5] = 1.5f;
  call.given.accumulate = true;
  call.run_both(2);
  for (int64_t i = 0; i < call.dtable.count(); ++i) EXPECT_EQ(call.dtable[i], i == 5 ? 1.5f : 0);
}

TEST(Embed, TheDoorNamesTheField) {
  Call<float> call(of({.rows = 2, .vocab = 4, .width = 2}, 4), 1);
  call.upload(Workspace(1).context());
  const auto shaped = [&](const EmbedShape& shape) {
    return measure::error_of([&](Context& context) {
      embed_forward(context, shape, call.forward(measure::Side::device));
    });
  };
  EXPECT_EQ(shaped({.rows = -1, .vocab = 4, .width = 2}),
            "embed: rows: bad shape: expected >= 0, got -1");
  EXPECT_EQ(shaped({.rows = 2, .vocab = 0, .width = 2}),
            "embed: vocab: bad shape: expected >= 1, got 0");
  EXPECT_EQ(shaped({.rows = 2, .vocab = 4, .width = 0}),
            "embed: width: bad shape: expected >= 1, got 0");
  const auto without = [&](const auto& take) { return measure::error_without(call, take); };
  using measure::absent;
  EXPECT_EQ(without([](auto& f, auto&) { f.ids = nullptr; }), absent("embed: ids"));
  EXPECT_EQ(without([](auto& f, auto&) { f.table = nullptr; }), absent("embed: table"));
  EXPECT_EQ(without([](auto& f, auto&) { f.out = nullptr; }), absent("embed: out"));
  EXPECT_EQ(without([](auto&, auto& b) { b.g = nullptr; }), absent("embed: g"));
  EXPECT_EQ(without([](auto&, auto& b) { b.dtable = nullptr; }), absent("embed: dtable"));
  EXPECT_EQ(without([](auto&, auto&) {}), "no error");
}

}  // namespace
}  // namespace adder
