#include "kernels/gemm/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "measure/call_laws_test.h"
#include "measure/gemm_call.h"
#include "measure/sanitized.h"

namespace adder {
namespace {

using measure::Guarded;
using measure::Side;

template <class TA, class TB, class TC>
struct Product {
  GemmShape shape;
  Guarded<TA> a;
  Guarded<TB> b;

  Product(const GemmShape& given, uint64_t seed)
      : shape(given), a(given.m * given.k), b(given.n * given.k) {
    measure::fill_normal(a, seed, "a");
    measure::fill_normal(b, seed, "b");
  }
  // Rows first .. first + rows of C.
  Guarded<TC> run(const char* line, int threads, int64_t first, int64_t rows) {
    GemmShape part = shape;
    part.m = rows;
    GemmArgs<TA, TB, TC> args;
    args.lda = shape.transpose_a ? shape.m : shape.k;
    args.ldb = shape.transpose_b ? shape.k : shape.n;
    args.ldc = shape.n;
    Guarded<TC> c(rows * shape.n);
    measure::run_on_device(
        threads,
        [&](Context& context) {
          args.a = a.at(Side::device) + first * (shape.transpose_a ? 1 : args.lda);
          args.b = b.at(Side::device);
          args.c = c.at(Side::device);
          gemm(context, part, args, {line, 0});
        },
        a, b, c);
    return c;
  }
  Guarded<TC> run(const char* line, int threads) { return run(line, threads, 0, shape.m); }
};

GemmShape shape_of(int64_t m, int64_t n, int64_t k, bool transpose_a, bool transpose_b) {
  return {.m = m, .n = n, .k = k, .transpose_a = transpose_a, .transpose_b = transpose_b};
}

// The shapes of a training step, their halves, and odd ones.
std::vector<GemmShape> wide_shapes() {
  std::vector<GemmShape> shapes;
  for (const auto& [out, in] : {std::pair<int64_t, int64_t>{1024, 256},
                                {48, 512},
                                {512, 16},
                                {256, 512},
                                {256, 256},
                                {131, 77}}) {
    for (const int64_t tokens : {2048, 200}) {
      shapes.push_back(shape_of(tokens, out, in, false, true));
      shapes.push_back(shape_of(tokens, in, out, false, false));
      shapes.push_back(shape_of(out, in, tokens, true, false));
    }
  }
  return shapes;
}

template <class TA, class TB, class TC>
void expect_same_bits_for_any_thread_count() {
  const Context context;
  for (const GemmShape& shape : wide_shapes()) {
    Product<TA, TB, TC> product(shape, 3);
    for (const auto& line : gemm_lines<TA, TB, TC>()) {
      if (!line.accepts(context.caps, shape)) continue;
      // The long products are for oneDNN, whose own blocking might look at the threads.
      if (std::max(shape.m, shape.k) == 2048 && line.info.name != std::string("onednn")) continue;
      const auto one = product.run(line.info.name, 1);
      EXPECT_TRUE(one.same_bits(product.run(line.info.name, 2)))
          << line.info.name << " " << shape.describe() << " 2 threads";
      EXPECT_TRUE(one.same_bits(product.run(line.info.name, 3)))
          << line.info.name << " " << shape.describe() << " 3 threads";
    }
  }
}

// By caps and shape alone: here an AVX-512 machine without matrix units.
TEST(Gemm, TheTableChoosesByShape) {
  Caps caps;
  caps.vector_bytes = 64;
  const auto chosen = [&]<class TA, class TB, class TC>(const GemmShape& shape) {
    return std::string(
        pick_line("gemm", gemm_lines<TA, TB, TC>(), caps, shape, Direction::forward).info.name);
  };
  const auto f32 = [&](const GemmShape& shape) {
    return chosen.operator()<float, float, float>(shape);
  };
  EXPECT_EQ(f32(shape_of(1, 768, 768, false, true)), "row_dots");
  EXPECT_EQ(f32(shape_of(2048, 1024, 256, false, true)), "onednn");
  EXPECT_EQ(f32(shape_of(8, 256, 256, false, false)), "blocked");
  EXPECT_EQ(f32(shape_of(1024, 256, 2048, true, false)), "onednn");
  EXPECT_EQ((chosen.operator()<double, double, double>(shape_of(64, 64, 64, true, false))),
            "blocked");
  EXPECT_EQ((chosen.operator()<float, Bf16, float>(shape_of(1, 768, 768, false, true))),
            "row_dots");
}

TEST(Gemm, SameBitsForAnyThreadCountF32) {
  expect_same_bits_for_any_thread_count<float, float, float>();
}
TEST(Gemm, SameBitsForAnyThreadCountBf16) {
  expect_same_bits_for_any_thread_count<Bf16, Bf16, Bf16>();
  expect_same_bits_for_any_thread_count<Bf16, Bf16, float>();
}
TEST(Gemm, SameBitsForAnyThreadCountMixed) {
  expect_same_bits_for_any_thread_count<float, Bf16, float>();
}

// Every line with an exact class: rows of a short product equal the same rows of a long one.
template <class TA, class TB, class TC>
void expect_rows_do_not_depend_on_their_number() {
  const Context context;
  constexpr int64_t kNs[] = {1, 16, 48, 129, 600};
  constexpr int64_t kKs[] = {16, 65, 512, 1000};
  for (const int64_t n : kNs) {
    for (const int64_t k : kKs) {
      for (const bool transpose_b : {false, true}) {
        const GemmShape shape = shape_of(517, n, k, false, transpose_b);
        Product<TA, TB, TC> product(shape, 5);
        for (const auto& line : gemm_lines<TA, TB, TC>()) {
          if (line.info.exact_class == 0 || !line.accepts(context.caps, shape)) continue;
          const auto all = product.run(line.info.name, 2);
          for (const int64_t rows : {1, 2, 5, 8, 16, 17, 31, 64, 129, 300}) {
            GemmShape part = shape;
            part.m = rows;
            if (!line.accepts(context.caps, part)) continue;
            if (measure::kSanitized && rows > 64) continue;
            for (const int64_t first : {int64_t{0}, int64_t{100}, 517 - rows}) {
              if (measure::kSanitized && first == 100) continue;
              const auto few = product.run(line.info.name, 1, first, rows);
              EXPECT_TRUE(all.holds(few, first * n))
                  << line.info.name << " " << part.describe() << " of 517 rows, from " << first;
            }
          }
        }
      }
    }
  }
}

TEST(Gemm, RowsDoNotDependOnTheirNumberF32) {
  expect_rows_do_not_depend_on_their_number<float, float, float>();
}
TEST(Gemm, RowsDoNotDependOnTheirNumberBf16) {
  expect_rows_do_not_depend_on_their_number<Bf16, Bf16, float>();
}
TEST(Gemm, RowsDoNotDependOnTheirNumberMixed) {
  expect_rows_do_not_depend_on_their_number<float, Bf16, float>();
}

TEST(Gemm, APlantedDefectTurnsTheComparisonRed) {
  measure::GemmCall<float, float, float> product({shape_of(7, 11, 13, false, true)}, 1);
  Workspace workspace(1);
  product.run(workspace, {Direction::forward}, {});
  expect_defect_is_seen(product, "c", 30, 1e-4);
}

TEST(Gemm, TheDoorNamesTheField) {
  const Buffer memory(64 * sizeof(float), {MemoryKind::device});
  auto* data = memory.as<float>();
  GemmArgs<float, float, float> args{data, 4, data, 4, data, 4, nullptr};
  const auto call = [&](const GemmShape& shape) {
    return measure::error_of([&](Context& context) { gemm(context, shape, args); });
  };
  EXPECT_EQ(call(shape_of(-1, 4, 4, false, true)), "gemm: m: bad shape: expected >= 0, got -1");
  EXPECT_EQ(call(shape_of(4, 4, 5, false, false)),
            "gemm: lda: bad shape: expected >= 5 (width), got 4");
  EXPECT_EQ(call(shape_of(4, 5, 4, false, true)),
            "gemm: ldc: bad shape: expected >= 5 (width), got 4");
  const GemmShape plain = shape_of(4, 4, 4, false, true);
  GemmShape biased = plain;
  biased.bias = true;
  EXPECT_EQ(call(biased), "gemm: bias: bad shape: expected an array, got none");
  EXPECT_EQ(call(plain), "no error");
  args.b = nullptr;  // also while memory is only planned
  EXPECT_THROW(Workspace(1).plan([&](Context& context) { gemm(context, plain, args); }), Error);
  EXPECT_EQ(call(shape_of(4, 4, 0, false, true)), "no error");
  EXPECT_NE(measure::error_of([&](Context& context) {
              gemm(context, shape_of(4, 4, 4, false, false), args, {"row_dots", 0});
            }),
            "no error");
}

TEST(Gemm, PlansTheScratchOfTheLine) {
  const GemmShape shape = shape_of(64, 300, 40, false, true);
  const int64_t bytes = Workspace(1).plan([&](Context& context) {
    GemmArgs<float, Bf16, float> args;
    args.a = context.arena->take<float>(64 * 40);
    args.lda = 40;
    args.b = context.arena->take<Bf16>(300 * 40);
    args.ldb = 40;
    args.c = context.arena->take<float>(64 * 300);
    args.ldc = 300;
    gemm(context, shape, args, {"onednn", 0});
  });
  EXPECT_EQ(bytes, 64 * 40 * 4 + 300 * 40 * 2 + 64 * 300 * 4 + 300 * 40 * 4);
}

}  // namespace
}  // namespace adder
