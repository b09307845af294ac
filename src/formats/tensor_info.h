// The parts that all tensor containers share: the description of a tensor, and reading stored
// elements as another type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/mapped_file.h"

namespace adder {

/// Row-major, little-endian, without strides; shape [] is a scalar.
struct TensorInfo {
  Dtype dtype = Dtype::f32;
  std::vector<int64_t> shape;
  int64_t begin = 0;  // bytes from the start of the container's data
  int64_t end = 0;

  int64_t bytes() const { return end - begin; }
  int64_t elements() const { return bytes() / dtype_bytes(dtype); }
};

/// A tensor to be written; `bytes` is borrowed until the writer returns and holds
/// product(shape) * dtype_bytes(dtype) bytes (checked).
struct TensorSource {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

template <class T>
TensorSource tensor_source(std::string name, std::vector<int64_t> shape, const T* data) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return {std::move(name), dtype_of<T>, std::move(shape),
          std::as_bytes(std::span<const T>(data, static_cast<size_t>(count)))};
}

/// "[2, 3]", for messages.
std::string shape_text(std::span<const int64_t> shape);

/// "F32", "BF16", ...: the spelling of safetensors and of checkpoints.
std::string_view stored_dtype_name(Dtype type);

/// product(shape) * dtype_bytes(dtype); false on overflow or a negative size.
bool tensor_bytes(std::span<const int64_t> shape, Dtype dtype, int64_t* bytes);

/// Converts `count` stored elements (any alignment) to T. Floating T takes F64 (rounded to
/// nearest), F32, BF16 and F16; integer T takes I64, I32, I16, I8, U8. Anything else, and an
/// integer outside T, is an Error that begins with `where`. Instantiated for double, float, Bf16,
/// F16, int64_t and int32_t.
template <class T>
void convert_elements(Dtype from, const std::byte* source, int64_t count, T* out,
                      std::string_view where);

/// Reads a tensor whose elements begin at byte `offset` of `file`, as T, without touching the
/// mapping. `out` holds info.elements().
template <class T>
void read_elements(const MappedFile& file, int64_t offset, const TensorInfo& info, T* out,
                   std::string_view where);

/// A name from a file as it may stand in a message: quoted, without control characters, cut when
/// long.
std::string quoted_name(std::string_view name);

/// "FILE: tensor 'NAME'", the `where` of errors.
std::string tensor_where(std::string_view path, std::string_view name);

}  // namespace adder
