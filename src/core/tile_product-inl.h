// Products of small row-major matrices that live in the first caches, once per target. Include
// after hwy/highway.h inside a file that is compiled by foreach_target.h. C is float or double.
//
//   out[i][j] = base_scale base[i][j] + scale (sum over terms, sum_k a[i a_row + k a_step] b[k][j])
//
// Blocks of rows x words of the result stay in registers while k runs in order: one fixed order of
// sums for every call. An operand `a` is read one value at a time, so a transposed one is a swap of
// its strides; `b` is read by words.

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_CORE_TILE_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_CORE_TILE_PRODUCT_INL_H_
#undef ADDER_CORE_TILE_PRODUCT_INL_H_
#else
#define ADDER_CORE_TILE_PRODUCT_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

/// The k that a row i of `a` has: in a triangle they stop (lower) or begin (upper) at the diagonal.
/// Rows are handled in blocks, so that up to kTileRows - 1 entries past the diagonal are read: they
/// must hold zeros.
enum class Reach : uint8_t { full, lower, upper };

template <class C>
struct TileTerm {
  const C* a = nullptr;
  int64_t a_row = 0;
  int64_t a_step = 1;
  const C* b = nullptr;
  int64_t b_row = 0;
  int64_t depth = 0;  // values of k
  Reach reach = Reach::full;
};

template <class C>
struct TileProduct {
  int64_t rows = 0;
  int64_t cols = 0;  // whole words: rows of b and out are padded
  C* out = nullptr;
  int64_t out_row = 0;
  bool add = false;  // the same as base = out
  C scale = 1;
  const C* base = nullptr;  // may be out; absent: zero
  int64_t base_row = 0;
  C base_scale = 1;
  // Only the columns j <= i are wanted (more may be written).
  bool lower_out = false;
  TileTerm<C> terms[2] = {};  // the second may have depth 0
};

// 32 registers on AVX-512 and NEON, 16 on AVX2: 24 or 12 sums, the words of b, one value of a.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SCALAR
inline constexpr int64_t kTileWords = 2;
#else
inline constexpr int64_t kTileWords = 4;
#endif
/// Rows of a register block that is `words` wide.
constexpr int64_t tile_rows(int64_t words) {
  if (kTileWords == 2) return words == 2 ? 6 : 8;
  return words == 4 ? 6 : words == 3 ? 8 : 12;
}
inline constexpr int64_t kTileRows = 12;

template <int kRows, int kWords, class C>
HWY_INLINE void tile_block(const TileProduct<C>& p, int64_t i, int64_t j) {
  const Words<C> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  V<Words<C>> sum[kRows][kWords];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int w = 0; w < kWords; ++w) sum[r][w] = hn::Zero(d);
  }
#pragma GCC unroll 1
  for (int t = 0; t < 2; ++t) {
    const TileTerm<C>& term = p.terms[t];
    const int64_t end = term.reach == Reach::lower ? HWY_MIN(term.depth, i + kRows) : term.depth;
    const int64_t begin = term.reach == Reach::upper ? i : 0;
    const int64_t row = term.a_row, step = term.a_step, b_row = term.b_row;
    const C* HWY_RESTRICT a = term.a + i * row + begin * step;
    const C* HWY_RESTRICT b = term.b + begin * b_row + j;
    for (int64_t k = begin; k < end; ++k) {
      V<Words<C>> word[kWords];
#pragma GCC unroll 4
      for (int w = 0; w < kWords; ++w) word[w] = hn::LoadU(d, b + w * lanes);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const auto value = hn::Set(d, a[r * row]);
#pragma GCC unroll 4
        for (int w = 0; w < kWords; ++w) sum[r][w] = hn::MulAdd(value, word[w], sum[r][w]);
      }
      a += step;
      b += b_row;
    }
  }
  const auto scale = hn::Set(d, p.scale), base_scale = hn::Set(d, p.base_scale);
  C* out = p.out + i * p.out_row + j;
  const C* base = p.base != nullptr ? p.base + i * p.base_row + j : nullptr;
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int w = 0; w < kWords; ++w) {
      auto value = hn::Mul(scale, sum[r][w]);
      if (base != nullptr) {
        value = hn::MulAdd(base_scale, hn::LoadU(d, base + r * p.base_row + w * lanes), value);
      }
      hn::StoreU(value, d, out + r * p.out_row + w * lanes);
    }
  }
}

/// Rows [i, rows) of the column block at j, in register blocks; the last rows in smaller ones.
template <int kWords, class C>
void tile_columns(const TileProduct<C>& p, int64_t j) {
  constexpr int kRows = static_cast<int>(tile_rows(kWords));
  int64_t i = p.lower_out ? j / kRows * kRows : 0;  // rows above have no wanted column here
  for (; i + kRows <= p.rows; i += kRows) tile_block<kRows, kWords>(p, i, j);
  if (p.rows - i >= 8) {
    tile_block<HWY_MIN(8, kRows), kWords>(p, i, j);
    i += 8;
  }
  if (p.rows - i >= 4) {
    tile_block<4, kWords>(p, i, j);
    i += 4;
  }
  if (p.rows - i >= 2) {
    tile_block<2, kWords>(p, i, j);
    i += 2;
  }
  if (p.rows - i >= 1) tile_block<1, kWords>(p, i, j);
}

template <class C>
void tile_product(TileProduct<C> p) {
  if (p.add) {
    p.base = p.out;
    p.base_row = p.out_row;
  }
  const auto lanes = static_cast<int64_t>(hn::Lanes(Words<C>()));
  int64_t j = 0;
  if constexpr (kTileWords == 4) {
    // Narrower blocks follow a diagonal more closely.
    for (; !p.lower_out && p.cols - j >= 4 * lanes; j += 4 * lanes) tile_columns<4>(p, j);
    if (!p.lower_out && p.cols - j >= 3 * lanes) {
      tile_columns<3>(p, j);
      j += 3 * lanes;
    }
  }
  for (; p.cols - j >= 2 * lanes; j += 2 * lanes) tile_columns<2>(p, j);
  if (p.cols - j >= lanes) tile_columns<1>(p, j);
}

/// to[c][r] = scale from[r][c], r < rows, c < cols. Blocks of 128 bits; the rest one by one.
template <class C>
void transpose_tile(const C* from, int64_t from_row, int64_t rows, int64_t cols, C scale, C* to,
                    int64_t to_row) {
  int64_t r = 0;
#if HWY_TARGET != HWY_SCALAR
  constexpr int64_t kSide = 16 / static_cast<int64_t>(sizeof(C));
  const hn::CappedTag<C, static_cast<size_t>(kSide)> d;
  const auto factor = hn::Set(d, scale);
  for (; r + kSide <= rows; r += kSide) {
    int64_t c = 0;
    for (; c + kSide <= cols; c += kSide) {
      const C* in = from + r * from_row + c;
      C* out = to + c * to_row + r;
      const auto load_row = [&](int64_t i) HWY_ATTR {
        return hn::Mul(hn::LoadU(d, in + i * from_row), factor);
      };
      if constexpr (kSide == 2) {
        const auto a = load_row(0), b = load_row(1);
        hn::StoreU(hn::InterleaveLower(d, a, b), d, out);
        hn::StoreU(hn::InterleaveUpper(d, a, b), d, out + to_row);
      } else {
        const auto a = load_row(0), b = load_row(1), e = load_row(2), f = load_row(3);
        const auto low_even = hn::InterleaveLower(d, a, e), low_odd = hn::InterleaveLower(d, b, f);
        const auto high_even = hn::InterleaveUpper(d, a, e);
        const auto high_odd = hn::InterleaveUpper(d, b, f);
        hn::StoreU(hn::InterleaveLower(d, low_even, low_odd), d, out);
        hn::StoreU(hn::InterleaveUpper(d, low_even, low_odd), d, out + to_row);
        hn::StoreU(hn::InterleaveLower(d, high_even, high_odd), d, out + 2 * to_row);
        hn::StoreU(hn::InterleaveUpper(d, high_even, high_odd), d, out + 3 * to_row);
      }
    }
    for (; c < cols; ++c) {
      for (int64_t i = r; i < r + kSide; ++i) to[c * to_row + i] = scale * from[i * from_row + c];
    }
  }
#endif
  for (; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) to[c * to_row + r] = scale * from[r * from_row + c];
  }
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
