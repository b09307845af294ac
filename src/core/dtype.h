// Element types. Storage types are what tensors hold; arithmetic happens in accumulate_t<T>.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

namespace adder {

enum class Dtype : uint8_t { f64, f32, bf16, f16, i64, i32, i16, i8, u8, boolean };

/// Bytes of one element.
constexpr int64_t dtype_bytes(Dtype type) {
  switch (type) {
    case Dtype::f64:
    case Dtype::i64:
      return 8;
    case Dtype::f32:
    case Dtype::i32:
      return 4;
    case Dtype::bf16:
    case Dtype::f16:
    case Dtype::i16:
      return 2;
    default:
      return 1;
  }
}

/// "f32", "bf16", ...: the spelling of flags and reports.
std::string_view dtype_name(Dtype type);
/// The inverse of dtype_name; throws Error naming the known spellings.
Dtype dtype_from_name(std::string_view name);

/// Round to nearest, ties to even; NaN stays NaN.
constexpr uint16_t bf16_bits_from_float(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

struct Bf16 {
  uint16_t bits = 0;
  Bf16() = default;
  constexpr explicit Bf16(float value) : bits(bf16_bits_from_float(value)) {}
  constexpr explicit operator float() const {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
  constexpr explicit operator double() const { return static_cast<float>(*this); }
};

/// IEEE half <-> float, exact upward, round to nearest even downward.
float float_from_f16_bits(uint16_t bits);
uint16_t f16_bits_from_float(float value);

struct F16 {
  uint16_t bits = 0;
  F16() = default;
  explicit F16(float value) : bits(f16_bits_from_float(value)) {}
  explicit operator float() const { return float_from_f16_bits(bits); }
  explicit operator double() const { return float_from_f16_bits(bits); }
};

template <class T>
struct DtypeOf;
template <>
struct DtypeOf<double> {
  static constexpr Dtype value = Dtype::f64;
  using Accumulate = double;
};
template <>
struct DtypeOf<float> {
  static constexpr Dtype value = Dtype::f32;
  using Accumulate = float;
};
template <>
struct DtypeOf<Bf16> {
  static constexpr Dtype value = Dtype::bf16;
  using Accumulate = float;
};
template <>
struct DtypeOf<F16> {
  static constexpr Dtype value = Dtype::f16;
  using Accumulate = float;
};
template <>
struct DtypeOf<int64_t> {
  static constexpr Dtype value = Dtype::i64;
};
template <>
struct DtypeOf<int32_t> {
  static constexpr Dtype value = Dtype::i32;
};
template <>
struct DtypeOf<uint8_t> {
  static constexpr Dtype value = Dtype::u8;
};

template <class T>
inline constexpr Dtype dtype_of = DtypeOf<T>::value;

/// The type of states, statistics, sums and parameters, which stay in full precision beside
/// storage type T (math.md 0.2): float for f32, bf16 and f16; double for f64.
template <class T>
using accumulate_t = typename DtypeOf<T>::Accumulate;

/// Unit roundoff of a storage type: the u of the tolerance rule (design.md section 6).
constexpr double unit_roundoff(Dtype type) {
  switch (type) {
    case Dtype::f64:
      return 0x1p-53;
    case Dtype::f32:
      return 0x1p-24;
    case Dtype::f16:
      return 0x1p-11;
    default:
      return 0x1p-8;
  }
}

}  // namespace adder
