#include "formats/tensor_info.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>
#include <type_traits>

#include "core/error.h"
#include "formats/read_types.h"

namespace adder {

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

std::string_view stored_dtype_name(Dtype type) {
  constexpr std::string_view kNames[] = {"F64", "F32", "BF16", "F16", "I64",
                                         "I32", "I16", "I8",   "U8",  "BOOL"};
  const auto index = static_cast<size_t>(type);
  return index < std::size(kNames) ? kNames[index] : "?";
}

bool tensor_bytes(std::span<const int64_t> shape, Dtype dtype, int64_t* bytes) {
  int64_t product = dtype_bytes(dtype);
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(product, size, &product)) return false;
  }
  *bytes = product;
  return true;
}

namespace {

template <class Stored>
Stored load_stored(const std::byte* source, int64_t index) {
  Stored value;
  std::memcpy(&value, source + index * static_cast<int64_t>(sizeof(Stored)), sizeof(Stored));
  return value;
}

template <class Stored, class T>
void convert_floats(const std::byte* source, int64_t count, T* out) {
  for (int64_t i = 0; i < count; ++i) {
    const Stored stored = load_stored<Stored>(source, i);
    if constexpr (std::is_same_v<T, double>) {
      out[i] = static_cast<double>(stored);
    } else {
      // A double reaches bf16 and f16 through float: two roundings, at most 1/2 + 2^-14 ulp.
      out[i] = T(static_cast<float>(stored));
    }
  }
}

template <class Stored, class T>
void convert_integers(const std::byte* source, int64_t count, T* out, std::string_view where) {
  for (int64_t i = 0; i < count; ++i) {
    const Stored stored = load_stored<Stored>(source, i);
    if constexpr (sizeof(Stored) > sizeof(T)) {
      if (stored < std::numeric_limits<T>::min() || stored > std::numeric_limits<T>::max()) {
        throw Error({"element " + std::to_string(i) + " is out of range", std::string(where),
                     "a 32-bit integer", std::to_string(stored)});
      }
    }
    out[i] = static_cast<T>(stored);
  }
}

template <class T>
inline constexpr bool kIsInteger = std::is_integral_v<T>;

[[noreturn]] void refuse(Dtype from, bool integer, std::string_view where) {
  throw Error({"wrong element type", std::string(where),
               integer ? "I64, I32, I16, I8 or U8" : "F64, F32, BF16 or F16",
               std::string(stored_dtype_name(from))});
}

}  // namespace

template <class T>
void convert_elements(Dtype from, const std::byte* source, int64_t count, T* out,
                      std::string_view where) {
  if (count == 0) return;
  if (from == dtype_of<T>) {
    std::memcpy(out, source, static_cast<size_t>(count) * sizeof(T));
    return;
  }
  if constexpr (kIsInteger<T>) {
    switch (from) {
      case Dtype::i64:
        return convert_integers<int64_t>(source, count, out, where);
      case Dtype::i32:
        return convert_integers<int32_t>(source, count, out, where);
      case Dtype::i16:
        return convert_integers<int16_t>(source, count, out, where);
      case Dtype::i8:
        return convert_integers<int8_t>(source, count, out, where);
      case Dtype::u8:
        return convert_integers<uint8_t>(source, count, out, where);
      default:
        refuse(from, true, where);
    }
  } else {
    switch (from) {
      case Dtype::f64:
        return convert_floats<double>(source, count, out);
      case Dtype::f32:
        return convert_floats<float>(source, count, out);
      case Dtype::bf16:
        return convert_floats<Bf16>(source, count, out);
      case Dtype::f16:
        return convert_floats<F16>(source, count, out);
      default:
        refuse(from, false, where);
    }
  }
}

template <class T>
void read_elements(const MappedFile& file, int64_t offset, const TensorInfo& info, T* out,
                   std::string_view where) {
  const int64_t count = info.elements();
  if (info.dtype == dtype_of<T>) {
    file.read(offset, std::as_writable_bytes(std::span<T>(out, static_cast<size_t>(count))));
    return;
  }
  constexpr int64_t kBlock = 64 * 1024;  // elements: the block stays in the second-level cache
  const int64_t size = dtype_bytes(info.dtype);
  std::vector<std::byte> block(static_cast<size_t>(std::min(count, kBlock) * size));
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t length = std::min(kBlock, count - begin);
    file.read(offset + begin * size, std::span(block).first(static_cast<size_t>(length * size)));
    convert_elements(info.dtype, block.data(), length, out + begin, where);
  }
}

std::string quoted_name(std::string_view name) {
  constexpr size_t kLength = 200;
  std::string text = "'";
  for (const char c : name.substr(0, kLength)) {
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
    text += control ? '?' : c;
  }
  // A character cut in half would make the message invalid UTF-8.
  while (name.size() > kLength && (static_cast<unsigned char>(text.back()) & 0x80u) != 0) {
    text.pop_back();
  }
  return text + (name.size() > kLength ? "...'" : "'");
}

std::string tensor_where(std::string_view path, std::string_view name) {
  return std::string(path) + ": tensor " + quoted_name(name);
}

#define ADDER_INSTANTIATE(T)                                                              \
  template void convert_elements(Dtype, const std::byte*, int64_t, T*, std::string_view); \
  template void read_elements(const MappedFile&, int64_t, const TensorInfo&, T*, std::string_view);
ADDER_FOR_READ_TYPES(ADDER_INSTANTIATE)
#undef ADDER_INSTANTIATE

}  // namespace adder
