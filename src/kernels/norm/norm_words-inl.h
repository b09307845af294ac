// Sums over a row buffer in a fixed order, once per target: four running vectors, then the tail,
// then the lanes. Include after core/simd-inl.h in a file that foreach_target.h compiles.

#if defined(ADDER_NORM_WORDS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_NORM_WORDS_INL_H_
#undef ADDER_NORM_WORDS_INL_H_
#else
#define ADDER_NORM_WORDS_INL_H_
#endif

#include <algorithm>
#include <cmath>

#include "core/simd-inl.h"
#include "core/threads.h"
#include "kernels/norm/norm_lines.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

// sum_i (a_i s) (b_i s)
template <class C>
HWY_NOINLINE C scaled_dot(const C* a, const C* b, int64_t count, C s) {
  const Words<C> d;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(count);
  const auto scale = hn::Set(d, s);
  auto sum0 = hn::Zero(d), sum1 = hn::Zero(d), sum2 = hn::Zero(d), sum3 = hn::Zero(d);
  const auto product = [&](size_t i, V<Words<C>> sum) HWY_ATTR {
    return hn::MulAdd(hn::Mul(hn::LoadU(d, a + i), scale), hn::Mul(hn::LoadU(d, b + i), scale),
                      sum);
  };
  size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    sum0 = product(i, sum0);
    sum1 = product(i + lanes, sum1);
    sum2 = product(i + 2 * lanes, sum2);
    sum3 = product(i + 3 * lanes, sum3);
  }
  for (; i < n; i += lanes) {
    const size_t rest = std::min(lanes, n - i);
    sum0 = hn::MulAdd(hn::Mul(load_n(d, a + i, rest), scale),
                      hn::Mul(load_n(d, b + i, rest), scale), sum0);
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3))));
}

// sum_i a_i s
template <class C>
HWY_NOINLINE C scaled_sum(const C* a, int64_t count, C s) {
  const Words<C> d;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(count);
  const auto scale = hn::Set(d, s);
  auto sum0 = hn::Zero(d), sum1 = hn::Zero(d), sum2 = hn::Zero(d), sum3 = hn::Zero(d);
  size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    sum0 = hn::MulAdd(hn::LoadU(d, a + i), scale, sum0);
    sum1 = hn::MulAdd(hn::LoadU(d, a + i + lanes), scale, sum1);
    sum2 = hn::MulAdd(hn::LoadU(d, a + i + 2 * lanes), scale, sum2);
    sum3 = hn::MulAdd(hn::LoadU(d, a + i + 3 * lanes), scale, sum3);
  }
  for (; i < n; i += lanes) {
    sum0 = hn::MulAdd(load_n(d, a + i, std::min(lanes, n - i)), scale, sum0);
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3))));
}

// Small enough that the squares of any finite row sum to a finite number; large enough that a row
// whose plain squares overflow keeps all its bits.
template <class C>
constexpr C overflow_scale() {
  return sizeof(C) == 4 ? static_cast<C>(0x1p-80) : static_cast<C>(0x1p-600);
}

// 1 / sqrt(mean(v^2) + eps). Rows whose squares overflow are summed again, scaled.
template <class C>
HWY_INLINE C reciprocal_rms(const C* v, int64_t count, C eps) {
  const auto n = static_cast<C>(count);
  const C sum = scaled_dot(v, v, count, C(1));
  if (HWY_LIKELY(std::isfinite(sum))) return 1 / std::sqrt(sum / n + eps);
  const C scale = overflow_scale<C>();
  return scale / std::sqrt(scaled_dot(v, v, count, scale) / n + eps * scale * scale);
}

template <class C>
HWY_INLINE C mean_of(const C* v, int64_t count) {
  const auto n = static_cast<C>(count);
  const C sum = scaled_sum(v, count, C(1));
  if (HWY_LIKELY(std::isfinite(sum))) return sum / n;
  const C scale = overflow_scale<C>();
  return scaled_sum(v, count, scale) / n / scale;
}

// out[c] (+)= sum over blocks of the partial rows, in index order; columns [first, last).
template <class C>
HWY_NOINLINE void reduce_blocks(const C* partials, int64_t stride, int64_t blocks, int64_t first,
                                int64_t last, bool accumulate, C* out) {
  const Words<C> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t c = first; c < last; c += lanes) {
    const auto n = static_cast<size_t>(std::min(lanes, last - c));
    auto sum = hn::Zero(d);
    for (int64_t i = 0; i < blocks; ++i) {
      sum = hn::Add(sum, load_n(d, partials + i * stride + c, n));
    }
    if (accumulate) sum = hn::Add(load_n(d, out + c, n), sum);
    store_n(sum, d, out + c, n);
  }
}

template <class C>
void reduce_all(int threads, const C* partials, int64_t stride, int64_t blocks, int64_t width,
                bool accumulate, C* out) {
  const int64_t items = (width + NormBlocks::kColumns - 1) / NormBlocks::kColumns;
  parallel_for(threads, items, [&](int64_t item) {
    const int64_t first = item * NormBlocks::kColumns;
    reduce_blocks(partials, stride, blocks, first, std::min(first + NormBlocks::kColumns, width),
                  accumulate, out);
  });
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
