// The words of the selective scan: decay, softplus, sigmoid, strided loads, and the exchange
// between rows of states (channel, state) and words of channels (state, lane). The file is compiled
// once for each target; C is the compute type, T the storage type.

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_KERNELS_S6_WORDS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_KERNELS_S6_WORDS_INL_H_
#undef ADDER_KERNELS_S6_WORDS_INL_H_
#else
#define ADDER_KERNELS_S6_WORDS_INL_H_
#endif

#include <hwy/highway.h>

#include <type_traits>

#include "core/simd-inl.h"
#include "kernels/s6/s6_plan.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

/// Lanes of a word as a constant: every target here has fixed width.
template <class C>
inline constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(Words<C>()));

inline constexpr double kLog2E = 1.4426950408889634;
inline constexpr double kLn2 = 0.6931471805599453;

/// 2^f for |f| <= 1/2, exact at 0 so that slow decays stay slow; relative error 9.2e-8 (minimax
/// under that condition, coefficients rounded to float).
template <class D, std::enable_if_t<sizeof(hn::TFromD<D>) == 4>* = nullptr>
HWY_INLINE V<D> exp2_fraction(D d, V<D> f) {
  auto p = hn::Set(d, 0.0013264714507386088f);
  p = hn::MulAdd(p, f, hn::Set(d, 0.009671513922512531f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.05550733953714371f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.24022242426872253f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.6931470036506653f));
  return hn::MulAdd(p, f, hn::Set(d, 1.0f));
}

#if HWY_TARGET == HWY_AVX3
// Highway 1.0.3 has no word for VREDUCE and VSCALEF; both run on both vector ports.

/// x - floor(x), in [0, 1]; 0 at -inf.
template <class D>
HWY_INLINE V<D> above_floor(D, V<D> x) {
  return V<D>{_mm512_reduce_ps(x.raw, _MM_FROUND_TO_NEG_INF)};
}
/// p 2^floor(x), exact zero at x = -inf.
template <class D>
HWY_INLINE V<D> scale_by_floor(D, V<D> p, V<D> x) {
  return V<D>{_mm512_scalef_ps(p.raw, x.raw)};
}
/// 2^f on [0, 1], exact at both ends so that slow decays stay slow (just below 0, x lies just below
/// the upper end): 1 + f (c[4] + ... + c[0] f^4), relative error 9.3e-8 (minimax under these
/// conditions) before rounding.
inline constexpr float kExp2FromFloor[] = {0.001879318617284298f, 0.008990994654595852f,
                                           0.05581867694854736f,  0.240159273147583f,
                                           0.6931517124176025f,   1.0f};
#endif

/// The decay 2^(delta a2), a2 = A log2(e). Zero below 2^-126 and at -inf (math.md 0.5); relative
/// error 1.8e-7 plus that of a2.
template <class D, std::enable_if_t<sizeof(hn::TFromD<D>) == 4>* = nullptr>
HWY_INLINE V<D> decay_word(D d, V<D> delta, V<D> a2) {
#if HWY_TARGET == HWY_AVX3
  const auto x = hn::Mul(delta, a2);
  const auto f = above_floor(d, x);
  auto p = hn::Set(d, kExp2FromFloor[0]);
#pragma GCC unroll 8
  for (int k = 1; k < 6; ++k) p = hn::MulAdd(p, f, hn::Set(d, kExp2FromFloor[k]));
  return scale_by_floor(d, p, x);
#else
  const hn::RebindToSigned<D> di;
  const auto magic = hn::Set(d, 0x1.8p23f);
  const auto shifted = hn::MulAdd(delta, a2, magic);  // the integer part lands in the low bits
  const auto f = hn::MulAdd(delta, a2, hn::Sub(magic, shifted));
  const auto p = exp2_fraction(d, f);
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  const auto result = hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
  return hn::IfThenZeroElse(hn::Lt(shifted, hn::Set(d, 0x1.8p23f - 126.0f)), result);
#endif
}
template <class D, std::enable_if_t<sizeof(hn::TFromD<D>) == 8>* = nullptr>
HWY_INLINE V<D> decay_word(D d, V<D> delta, V<D> a2) {
  return exp2_word(d, hn::Mul(delta, a2));
}

/// e^x for x <= 0 within 2 ulp, zero below 2^-126 (under FlushSubnormals).
template <class D, std::enable_if_t<sizeof(hn::TFromD<D>) == 4>* = nullptr>
HWY_INLINE V<D> exp_nonpositive(D d, V<D> x) {
  x = hn::Max(hn::Set(d, -104.0f), x);  // the value second: NaN stays; -inf would become NaN
  const auto magic = hn::Set(d, 0x1.8p23f);
  const auto shifted = hn::MulAdd(x, hn::Set(d, static_cast<float>(kLog2E)), magic);
  const auto n = hn::Sub(shifted, magic);
  // ln 2 in two parts; the first has 16 bits, so n times it is exact.
  auto r = hn::NegMulAdd(n, hn::Set(d, 0x1.62e4p-1f), x);
  r = hn::NegMulAdd(n, hn::Set(d, 0x1.7f7d1cp-20f), r);
  auto p = hn::Set(d, 0.0013814548728987575f);  // minimax e^r, |r| <= ln(2)/2, 3.1e-9
  p = hn::MulAdd(p, r, hn::Set(d, 0.008368715643882751f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.04166838899254799f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.1666652113199234f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.4999999403953552f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
#if HWY_TARGET == HWY_AVX3
  return V<D>{_mm512_scalef_ps(p.raw, n.raw)};
#else
  const hn::RebindToSigned<D> di;
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  const auto result = hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
  return hn::IfThenZeroElse(hn::Lt(n, hn::Set(d, -126.0f)), result);
#endif
}
template <class D, std::enable_if_t<sizeof(hn::TFromD<D>) == 8>* = nullptr>
HWY_INLINE V<D> exp_nonpositive(D d, V<D> x) {
  return exp_word(d, x);
}

/// log(1 + y) for y in [0, 1], relative error 3.4e-8 before rounding; no division.
template <class D, std::enable_if_t<sizeof(hn::TFromD<D>) == 4>* = nullptr>
HWY_INLINE V<D> log1p_fraction(D d, V<D> y) {
  auto p = hn::Set(d, 0.005364483688026667f);
  p = hn::MulAdd(p, y, hn::Set(d, -0.030064430087804794f));
  p = hn::MulAdd(p, y, hn::Set(d, 0.0792023241519928f));
  p = hn::MulAdd(p, y, hn::Set(d, -0.1375361531972885f));
  p = hn::MulAdd(p, y, hn::Set(d, 0.19153568148612976f));
  p = hn::MulAdd(p, y, hn::Set(d, -0.24857142567634583f));
  p = hn::MulAdd(p, y, hn::Set(d, 0.333213210105896f));
  p = hn::MulAdd(p, y, hn::Set(d, -0.49999648332595825f));
  return hn::MulAdd(hn::Mul(p, y), y, y);
}
template <class D, std::enable_if_t<sizeof(hn::TFromD<D>) == 8>* = nullptr>
HWY_INLINE V<D> log1p_fraction(D d, V<D> y) {
  return log1p_unit_word(d, y);
}

/// 1 / x for x in [1, 2]: the hardware's estimate and Newton steps instead of a division, which
/// would occupy its unit for ten cycles.
template <class D, std::enable_if_t<sizeof(hn::TFromD<D>) == 4>* = nullptr>
HWY_INLINE V<D> reciprocal_word(D d, V<D> x) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Div(hn::Set(d, 1.0f), x);
#else
  const auto one = hn::Set(d, 1.0f);
  auto r = hn::ApproximateReciprocal(x);  // 8 bits on NEON, 11 on AVX2, 14 on AVX-512
#if HWY_TARGET != HWY_AVX3
  r = hn::MulAdd(r, hn::NegMulAdd(r, x, one), r);
#endif
  return hn::MulAdd(r, hn::NegMulAdd(r, x, one), r);
#endif
}
template <class D, std::enable_if_t<sizeof(hn::TFromD<D>) == 8>* = nullptr>
HWY_INLINE V<D> reciprocal_word(D d, V<D> x) {
  return hn::Div(hn::Set(d, 1.0), x);
}

/// sigmoid(x) from e = e^-|x|.
template <class D>
HWY_INLINE V<D> sigmoid_of(D d, V<D> x, V<D> e) {
  const auto one = hn::Set(d, static_cast<hn::TFromD<D>>(1));
  const auto r = reciprocal_word(d, hn::Add(one, e));
  return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Mul(e, r), r);
}
template <class D>
HWY_INLINE V<D> exp_minus_abs(D d, V<D> x) {
  return exp_nonpositive(d, hn::Or(x, hn::SignBit(d)));
}

/// softplus(x) from e = e^-|x|: max(x, 0) + log1p(e), x itself above 20 (math.md 0.3).
template <class D>
HWY_INLINE V<D> softplus_of(D d, V<D> x, V<D> e) {
  const auto soft = hn::Add(hn::Max(hn::Zero(d), x), log1p_fraction(d, e));
  return hn::IfThenElse(hn::Gt(x, hn::Set(d, static_cast<hn::TFromD<D>>(20))), x, soft);
}

/// `lanes` <= kLanes channels from `from` on, `stride` elements apart; the other lanes are 0.
template <class D, class T>
HWY_INLINE V<D> load_channels(D d, const T* from, int64_t stride, int64_t lanes) {
  if (HWY_LIKELY(stride == 1)) return load_n(d, from, static_cast<size_t>(lanes));
  HWY_ALIGN T packed[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)] = {};
  for (int64_t i = 0; i < lanes; ++i) packed[i] = from[i * stride];
  return load(d, packed);
}
template <class D, class T>
HWY_INLINE void store_channels(V<D> value, D d, T* to, int64_t stride, int64_t lanes) {
  if (HWY_LIKELY(stride == 1)) return store_n(value, d, to, static_cast<size_t>(lanes));
  HWY_ALIGN T packed[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)] = {};
  store(value, d, packed);
  for (int64_t i = 0; i < lanes; ++i) to[i * stride] = packed[i];
}

#if HWY_TARGET != HWY_SCALAR
/// Four words of floats as columns: in each 128-bit block, a 4 x 4 transpose. Its own inverse.
template <class D>
HWY_INLINE void transpose_blocks(D d, V<D> words[4]) {
  const hn::Repartition<double, D> dd;
  const auto a = hn::BitCast(dd, hn::InterleaveLower(d, words[0], words[1]));
  const auto b = hn::BitCast(dd, hn::InterleaveLower(d, words[2], words[3]));
  const auto c = hn::BitCast(dd, hn::InterleaveUpper(d, words[0], words[1]));
  const auto e = hn::BitCast(dd, hn::InterleaveUpper(d, words[2], words[3]));
  words[0] = hn::BitCast(d, hn::InterleaveLower(dd, a, b));
  words[1] = hn::BitCast(d, hn::InterleaveUpper(dd, a, b));
  words[2] = hn::BitCast(d, hn::InterleaveLower(dd, c, e));
  words[3] = hn::BitCast(d, hn::InterleaveUpper(dd, c, e));
}

/// The sums over the lanes of four words, in a fixed order.
inline void sum_lanes(const float* words, float* sums) {
  const Words<float> d;
  const hn::Repartition<double, Words<float>> dd;
  const auto pair = [&](const float* at) {
    const auto x = hn::Load(d, at);
    const auto y = hn::Load(d, at + kLanes<float>);
    return hn::BitCast(dd, hn::Add(hn::InterleaveLower(d, x, y), hn::InterleaveUpper(d, x, y)));
  };
  const auto low = pair(words);
  const auto high = pair(words + 2 * kLanes<float>);
  HWY_ALIGN float blocks[kLanes<float>];
  hn::Store(hn::Add(hn::BitCast(d, hn::InterleaveLower(dd, low, high)),
                    hn::BitCast(d, hn::InterleaveUpper(dd, low, high))),
            d, blocks);
  const hn::FixedTag<float, 4> d4;
  auto sum = hn::Load(d4, blocks);
  for (int64_t i = 4; i < kLanes<float>; i += 4) sum = hn::Add(sum, hn::Load(d4, blocks + i));
  hn::StoreU(sum, d4, sums);
}

/// In block k the four floats at from + 4 k stride.
template <class D>
HWY_INLINE V<D> load_blocks(D d, const float* from, int64_t stride) {
  if constexpr (hn::MaxLanes(d) == 4) {
    return hn::LoadU(d, from);
  } else {
    const hn::Half<D> half;
    constexpr auto kHalf = static_cast<int64_t>(hn::MaxLanes(half));
    return hn::Combine(d, load_blocks(half, from + kHalf * stride, stride),
                       load_blocks(half, from, stride));
  }
}

/// Four states of one word of channels from their rows; `stride` from channel to channel.
inline void four_words_from_rows(const float* from, int64_t stride, float* to) {
  const Words<float> d;
  V<Words<float>> words[4];
  for (int64_t j = 0; j < 4; ++j) words[j] = load_blocks(d, from + j * stride, stride);
  transpose_blocks(d, words);
  for (int64_t j = 0; j < 4; ++j) hn::Store(words[j], d, to + j * kLanes<float>);
}
inline void four_words_to_rows(const float* from, int64_t stride, float* to) {
  const Words<float> d;
  const hn::FixedTag<float, 4> d4;
  V<Words<float>> words[4];
  for (int64_t j = 0; j < 4; ++j) words[j] = hn::Load(d, from + j * kLanes<float>);
  transpose_blocks(d, words);
  for (int64_t j = 0; j < 4; ++j) {
    HWY_ALIGN float rows[kLanes<float>];
    hn::Store(words[j], d, rows);
    for (int64_t c = 0; c < kLanes<float>; c += 4) {
      hn::StoreU(hn::Load(d4, rows + c), d4, to + (c + j) * stride);
    }
  }
}
#endif

/// The sums over the lanes of kStateBlock words.
template <class C>
inline void sum_lanes(const C* words, C* sums) {
  const Words<C> d;
  for (int64_t n = 0; n < s6::kStateBlock; ++n) {
    sums[n] = hn::GetLane(hn::SumOfLanes(d, hn::Load(d, words + n * kLanes<C>)));
  }
}

template <class C>
inline constexpr bool kTransposes = HWY_TARGET != HWY_SCALAR && sizeof(C) == 4;

/// States [0, states) of `channels` rows at `from`, `stride` apart, -> words (padded, kLanes) at
/// `to`; missing channels and states become 0. `from` == nullptr stands for zeros.
template <class C>
inline void words_from_rows(const C* from, int64_t stride, int64_t channels, int64_t states,
                            int64_t padded, C* to) {
  constexpr int64_t kWidth = kLanes<C>;
  if (from == nullptr || channels < kWidth) {
    for (int64_t i = 0; i < padded * kWidth; ++i) to[i] = 0;
    if (from == nullptr) return;
  }
  int64_t n = 0;
#if HWY_TARGET != HWY_SCALAR
  if constexpr (kTransposes<C>) {
    if (channels == kWidth) {
      for (; n + 4 <= states; n += 4) four_words_from_rows(from + n, stride, to + n * kWidth);
    }
  }
#endif
  for (; n < states; ++n) {
    for (int64_t c = 0; c < channels; ++c) to[n * kWidth + c] = from[c * stride + n];
  }
  for (int64_t i = states * kWidth; i < padded * kWidth; ++i) to[i] = 0;
}
/// The inverse: words (states, kLanes) -> rows.
template <class C>
inline void rows_from_words(const C* from, int64_t stride, int64_t channels, int64_t states,
                            C* to) {
  int64_t n = 0;
#if HWY_TARGET != HWY_SCALAR
  if constexpr (kTransposes<C>) {
    if (channels == kLanes<C>) {
      for (; n + 4 <= states; n += 4) four_words_to_rows(from + n * kLanes<C>, stride, to + n);
    }
  }
#endif
  for (; n < states; ++n) {
    for (int64_t c = 0; c < channels; ++c) to[c * stride + n] = from[n * kLanes<C> + c];
  }
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
