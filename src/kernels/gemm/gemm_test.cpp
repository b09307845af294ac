#include "kernels/gemm/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "core/simd_targets.h"
#include "measure/evaluation.h"
#include "measure/sanitized.h"
#include "measure/tensors.h"
#include "measure/variant.h"

namespace adder {
namespace {

using measure::Guarded;

// Restores the best target when a test ends.
struct EveryTarget : ::testing::Test {
  ~EveryTarget() override { force_simd_target(0); }
};

TEST_F(EveryTarget, LinesAgreeWithReference) {
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    for (const auto& variant : measure::gemm_variants(measure::Purpose::test)) {
      if (!variant.accepted) continue;
      for (const int threads : {1, 2}) {
        const auto result = variant.check({threads, 7});
        // A product without elements has nothing to compare.
        if (result.elements == 0 && result.faults.empty()) continue;
        EXPECT_TRUE(result.passed())
            << target.name << " " << variant.line.name << " " << dtype_name(variant.line.dtype)
            << " " << variant.shape << " threads " << threads << ": " << result.describe();
      }
    }
  }
}

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
    args.a = a.data() + first * (shape.transpose_a ? 1 : args.lda);
    args.b = b.data();
    args.ldb = shape.transpose_b ? shape.k : shape.n;
    Guarded<TC> c(rows * shape.n);
    args.c = c.data();
    args.ldc = shape.n;
    measure::run_planned(threads, [&](Context& context) { gemm(context, part, args, {line, 0}); });
    return c;
  }
  Guarded<TC> run(const char* line, int threads) { return run(line, threads, 0, shape.m); }
};

template <class T>
bool same(const Guarded<T>& x, const T* y, int64_t count) {
  return std::memcmp(x.data(), y, static_cast<size_t>(count) * sizeof(T)) == 0;
}

GemmShape shape_of(int64_t m, int64_t n, int64_t k, bool transpose_a, bool transpose_b) {
  GemmShape shape;
  shape.m = m;
  shape.n = n;
  shape.k = k;
  shape.transpose_a = transpose_a;
  shape.transpose_b = transpose_b;
  return shape;
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
      if (!line.accepts(context.caps(), shape)) continue;
      // The long products are for oneDNN, whose own blocking might look at the threads.
      if (std::max(shape.m, shape.k) == 2048 && line.info.name != std::string("onednn")) continue;
      const auto one = product.run(line.info.name, 1);
      EXPECT_TRUE(same(one, product.run(line.info.name, 2).data(), one.count()))
          << line.info.name << " " << shape.describe() << " 2 threads";
      EXPECT_TRUE(same(one, product.run(line.info.name, 3).data(), one.count()))
          << line.info.name << " " << shape.describe() << " 3 threads";
    }
  }
}

// Otherwise the number of threads would change the bits by way of the table.
TEST(Gemm, ChoiceOfLineDoesNotDependOnThreads) {
  for (const int64_t m : {1, 3, 7, 16, 24, 64, 2048}) {
    for (const int64_t n : {1, 16, 48, 256, 3072}) {
      for (const int64_t k : {1, 16, 48, 768}) {
        const GemmShape shape = shape_of(m, n, k, false, true);
        Context one, many;
        many.threads = 64;
        const auto pick = [&]<class TA>(const Context& context) {
          return &pick_line("gemm", gemm_lines<TA, Bf16, float>(), context.caps(), shape,
                            Direction::forward);
        };
        EXPECT_EQ(pick.operator()<float>(one), pick.operator()<float>(many)) << shape.describe();
        EXPECT_EQ(pick.operator()<Bf16>(one), pick.operator()<Bf16>(many)) << shape.describe();
      }
    }
  }
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
          if (line.info.exact_class == 0 || !line.accepts(context.caps(), shape)) continue;
          const auto all = product.run(line.info.name, 2);
          for (const int64_t rows : {1, 2, 5, 8, 16, 17, 31, 64, 129, 300}) {
            GemmShape part = shape;
            part.m = rows;
            if (!line.accepts(context.caps(), part)) continue;
            if (measure::kSanitized && rows > 64) continue;
            for (const int64_t first : {int64_t{0}, int64_t{100}, 517 - rows}) {
              if (measure::kSanitized && first == 100) continue;
              const auto few = product.run(line.info.name, 1, first, rows);
              EXPECT_TRUE(same(few, all.data() + first * n, rows * n))
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

// One perturbed element must turn the comparison red.
TEST(Gemm, ComparisonSeesAPlantedDefect) {
  measure::OutputCheck output;
  output.name = "c";
  output.expected = {1.0, 2.0, 3.0};
  output.evaluated = output.expected;
  output.absolute = output.expected;
  output.got = {1.0, 2.0 * (1.0 + 1e-5), 3.0};
  measure::Comparison comparison;
  comparison.add(output);
  EXPECT_FALSE(comparison.passed());
}

template <class Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Gemm, DoorNamesFieldExpectedAndGot) {
  Arena arena(1 << 20);
  Context context;
  context.arena = &arena;
  std::vector<float> data(64);
  GemmArgs<float, float, float> args{data.data(), 4, data.data(), 4, data.data(), 4, nullptr};
  const auto call = [&](const GemmShape& shape) {
    return error_of([&] { gemm(context, shape, args); });
  };
  EXPECT_EQ(call(shape_of(-1, 4, 4, false, true)),
            "gemm m: negative extent: expected >= 0, got -1");
  EXPECT_EQ(call(shape_of(4, 4, 5, false, false)),
            "gemm lda: row stride below the row: expected >= 5, got 4");
  EXPECT_EQ(call(shape_of(4, 5, 4, false, true)),
            "gemm ldc: row stride below the row: expected >= 5, got 4");
  GemmShape biased = shape_of(4, 4, 4, false, true);
  biased.bias = true;
  EXPECT_EQ(call(biased), "gemm bias: argument absent: expected a pointer, got null");
  EXPECT_EQ(call(shape_of(4, 4, 4, false, true)), "");
  EXPECT_NE(
      error_of([&] { gemm(context, shape_of(4, 4, 4, false, false), args, {"row_dots", 0}); }), "");
}

TEST(Gemm, MeasuringArenaTakesNullPointers) {
  Arena arena;
  Context context;
  context.arena = &arena;
  GemmShape shape = shape_of(64, 300, 40, false, true);
  GemmArgs<float, Bf16, float> args;
  args.lda = 40;
  args.ldb = 40;
  args.ldc = 300;
  gemm(context, shape, args, {"onednn", 0});
  EXPECT_GE(arena.peak_bytes(), 300 * 40 * 4);
}

}  // namespace
}  // namespace adder
