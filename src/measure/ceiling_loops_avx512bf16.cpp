// Highway 1.0.3 has no bf16 dot product: intrinsics, compiled for AVX-512 BF16 in this file only
// and
// called behind CPUID.
#include "measure/ceiling_loops.h"

#if defined(__AVX512BF16__)

#include <immintrin.h>

namespace adder::measure {

double dot_products_bf16(int64_t rounds, double* sink) {
  constexpr int kChains = 12;
  const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.25f));
  const __m512bh b = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1.0f), _mm512_set1_ps(-2.0f));
  __m512 x[kChains];
  // Chains that start equal would be one chain to the compiler.
  for (int c = 0; c < kChains; ++c) x[c] = _mm512_set1_ps(static_cast<float>(c));
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) x[c] = _mm512_dpbf16_ps(x[c], a, b);
  }
  for (int c = 0; c < kChains; ++c) *sink += static_cast<double>(_mm512_cvtss_f32(x[c]));
  return 4.0 * kChains * 16.0 * static_cast<double>(rounds);  // two multiply-adds a lane
}

}  // namespace adder::measure

#else

namespace adder::measure {

double dot_products_bf16(int64_t, double*) { return 0; }

}  // namespace adder::measure

#endif
