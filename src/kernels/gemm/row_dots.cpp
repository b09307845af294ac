// C = A B^T with both operands read along k: every element of C is the dot product of a row of A
// and a row of B, its lanes summed in one order whatever the shape. Streams the weights once for
// up to four rows of A: decoding. Accepts any number of rows with the same bits.
#include <hwy/cache_control.h>

#include <algorithm>

#include "core/threads.h"
#include "kernels/gemm/cut.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm/row_dots.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {
namespace {

// Rows of A that one pass over B serves: kRows x kColumns accumulators fit the registers.
#if HWY_TARGET <= HWY_AVX3
constexpr int64_t kRows = 4;
#else
constexpr int64_t kRows = 2;
#endif
constexpr int64_t kItemRows = 64;          // of A: k = 768 in fp32 is 192 KB, inside L2
constexpr int64_t kItemBytes = 64 * 1024;  // of B
constexpr int64_t kColumns = 8;            // rows of B that meet all rows of A of an item in turn

// R x N elements of C, one word of partial sums each: lane l holds the chain over k = l, l + lanes,
// l + 2 lanes, ... and the lanes are added by one tree. No choice of R and N changes that order.
//
// The first rows of A fetch B from memory, and ask for the rows of B that come next: the hardware
// prefetcher loses the many short streams (measured with bf16 rows of 1.5 KB: 8.5 -> 13.5 GB/s).
template <int R, int N, class TA, class TB, class TC>
HWY_INLINE void dots(const GemmShape& shape, const GemmArgs<TA, TB, TC>& args, int64_t row,
                     int64_t column) {
  using C = accumulate_t<TA>;
  const Words<C> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const TA* a = args.a + row * args.lda;
  const TB* b = args.b + column * args.ldb;
  const bool first = row % kItemRows == 0 && column + kColumns + N <= shape.n;
  const TB* next = first ? b + kColumns * args.ldb : b;
  constexpr int64_t kLine = 64 / sizeof(TB);
  V<Words<C>> sum[R][N];
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < N; ++n) sum[r][n] = hn::Zero(d);
  }
  int64_t k = 0;
  for (; k + lanes <= shape.k; k += lanes) {
    V<Words<C>> left[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) left[r] = load(d, a + r * args.lda + k);
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      if (first && k % kLine == 0) hwy::Prefetch(next + n * args.ldb + k);
      const auto right = load(d, b + n * args.ldb + k);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum[r][n] = hn::MulAdd(left[r], right, sum[r][n]);
    }
  }
  if (k < shape.k) {
    const auto rest = static_cast<size_t>(shape.k - k);
    for (int n = 0; n < N; ++n) {
      const auto right = load_n(d, b + n * args.ldb + k, rest);
      for (int r = 0; r < R; ++r) {
        sum[r][n] = hn::MulAdd(load_n(d, a + r * args.lda + k, rest), right, sum[r][n]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    TC* to = args.c + (row + r) * args.ldc + column;
    for (int n = 0; n < N; ++n) {
      C value = hn::GetLane(hn::SumOfLanes(d, sum[r][n]));
      if (shape.bias) value += args.bias[column + n];
      if (shape.accumulate) value += static_cast<C>(to[n]);
      to[n] = static_cast<TC>(value);
    }
  }
}

template <int R, int N, class TA, class TB, class TC>
void dots_of_columns(const GemmShape& shape, const GemmArgs<TA, TB, TC>& args, int64_t row,
                     int64_t column, int64_t columns) {
  int64_t j = 0;
  for (; j + N <= columns; j += N) dots<R, N>(shape, args, row, column + j);
  for (; j < columns; ++j) dots<R, 1>(shape, args, row, column + j);
}

// All rows of A of an item against few rows of B, which stay in L1.
template <class TA, class TB, class TC>
void dots_of_rows(const GemmShape& shape, const GemmArgs<TA, TB, TC>& args, int64_t row,
                  int64_t rows, int64_t column, int64_t columns) {
  int64_t i = 0;
  for (; i + kRows <= rows; i += kRows) {
    dots_of_columns<kRows, 4>(shape, args, row + i, column, columns);
  }
  if constexpr (kRows > 2) {
    for (; i + 2 <= rows; i += 2) dots_of_columns<2, 4>(shape, args, row + i, column, columns);
  }
  for (; i < rows; ++i) dots_of_columns<1, 8>(shape, args, row + i, column, columns);
}

template <class TA, class TB, class TC>
void forward(const GemmShape& shape, const GemmArgs<TA, TB, TC>& args, Exec exec) {
  const int64_t row_bytes = std::max<int64_t>(1, shape.k) * static_cast<int64_t>(sizeof(TB));
  const int64_t item_columns = std::max<int64_t>(1, kItemBytes / row_bytes / kColumns) * kColumns;
  const int64_t column_items = (shape.n + item_columns - 1) / item_columns;
  const int64_t row_items = (shape.m + kItemRows - 1) / kItemRows;
  parallel_for(useful_threads(shape, exec.threads), column_items * row_items, [&](int64_t item) {
    const int64_t row = item % row_items * kItemRows;
    const int64_t rows = std::min(kItemRows, shape.m - row);
    const int64_t first = item / row_items * item_columns;
    const int64_t last = std::min(shape.n, first + item_columns);
    for (int64_t column = first; column < last; column += kColumns) {
      dots_of_rows(shape, args, row, rows, column, std::min(kColumns, last - column));
    }
  });
}

}  // namespace

// HWY_EXPORT takes plain functions: one name for each choice of types.
#define ADDER_TARGET(TA, TB, TC, suffix) \
  ADDER_SIMD_FUNCTION(row_dots_##suffix, forward, GemmShape, GemmArgs<TA, TB, TC>)
ADDER_GEMM_TYPES(ADDER_TARGET)
#undef ADDER_TARGET

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

#define ADDER_LINE(TA, TB, TC, suffix) \
  ADDER_SIMD_LINE(row_dots_##suffix, row_dots_forward, GemmShape, GemmArgs<TA, TB, TC>)
ADDER_GEMM_TYPES(ADDER_LINE)
#undef ADDER_LINE

}  // namespace adder
#endif
