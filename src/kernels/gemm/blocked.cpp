// Packed and register-blocked products for every layout and type: double, and the shapes that
// neither oneDNN nor row_dots takes. Each element of C is one chain of multiply-adds over k.
#include <algorithm>

#include "core/threads.h"
#include "kernels/gemm/cut.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm/blocked.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {
namespace {

// The register block: kBlockRows x kBlockWords accumulators, beside kBlockWords words of B and one
// broadcast element of A (32 registers with AVX-512, 16 elsewhere).
#if HWY_TARGET <= HWY_AVX3
constexpr int kBlockRows = 8, kBlockWords = 3;
#else
constexpr int kBlockRows = 4, kBlockWords = 2;
#endif

// One item: up to kItemRows x kItemPanels register blocks of C, k walked kDepth at a time. Its
// packed operands and sums (some 200 KB) lie on the stack of the thread and stay in L2.
constexpr int64_t kItemRows = 96;
constexpr int64_t kItemPanels = 2;
constexpr int64_t kDepth = 128;

template <class C>
struct Item {
  static constexpr int64_t kPanel = kBlockWords * static_cast<int64_t>(hn::MaxLanes(Words<C>()));
  static constexpr int64_t kColumns = kItemPanels * kPanel;
  int64_t row, rows, column, columns;  // of C
  HWY_ALIGN C a[kItemRows * kDepth];   // (rows / kBlockRows, depth, kBlockRows)
  HWY_ALIGN C b[kColumns * kDepth];    // (columns / kPanel, depth, kPanel)
  HWY_ALIGN C sum[kItemRows * kColumns];
};

// Rows past the end are packed as 0: the register block has no tails.
template <class C, class Args>
void pack_a(const GemmShape& shape, const Args& args, int64_t k0, int64_t depth, Item<C>& item) {
  const int64_t row_stride = shape.transpose_a ? 1 : args.lda;
  const int64_t k_stride = shape.transpose_a ? args.lda : 1;
  const auto* from = args.a + item.row * row_stride + k0 * k_stride;
  for (int64_t first = 0; first < item.rows; first += kBlockRows) {
    C* panel = item.a + first * depth;
    for (int64_t r = 0; r < kBlockRows; ++r) {
      const bool inside = first + r < item.rows;
      for (int64_t k = 0; k < depth; ++k) {
        panel[k * kBlockRows + r] =
            inside ? static_cast<C>(from[(first + r) * row_stride + k * k_stride]) : C{0};
      }
    }
  }
}

template <class C, class Args>
void pack_b_rows(const Args& args, int64_t k0, int64_t depth, Item<C>& item) {
  const Words<C> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr int64_t kPanel = Item<C>::kPanel;
  for (int64_t first = 0; first < item.columns; first += kPanel) {
    C* panel = item.b + first * depth;
    const int64_t count = std::min(kPanel, item.columns - first);
    for (int64_t k = 0; k < depth; ++k) {
      const auto* from = args.b + (k0 + k) * args.ldb + item.column + first;
      for (int64_t j = 0; j < kPanel; j += lanes) {
        const int64_t left = std::clamp<int64_t>(count - j, 0, lanes);
        hn::Store(left == 0 ? hn::Zero(d) : load_n(d, from + j, static_cast<size_t>(left)), d,
                  panel + k * kPanel + j);
      }
    }
  }
}

template <class C, class Args>
void pack_b_columns(const Args& args, int64_t k0, int64_t depth, Item<C>& item) {
  constexpr int64_t kPanel = Item<C>::kPanel;
  for (int64_t first = 0; first < item.columns; first += kPanel) {
    C* panel = item.b + first * depth;
    for (int64_t j = 0; j < kPanel; ++j) {
      const bool inside = first + j < item.columns;
      const auto* from = args.b + (item.column + (inside ? first + j : 0)) * args.ldb + k0;
      for (int64_t k = 0; k < depth; ++k)
        panel[k * kPanel + j] = inside ? static_cast<C>(from[k]) : C{0};
    }
  }
}

// sum (kBlockRows, kPanel) += a (depth, kBlockRows)^T b (depth, kPanel).
template <class C>
HWY_INLINE void multiply_block(int64_t depth, const C* HWY_RESTRICT a, const C* HWY_RESTRICT b,
                               C* HWY_RESTRICT sum) {
  const Words<C> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr int64_t kPanel = Item<C>::kPanel;
  V<Words<C>> block[kBlockRows][kBlockWords];
#pragma GCC unroll 8
  for (int r = 0; r < kBlockRows; ++r) {
#pragma GCC unroll 4
    for (int w = 0; w < kBlockWords; ++w)
      block[r][w] = hn::Load(d, sum + r * Item<C>::kColumns + w * lanes);
  }
  for (int64_t k = 0; k < depth; ++k) {
    V<Words<C>> word[kBlockWords];
#pragma GCC unroll 4
    for (int w = 0; w < kBlockWords; ++w) word[w] = hn::Load(d, b + k * kPanel + w * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < kBlockRows; ++r) {
      const auto scale = hn::Set(d, a[k * kBlockRows + r]);
#pragma GCC unroll 4
      for (int w = 0; w < kBlockWords; ++w) block[r][w] = hn::MulAdd(scale, word[w], block[r][w]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kBlockRows; ++r) {
#pragma GCC unroll 4
    for (int w = 0; w < kBlockWords; ++w)
      hn::Store(block[r][w], d, sum + r * Item<C>::kColumns + w * lanes);
  }
}

// C = sum (+ bias) (+ C), rounded once.
template <class C, class Args>
void write_item(const GemmShape& shape, const Args& args, const Item<C>& item) {
  const Words<C> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < item.rows; ++i) {
    auto* to = args.c + (item.row + i) * args.ldc + item.column;
    for (int64_t j = 0; j < item.columns; j += lanes) {
      const auto left = static_cast<size_t>(std::min(lanes, item.columns - j));
      auto value = hn::Load(d, item.sum + i * Item<C>::kColumns + j);
      if (shape.bias) value = hn::Add(value, load_n(d, args.bias + item.column + j, left));
      if (shape.accumulate) value = hn::Add(value, load_n(d, to + j, left));
      store_n(value, d, to + j, left);
    }
  }
}

template <class C, class Args>
void multiply_item(const GemmShape& shape, const Args& args, Item<C>& item) {
  std::fill(item.sum, item.sum + kItemRows * Item<C>::kColumns, C{0});
  for (int64_t k0 = 0; k0 < shape.k; k0 += kDepth) {
    const int64_t depth = std::min(kDepth, shape.k - k0);
    pack_a(shape, args, k0, depth, item);
    if (shape.transpose_b) {
      pack_b_columns(args, k0, depth, item);
    } else {
      pack_b_rows(args, k0, depth, item);
    }
    for (int64_t j = 0; j < item.columns; j += Item<C>::kPanel) {
      for (int64_t i = 0; i < item.rows; i += kBlockRows) {
        multiply_block(depth, item.a + i * depth, item.b + j * depth,
                       item.sum + i * Item<C>::kColumns + j);
      }
    }
  }
  write_item(shape, args, item);
}

template <class TA, class TB, class TC>
void forward(const GemmShape& shape, const GemmArgs<TA, TB, TC>& args, Exec exec) {
  using C = accumulate_t<TA>;
  const int64_t row_items = (shape.m + kItemRows - 1) / kItemRows;
  const int64_t column_items = (shape.n + Item<C>::kColumns - 1) / Item<C>::kColumns;
  parallel_for(useful_threads(shape, exec.threads), row_items * column_items, [&](int64_t index) {
    Item<C> item;
    item.row = index % row_items * kItemRows;
    item.rows = std::min(kItemRows, shape.m - item.row);
    item.column = index / row_items * Item<C>::kColumns;
    item.columns = std::min(Item<C>::kColumns, shape.n - item.column);
    multiply_item(shape, args, item);
  });
}

}  // namespace

// HWY_EXPORT takes plain functions: one name for each choice of types.
#define ADDER_TARGET(TA, TB, TC, suffix) \
  ADDER_SIMD_FUNCTION(blocked_##suffix, forward, GemmShape, GemmArgs<TA, TB, TC>)
ADDER_GEMM_TYPES(ADDER_TARGET)
#undef ADDER_TARGET

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

#define ADDER_LINE(TA, TB, TC, suffix) \
  ADDER_SIMD_LINE(blocked_##suffix, blocked_forward, GemmShape, GemmArgs<TA, TB, TC>)
ADDER_GEMM_TYPES(ADDER_LINE)
#undef ADDER_LINE

}  // namespace adder
#endif
