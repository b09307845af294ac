// These concern the chunked lines alone: walk and split, blocks of heads, mild and steep chunks.
#include "core/simd_targets.h"
#include "kernels/ssd/ssd_call_test.h"
#include "kernels/ssd/ssd_chunk_plan.h"
#include "measure/variant.h"

namespace adder::ssd {
namespace {

SsdShape one_row(int64_t heads, int64_t groups) {
  SsdShape shape;
  shape.batch = 1;
  shape.len = 101;
  shape.heads = heads;
  shape.head_dim = 19;
  shape.state = 35;
  shape.groups = groups;
  shape.chunk = 16;
  return shape;
}

template <class T>
void walk_equals_split(const SsdShape& shape, const std::vector<int32_t>& cu, double decay) {
  for (const std::string& name : lines_for<T>(shape)) {
    if (!name.starts_with("chunked")) continue;
    Call<T> walk(shape, cu), split(shape, cu);
    for (auto* call : {&walk, &split}) {
      for (int64_t i = 0; i < shape.heads; ++i) {
        call->A[i] = static_cast<accumulate_t<T>>(-decay * static_cast<double>(i + 1));
      }
    }
    walk.run({.name = name}, 1);
    split.run({.name = name}, chunk_workers());
    expect_same_bits(walk, split, name);
    EXPECT_TRUE(same_bits(walk.saved, split.saved)) << name;
  }
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

// A group may be cut into blocks: then dB and dC are sums over them.
TEST(SsdChunked, BlocksOfHeadsMatchTheRecurrence) {
  const SsdShape shape = one_row(14, 2);
  ASSERT_GT(HeadBlocks(shape).per_group, 1);
  Call<double> expected(shape), got(shape);
  expected.run({.name = "recurrent"}, 1);
  got.run({.name = "chunked"}, 2);
  const auto close = [](const Guarded<double>& a, const Guarded<double>& b, const char* name) {
    for (int64_t i = 0; i < a.count(); ++i) {
      ASSERT_NEAR(a[i], b[i], 1e-10 * (1 + std::abs(a[i]))) << name << " " << i;
    }
  };
  close(expected.y, got.y, "y");
  close(expected.dB, got.dB, "dB");
  close(expected.dC, got.dC, "dC");
  close(expected.dx, got.dx, "dx");
  close(expected.ddt, got.ddt, "ddt");
}

TEST(SsdChunked, LongChunksAreLeftToOtherLines) {
  SsdShape shape = one_row(2, 1);
  shape.len = shape.chunk = kMaxChunk + 1;
  for (const auto& line : ssd_lines<float>()) {
    const bool chunked = std::string(line.info.name).starts_with("chunked");
    EXPECT_EQ(line.accepts(cpu_caps(), shape), !chunked) << line.info.name;
  }
}

TEST(SsdChunked, ProductsOfEveryUnitMatchDoubleSums) {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    int run = 0;
    for (const auto& variant : measure::ssd_product_variants(measure::Purpose::test)) {
      if (!variant.accepted) continue;
      const auto comparison = variant.check({.threads = 1});
      EXPECT_TRUE(comparison.passed()) << target.name << " " << variant.line.name << " "
                                       << variant.shape << ": " << comparison.describe();
      ++run;
    }
    EXPECT_GT(run, 0);
  }
  force_simd_target(0);
}

}  // namespace
}  // namespace adder::ssd
