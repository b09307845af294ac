// Products of bf16 matrices by the dot product of AVX-512 BF16, and the operands of every bf16
// product. Compiled for those instructions in this file only and called behind CPUID.
#include "kernels/ssd/ssd_chunk_bf16.h"

#if defined(__AVX512BF16__)

#include <immintrin.h>

#include <algorithm>

namespace adder::ssd {
namespace {

constexpr int64_t kLanes = 16;
// Full masks: gcc 12 warns of the undefined operand inside the forms without one.
constexpr __mmask8 kAll64 = 0xFF;
constexpr __mmask16 kAll32 = 0xFFFF;
constexpr __mmask32 kAll16 = 0xFFFFFFFFu;

// ---- operands -----------------------------------------------------------------------------------

__mmask16 first(int64_t n) {
  return n >= kLanes ? __mmask16(0xFFFF) : __mmask16((1u << std::max<int64_t>(n, 0)) - 1u);
}

// Columns [c, c + 16) of row r; zeros outside.
__m512 word(const FloatMatrix& m, int64_t r, int64_t c) {
  if (r >= m.rows) return _mm512_setzero_ps();
  return _mm512_maskz_loadu_ps(first(m.cols - c), m.data + r * m.row + c);
}

// 32 bf16: `low` then `high`.
__m512i rounded(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

// 16 pairs: lane i is (low_i, high_i).
__m512i pairs_of(__m512 low, __m512 high) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_maskz_permutexvar_epi16(kAll16, order, rounded(low, high));
}

// 16 x 16 transpose of 32-bit lanes in place.
void transpose(__m512i (&r)[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_maskz_unpacklo_epi32(kAll32, r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_maskz_unpackhi_epi32(kAll32, r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_maskz_unpacklo_epi64(kAll64, t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_maskz_unpackhi_epi64(kAll64, t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_maskz_unpacklo_epi64(kAll64, t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_maskz_unpackhi_epi64(kAll64, t[4 * i + 1], t[4 * i + 3]);
  }
  // r[4 i + c]: in 128-bit block b, column 4 b + c of rows 4 i .. 4 i + 3.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i low02 = _mm512_maskz_shuffle_i32x4(kAll32, r[c], r[4 + c], 0x88);
    const __m512i low13 = _mm512_maskz_shuffle_i32x4(kAll32, r[c], r[4 + c], 0xDD);
    const __m512i high02 = _mm512_maskz_shuffle_i32x4(kAll32, r[8 + c], r[12 + c], 0x88);
    const __m512i high13 = _mm512_maskz_shuffle_i32x4(kAll32, r[8 + c], r[12 + c], 0xDD);
    t[c] = _mm512_maskz_shuffle_i32x4(kAll32, low02, high02, 0x88);
    t[8 + c] = _mm512_maskz_shuffle_i32x4(kAll32, low02, high02, 0xDD);
    t[4 + c] = _mm512_maskz_shuffle_i32x4(kAll32, low13, high13, 0x88);
    t[12 + c] = _mm512_maskz_shuffle_i32x4(kAll32, low13, high13, 0xDD);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

}  // namespace

void pack_left(const FloatMatrix& m, uint16_t* out, int64_t row) {
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; c += kDepthBlock) {
      _mm512_storeu_si512(out + r * row + c, rounded(word(m, r, c), word(m, r, c + kLanes)));
    }
  }
}

void pack_right(const FloatMatrix& m, uint32_t* out, int64_t row) {
  const int64_t depth = (m.rows + kDepthBlock - 1) / kDepthBlock * kDepthBlock;
  for (int64_t k = 0; k < depth; k += 2) {
    for (int64_t c = 0; c < m.cols; c += kLanes) {
      _mm512_storeu_si512(out + k / 2 * row + c, pairs_of(word(m, k, c), word(m, k + 1, c)));
    }
  }
}

void pack_left_t(const FloatMatrix& m, uint16_t* out, int64_t row) {
  for (int64_t k = 0; k < m.rows; k += kDepthBlock) {
    for (int64_t c = 0; c < m.cols; c += kLanes) {
      __m512i block[16];
#pragma GCC unroll 16
      for (int64_t i = 0; i < 16; ++i) {
        block[i] = pairs_of(word(m, k + 2 * i, c), word(m, k + 2 * i + 1, c));
      }
      transpose(block);
#pragma GCC unroll 16
      for (int64_t i = 0; i < 16; ++i) _mm512_storeu_si512(out + (c + i) * row + k, block[i]);
    }
  }
}

void pack_right_t(const FloatMatrix& m, float scale, uint32_t* out, int64_t row) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (int64_t k = 0; k < m.cols; k += kDepthBlock) {
    for (int64_t r = 0; r < m.rows; r += kLanes) {
      __m512i block[16];
#pragma GCC unroll 16
      for (int64_t i = 0; i < 16; ++i) {
        block[i] = rounded(_mm512_mul_ps(factor, word(m, r + i, k)),
                           _mm512_mul_ps(factor, word(m, r + i, k + kLanes)));
      }
      transpose(block);
#pragma GCC unroll 16
      for (int64_t i = 0; i < 16; ++i) {
        _mm512_storeu_si512(out + (k / 2 + i) * row + r, block[i]);
      }
    }
  }
}

namespace {

// ---- products -----------------------------------------------------------------------------------

template <int kRows, int kWords>
void multiply_block(const Bf16Product& p, int64_t i, int64_t j) {
  __m512 sum[kRows][kWords];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int w = 0; w < kWords; ++w) sum[r][w] = _mm512_setzero_ps();
  }
  for (const Bf16Term& term : p.terms) {
    const int64_t end = term.lower ? std::min(term.depth, i + kRows) : term.depth;
    const uint16_t* left = term.left + i * term.left_row;
    for (int64_t k = term.upper ? i / 2 * 2 : 0; k < end; k += 2) {
      const uint32_t* right = term.right + k / 2 * term.right_row + j;
      __m512bh word[kWords];
#pragma GCC unroll 4
      for (int w = 0; w < kWords; ++w) {
        word[w] = (__m512bh)_mm512_loadu_si512(right + w * kLanes);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        int32_t pair;
        __builtin_memcpy(&pair, left + r * term.left_row + k, sizeof(pair));
        const auto value = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
        for (int w = 0; w < kWords; ++w) {
          sum[r][w] = _mm512_dpbf16_ps(sum[r][w], value, word[w]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int w = 0; w < kWords; ++w) {
      float* to = p.out + (i + r) * p.out_row + j + w * kLanes;
      _mm512_storeu_ps(to, p.add ? _mm512_add_ps(_mm512_loadu_ps(to), sum[r][w]) : sum[r][w]);
    }
  }
}

template <int kWords>
void multiply_columns(const Bf16Product& p, int64_t j) {
  constexpr int kRows = 6;
  int64_t i = p.lower ? j / kRows * kRows : 0;
  for (; i + kRows <= p.rows; i += kRows) multiply_block<kRows, kWords>(p, i, j);
  for (; i + 2 <= p.rows; i += 2) multiply_block<2, kWords>(p, i, j);
  if (i < p.rows) multiply_block<1, kWords>(p, i, j);
}

void multiply(const Bf16Product& p) {
  int64_t j = 0;
  for (; !p.lower && p.cols - j > 3 * kLanes; j += 4 * kLanes) multiply_columns<4>(p, j);
  for (; j < p.cols; j += 2 * kLanes) multiply_columns<2>(p, j);
}

void nothing() {}

}  // namespace

const Bf16Units& avx512bf16_units() {
  static constexpr Bf16Units kUnits{multiply, nothing, nothing};
  return kUnits;
}

}  // namespace adder::ssd

#else

#include "core/error.h"

namespace adder::ssd {

// Never called: no line that needs them accepts anything here.
void pack_left(const FloatMatrix&, uint16_t*, int64_t) { ADDER_CHECK(false); }
void pack_left_t(const FloatMatrix&, uint16_t*, int64_t) { ADDER_CHECK(false); }
void pack_right(const FloatMatrix&, uint32_t*, int64_t) { ADDER_CHECK(false); }
void pack_right_t(const FloatMatrix&, float, uint32_t*, int64_t) { ADDER_CHECK(false); }
const Bf16Units& avx512bf16_units() {
  static constexpr Bf16Units kNone{};
  ADDER_CHECK(false);
  return kNone;
}

}  // namespace adder::ssd

#endif
