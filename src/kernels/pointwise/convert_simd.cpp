// Conversions between storage types, each rounded once, to nearest even.
#include <algorithm>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/pointwise/convert_simd.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/simd-inl.h"
#include "kernels/pointwise/pointwise_lines.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

// A vector of floats from float, Bf16 or F16, all exact.
template <class D, class T>
HWY_INLINE V<D> load_float(D d, const T* from) {
  if constexpr (std::is_same_v<T, F16>) {
#if HWY_TARGET == HWY_SCALAR
    return hn::Set(d, static_cast<float>(*from));
#else
    const hn::Rebind<hwy::float16_t, D> d16;
    return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(from)));
#endif
  } else {
    return load(d, from);
  }
}

template <class D, class T>
HWY_INLINE void store_float(V<D> value, D d, T* to) {
  if constexpr (std::is_same_v<T, F16>) {
#if HWY_TARGET == HWY_SCALAR
    *to = F16(hn::GetLane(value));
    (void)d;
#else
    const hn::Rebind<hwy::float16_t, D> d16;
    hn::StoreU(hn::DemoteTo(d16, value), d16, reinterpret_cast<hwy::float16_t*>(to));
#endif
  } else {
    store_converted_n(value, d, to, hn::Lanes(d));
  }
}

// One vector; the widest type of the two decides how many elements.
template <class From, class To>
HWY_INLINE void convert_vector(const From* from, To* to) {
  if constexpr (std::is_same_v<From, double> || std::is_same_v<To, double>) {
    const Words<double> d;
    const hn::Rebind<float, Words<double>> df;
    if constexpr (std::is_same_v<From, To>) {
      hn::StoreU(hn::LoadU(d, from), d, to);
    } else if constexpr (std::is_same_v<To, double>) {
      hn::StoreU(hn::PromoteTo(d, load_float(df, from)), d, to);
    } else if constexpr (std::is_same_v<To, float>) {
      hn::StoreU(float_from_double(df, hn::LoadU(d, from)), df, to);
    } else {
      store_float(float_from_double(df, sticky(d, hn::LoadU(d, from))), df, to);
    }
  } else {
    const Words<float> d;
    store_float(load_float(d, from), d, to);
  }
}

template <class From, class To>
HWY_NOINLINE void convert_stretch(const From* from, To* to, size_t count) {
  constexpr bool kDouble = std::is_same_v<From, double> || std::is_same_v<To, double>;
  using C = std::conditional_t<kDouble, double, float>;
  const size_t lanes = hn::Lanes(Words<C>());
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) convert_vector(from + i, to + i);
  if (i == count) return;
  From in[HWY_MAX_BYTES / sizeof(C)] = {};
  To out[HWY_MAX_BYTES / sizeof(C)] = {};
  std::copy(from + i, from + count, in);
  convert_vector(in, out);
  std::copy(out, out + (count - i), to + i);
}

#define ADDER_CONVERT_TARGET(From, from_name, To, to_name)                        \
  void convert_##from_name##_##to_name(int64_t count, const From* from, To* to) { \
    convert_stretch(from, to, static_cast<size_t>(count));                        \
  }
// clang-format off: versions disagree about this list
#define ADDER_CONVERT_PAIRS(X)                                                                   \
  X(double, f64, double, f64) X(double, f64, float, f32) X(double, f64, Bf16, bf16)              \
  X(double, f64, F16, f16) X(float, f32, double, f64) X(float, f32, float, f32)                  \
  X(float, f32, Bf16, bf16) X(float, f32, F16, f16) X(Bf16, bf16, double, f64)                   \
  X(Bf16, bf16, float, f32) X(Bf16, bf16, Bf16, bf16) X(Bf16, bf16, F16, f16)                    \
  X(F16, f16, double, f64) X(F16, f16, float, f32) X(F16, f16, Bf16, bf16) X(F16, f16, F16, f16)
// clang-format on
ADDER_CONVERT_PAIRS(ADDER_CONVERT_TARGET)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

#define ADDER_CONVERT_DOOR(From, from_name, To, to_name)                    \
  HWY_EXPORT(convert_##from_name##_##to_name);                              \
  void convert_block(int64_t count, const From* from, To* to) {             \
    HWY_DYNAMIC_DISPATCH(convert_##from_name##_##to_name)(count, from, to); \
  }
ADDER_CONVERT_PAIRS(ADDER_CONVERT_DOOR)
#undef ADDER_CONVERT_DOOR

}  // namespace adder
#endif
#undef ADDER_CONVERT_PAIRS
#undef ADDER_CONVERT_TARGET
