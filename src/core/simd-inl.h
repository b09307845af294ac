// SIMD words on top of Highway, once per target. Include after hwy/highway.h inside a file that is
// compiled by foreach_target.h. C is the compute type (float or double); T the storage type.

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_CORE_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_CORE_SIMD_INL_H_
#undef ADDER_CORE_SIMD_INL_H_
#else
#define ADDER_CORE_SIMD_INL_H_
#endif

#include <hwy/highway.h>

#include <cmath>
#include <limits>
#include <type_traits>

#include "core/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class C>
using Words = hn::ScalableTag<C>;
template <class D>
using V = hn::Vec<D>;

// ---- storage <-> compute -------------------------------------------------------------------

/// Lanes(d) elements of storage type T as compute words; no alignment needed.
template <class D, class T>
HWY_INLINE V<D> load(D d, const T* from) {
  if constexpr (std::is_same_v<T, hn::TFromD<D>>) {
    return hn::LoadU(d, from);
  } else {
    static_assert(std::is_same_v<T, Bf16> && std::is_same_v<hn::TFromD<D>, float>);
    const hn::Rebind<uint16_t, D> d16;
    const hn::RebindToUnsigned<D> d32;
    const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from)));
    return hn::BitCast(d, hn::ShiftLeft<16>(bits));
  }
}

/// Rounds to nearest even into storage type T; NaN stays NaN.
template <class D, class T>
HWY_INLINE void store(V<D> value, D d, T* to) {
  if constexpr (std::is_same_v<T, hn::TFromD<D>>) {
    hn::StoreU(value, d, to);
  } else {
    static_assert(std::is_same_v<T, Bf16> && std::is_same_v<hn::TFromD<D>, float>);
    const hn::Rebind<uint16_t, D> d16;
    const hn::RebindToUnsigned<D> d32;
    const hn::RebindToSigned<D> d32s;
    const auto bits = hn::BitCast(d32, value);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1u));
    auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(d32, 0x7FFFu))));
    const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(d32, 0x40u));
    const auto is_nan = hn::RebindMask(d32, hn::IsNaN(value));
    rounded = hn::IfThenElse(is_nan, quiet, rounded);
    hn::StoreU(hn::DemoteTo(d16, hn::BitCast(d32s, rounded)), d16, reinterpret_cast<uint16_t*>(to));
  }
}

/// The first n <= Lanes(d) elements; the other lanes are 0. Never reads past from[n - 1].
template <class D, class T>
HWY_INLINE V<D> load_n(D d, const T* from, size_t n) {
  if (HWY_LIKELY(n >= hn::Lanes(d))) return load(d, from);
  HWY_ALIGN T lanes[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)] = {};
  for (size_t i = 0; i < n; ++i) lanes[i] = from[i];
  return load(d, lanes);
}

template <class D, class T>
HWY_INLINE void store_n(V<D> value, D d, T* to, size_t n) {
  if (HWY_LIKELY(n >= hn::Lanes(d))) return store(value, d, to);
  HWY_ALIGN T lanes[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)];
  store(value, d, lanes);
  for (size_t i = 0; i < n; ++i) to[i] = lanes[i];
}

/// Rounded to nearest; beyond the range of float it is infinity.
template <class D>
HWY_INLINE V<D> float_from_double(D d, V<hn::Rebind<double, D>> value) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(d, static_cast<float>(hn::GetLane(value)));  // DemoteTo would stop at the largest
#else
  return hn::DemoteTo(d, value);
#endif
}

/// The 24 leading bits of x, the last one set if anything follows: a float that a second rounding,
/// to 8 or 11 bits, treats as it would treat x.
template <class D>
HWY_INLINE V<D> sticky(D d, V<D> x) {
  const hn::RebindToUnsigned<D> du;
  const auto below = hn::Set(du, uint64_t{0x1FFFFFFF});
  const auto bits = hn::BitCast(du, x);
  const auto rest = hn::And(bits, below);
  const auto last = hn::Set(du, uint64_t{0x20000000});
  const auto kept = hn::AndNot(below, bits);
  const auto marked = hn::Or(kept, last);
  return hn::BitCast(d, hn::IfThenElse(hn::Eq(rest, hn::Zero(du)), kept, marked));
}

/// As store_n, with the bits that kernels/pointwise converts to: every NaN has one pattern, because
/// rounding would carry the largest payloads into the sign bit, and a double is rounded once.
template <class D, class T>
HWY_INLINE void store_converted_n(V<D> value, D d, T* to, size_t n) {
  if constexpr (std::is_same_v<T, hn::TFromD<D>>) {
    store_n(value, d, to, n);
  } else if constexpr (sizeof(hn::TFromD<D>) == 8) {
    const hn::Rebind<float, D> df;
    store_converted_n(float_from_double(df, sticky(d, value)), df, to, n);
  } else {
    const auto quiet = hn::Set(d, std::numeric_limits<float>::quiet_NaN());
    store_n(hn::IfThenElse(hn::IsNaN(value), quiet, value), d, to, n);
  }
}

// ---- transcendental functions ----------------------------------------------------------------

/// 2^x for x < 128: relative error below 1.2e-7 while 2^x is normal, 0 below 2^-126 (decays flush
/// to zero, math.md 0.5), NaN for NaN. Polynomial: least squares of the relative error of 2^f on
/// [-1/2, 1/2], 1.6e-8 with these rounded coefficients.
template <class D, std::enable_if_t<sizeof(hn::TFromD<D>) == 4>* = nullptr>
HWY_INLINE V<D> exp2_word(D d, V<D> x) {
  const hn::RebindToSigned<D> di;
  const auto magic = hn::Set(d, 0x1.8p23f);
  const auto shifted = hn::Add(x, magic);  // the integer part lands in the low bits
  const auto f = hn::Sub(x, hn::Sub(shifted, magic));
  auto p = hn::Set(d, 0.00015370704932138324f);
  p = hn::MulAdd(p, f, hn::Set(d, 0.0013399848248809576f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.009618373587727547f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.05550329014658928f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.24022647738456726f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.6931471824645996f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  const auto result = hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -126.0f)), result);
}

/// 2^x in double, x < 1024: relative error below 2^-51, 0 below 2^-1022.
template <class D, std::enable_if_t<sizeof(hn::TFromD<D>) == 8>* = nullptr>
HWY_INLINE V<D> exp2_word(D d, V<D> x) {
  const hn::RebindToSigned<D> di;
  const auto magic = hn::Set(d, 0x1.8p52);
  const auto shifted = hn::Add(x, magic);
  const auto f = hn::Mul(hn::Sub(x, hn::Sub(shifted, magic)), hn::Set(d, 0.6931471805599453));
  // e^f, |f| <= 0.347: Taylor to f^13 / 13! (truncation 5e-18).
  auto p = hn::Set(d, 1.0 / 6227020800.0);
  p = hn::MulAdd(p, f, hn::Set(d, 1.0 / 479001600.0));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0 / 39916800.0));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0 / 3628800.0));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0 / 362880.0));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0 / 40320.0));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0 / 5040.0));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0 / 720.0));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0 / 120.0));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0 / 24.0));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0 / 6.0));
  p = hn::MulAdd(p, f, hn::Set(d, 0.5));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0));
  const auto exponent = hn::ShiftLeft<52>(hn::BitCast(di, shifted));
  const auto result = hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -1022.0)), result);
}

/// e^x for x <= 88 (float) or 709 (double), a few ulp; flushes to zero where the result is
/// subnormal, NaN for NaN.
template <class D>
HWY_INLINE V<D> exp_word(D d, V<D> x) {
  using C = hn::TFromD<D>;
  const auto lowest = hn::Set(d, static_cast<C>(-1e4));  // keeps -inf out of the correction below
  x = hn::IfThenElse(hn::Lt(x, lowest), lowest, x);
  const auto log2e = hn::Set(d, static_cast<C>(1.4426950408889634));
  const auto scaled = hn::Mul(x, log2e);
  // Rounding x log2(e) would cost |x| ulp: what it lost is put back to first order.
  const auto lost = hn::MulSub(x, log2e, scaled);
  constexpr C kLog2eTail =
      sizeof(C) == 4 ? static_cast<C>(1.92596299112662e-8) : static_cast<C>(2.0355273740931032e-17);
  const auto tail = hn::MulAdd(x, hn::Set(d, kLog2eTail), lost);
  const auto base = exp2_word(d, scaled);
  return hn::MulAdd(base, hn::Mul(tail, hn::Set(d, static_cast<C>(0.6931471805599453))), base);
}

/// 1 / (1 + e^-x), no overflow at either end (math.md 0.3).
template <class D>
HWY_INLINE V<D> sigmoid_word(D d, V<D> x) {
  const auto one = hn::Set(d, static_cast<hn::TFromD<D>>(1));
  const auto e = exp_word(d, hn::Neg(hn::Abs(x)));
  const auto denominator = hn::Add(one, e);
  return hn::Div(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one), denominator);
}

/// log(1 + y) for y in [0, 1]: 2 atanh(y / (2 + y)) by its odd series.
template <class D>
HWY_INLINE V<D> log1p_unit_word(D d, V<D> y) {
  using C = hn::TFromD<D>;
  const auto r = hn::Div(y, hn::Add(y, hn::Set(d, static_cast<C>(2))));
  const auto r2 = hn::Mul(r, r);  // r <= 1/3
  constexpr int kTerms = sizeof(C) == 4 ? 15 : 33;
  auto sum = hn::Set(d, static_cast<C>(1.0 / kTerms));
  for (int k = kTerms - 2; k >= 1; k -= 2) {
    sum = hn::MulAdd(sum, r2, hn::Set(d, static_cast<C>(1.0 / k)));
  }
  return hn::Mul(hn::Add(r, r), sum);
}

/// softplus(x) = log1p(e^x) for x <= 20, x above (math.md 0.3), as max(x, 0) + log1p(e^-|x|).
template <class D>
HWY_INLINE V<D> softplus_word(D d, V<D> x) {
  const auto soft =
      hn::Add(hn::Max(x, hn::Zero(d)), log1p_unit_word(d, exp_word(d, hn::Neg(hn::Abs(x)))));
  return hn::IfThenElse(hn::Gt(x, hn::Set(d, static_cast<hn::TFromD<D>>(20))), x, soft);
}

/// The parts of sigmoid(x) as root * root * rest: for x < 0 e^x alone would leave the normal range
/// while x e^x is still in it, e^(x/2) does not.
template <class D>
struct SigmoidParts {
  V<D> root;   // e^(x/2) for x < 0, else 1
  V<D> rest;   // 1 / (1 + e^-|x|)
  V<D> other;  // 1 - sigmoid(x)
};

template <class D>
HWY_INLINE SigmoidParts<D> sigmoid_parts(D d, V<D> x) {
  using C = hn::TFromD<D>;
  const auto one = hn::Set(d, static_cast<C>(1));
  const auto half = exp_word(d, hn::Mul(hn::Neg(hn::Abs(x)), hn::Set(d, static_cast<C>(0.5))));
  const auto e = hn::Mul(half, half);
  const auto rest = hn::Div(one, hn::Add(one, e));
  const auto negative = hn::Lt(x, hn::Zero(d));
  return {hn::IfThenElse(negative, half, one), rest,
          hn::IfThenElse(negative, rest, hn::Mul(e, rest))};
}

/// x sigmoid(x).
template <class D>
HWY_INLINE V<D> silu_word(D d, V<D> x) {
  const auto parts = sigmoid_parts(d, x);
  return hn::Mul(hn::Mul(hn::Mul(x, parts.root), parts.rest), parts.root);
}

/// silu'(x) = s (1 + x (1 - s)), s = sigmoid(x).
template <class D>
HWY_INLINE V<D> silu_slope_word(D d, V<D> x) {
  const auto parts = sigmoid_parts(d, x);
  const auto factor = hn::MulAdd(x, parts.other, hn::Set(d, static_cast<hn::TFromD<D>>(1)));
  return hn::Mul(hn::Mul(hn::Mul(factor, parts.root), parts.rest), parts.root);
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
