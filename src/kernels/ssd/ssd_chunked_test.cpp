// These concern the chunked lines alone: walk and split, blocks of heads, mild and steep chunks.
#include "kernels/ssd/ssd_call_test.h"
#include "kernels/ssd/ssd_chunk_plan.h"

namespace adder::ssd {
namespace {

SsdShape one_row(int64_t heads, int64_t groups) { return sizes(101, heads, 19, 35, groups); }

template <class T>
void walk_equals_split(const SsdShape& shape, const std::vector<int32_t>& cu, double decay) {
  for_each_line<T>(shape, [&](const Choice& choice) {
    if (!choice.name.starts_with("chunked")) return;
    auto walk = dense<T>(shape, cu), split = dense<T>(shape, cu);
    for (auto* call : {&walk, &split}) {
      for (int64_t i = 0; i < shape.heads; ++i) {
        call->A.set(i, -decay * static_cast<double>(i + 1));
      }
    }
    walk.run_both(1, choice);
    split.run_both(chunk_workers(), choice);
    expect_same_bits(walk, split, std::string(choice.name));
  });
}

// One thread walks; two or more split what has too few rows: the same bits.
TEST(SsdChunked, WalkAndSplitGiveTheSameBits) {
  if (chunk_workers() < 2) GTEST_SKIP() << "one core: nothing is ever split";
  for (const double decay : {1e-3, 30.0}) {
    const SsdShape shape = one_row(3, 1);
    ASSERT_TRUE(chunk_walks(shape, 1));
    ASSERT_FALSE(chunk_walks(shape, chunk_workers()));
    walk_equals_split<double>(shape, {}, decay);
    walk_equals_split<float>(shape, {}, decay);
    walk_equals_split<Bf16>(shape, {}, decay);
    SsdShape packed = one_row(2, 2);
    packed.sequences = 4;
    walk_equals_split<float>(packed, {0, 20, 20, 21, 101}, decay);
  }
}

// Where a group is cut into blocks, dB and dC are sums over them.
TEST(SsdChunked, BlocksOfHeadsMatchTheRecurrence) {
  const SsdShape shape = one_row(14, 2);
  ASSERT_GT(HeadBlocks(shape).per_group, 1);
  auto expected = dense<double>(shape), got = dense<double>(shape);
  expected.run_both(1, {.name = "recurrent"});
  got.run_both(2, {.name = "chunked"});
  const auto a = expected.arrays(), b = got.arrays();
  for (size_t i = 0; i < a.size(); ++i) {
    if (!is_result(a[i]) || a[i].token == 0) continue;
    for (int64_t k = 0; k < a[i].array->count(); ++k) {
      const double value = a[i].array->value(k);
      ASSERT_NEAR(value, b[i].array->value(k), 1e-10 * (1 + std::abs(value))) << a[i].name << k;
    }
  }
}

TEST(SsdChunked, LongChunksAreLeftToOtherLines) {
  SsdShape shape = one_row(2, 1);
  shape.len = shape.chunk = kMaxChunk + 1;
  for (const auto& line : ssd_lines<float>()) {
    const bool chunked = std::string(line.info.name).starts_with("chunked");
    EXPECT_EQ(line.accepts(cpu_caps(), shape), !chunked) << line.info.name;
  }
}

}  // namespace
}  // namespace adder::ssd
