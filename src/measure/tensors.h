// Arrays for tests and benches: guarded by canaries, poisoned, misaligned on demand, with an image
// in host memory and one in the memory of a device.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "core/buffer.h"
#include "core/dtype.h"
#include "core/rng.h"

namespace adder::measure {

template <class T>
double to_double(T value) {
  return static_cast<double>(value);
}
template <class T>
T from_double(double value) {
  if constexpr (std::is_same_v<T, Bf16> || std::is_same_v<T, F16>) {
    return T(static_cast<float>(value));
  } else {
    return static_cast<T>(value);
  }
}

/// While one lives, the arrays that this thread makes begin on a cache line, as those of the arena
/// do, which is what the engine's kernels get: for timing.
class ArenaLayout {
 public:
  ArenaLayout() { ++lives_; }
  ~ArenaLayout() { --lives_; }
  ArenaLayout(const ArenaLayout&) = delete;
  ArenaLayout& operator=(const ArenaLayout&) = delete;
  static bool on() { return lives_ > 0; }

 private:
  static inline thread_local int lives_ = 0;
};

/// Elements after each batch row: with an odd number the rows are misaligned too.
inline int64_t batch_gap() { return ArenaLayout::on() ? 0 : 3; }

/// The host reads and writes the host image only; table lines get the device image only.
enum class Side : uint8_t { host, device };

/// `count` elements between two rings of canaries. The host image starts poisoned (every byte 0xFF:
/// NaN for floating types), one element past a 64-byte boundary, so that aligned loads of the
/// kernel would fault or be seen (ArenaLayout: on the boundary). The device image, which upload()
/// makes, has the same rings and begins as far off the boundary. A default-constructed array is
/// absent: its pointers are null. Copies have no device image until they are uploaded.
class Array {
 public:
  Array() = default;
  Array(const Array& other);
  Array& operator=(const Array& other);
  Array(Array&&) = default;
  Array& operator=(Array&&) = default;

  bool present() const { return element_bytes_ > 0; }
  int64_t count() const { return count_; }
  /// u8 where the elements are no numbers.
  Dtype dtype() const { return dtype_; }
  bool floating() const;

  /// Host to device, rings included; makes the device image first.
  void upload(const Memory& memory);
  /// Device to host, rings included.
  void download();

  /// The address of the first element; null where the array is absent.
  std::byte* image(Side side) const;

  // The rest is about the host image.

  /// True while nobody wrote outside the array.
  bool intact() const;
  /// True while nobody wrote element i.
  bool is_poison(int64_t i) const;
  bool same_bits(const Array& other) const;
  /// The bits of `part` are those of this array from element `first` on.
  bool holds(const Array& part, int64_t first) const;
  double value(int64_t i) const;
  void set(int64_t i, double value);
  std::vector<double> widened() const;
  /// The values of an array of as many elements, converted; poison stays poison.
  void assign(const Array& from);
  /// As many elements of an array of the same type as this one has, from element `first` on.
  void take(const Array& from, int64_t first);
  /// Zero bytes, which are zeros of every type.
  void zero();

 protected:
  Array(int64_t count, int64_t element_bytes, Dtype dtype);

 private:
  int64_t first_byte() const { return first_ * element_bytes_; }
  size_t bytes() const { return static_cast<size_t>(count_ * element_bytes_); }

  int64_t count_ = 0;
  int64_t element_bytes_ = 0;
  int64_t first_ = 0;  // element of the storage
  Dtype dtype_ = Dtype::u8;
  Buffer host_;
  Buffer device_;
};

template <class T>
class Guarded : public Array {
 public:
  Guarded() = default;
  explicit Guarded(int64_t count) : Array(count, sizeof(T), element_dtype()) {}

  T* at(Side side) { return reinterpret_cast<T*>(image(side)); }
  const T* at(Side side) const { return reinterpret_cast<const T*>(image(side)); }
  T* data() { return at(Side::host); }
  const T* data() const { return at(Side::host); }
  T& operator[](int64_t i) { return data()[i]; }
  const T& operator[](int64_t i) const { return data()[i]; }
  /// Of a list of arrays, which are const where they only name a gradient's input.
  T* raw() const { return reinterpret_cast<T*>(image(Side::host)); }
  std::span<T> span() { return {data(), static_cast<size_t>(count())}; }
  std::span<const T> span() const { return {data(), static_cast<size_t>(count())}; }

  /// The same values in another type, exact upward.
  template <class U>
  Guarded<U> converted() const {
    Guarded<U> out(count());
    out.assign(*this);
    return out;
  }

 private:
  static constexpr Dtype element_dtype() {
    if constexpr (requires { DtypeOf<T>::value; }) return dtype_of<T>;
    return Dtype::u8;
  }
};

/// Uniform in [low, high); `name` picks the random stream, so arrays do not share values.
template <class T>
void fill_uniform(Guarded<T>& array, uint64_t seed, const char* name, double low, double high) {
  const uint64_t stream = stream_of(name);
  for (int64_t i = 0; i < array.count(); ++i) {
    array[i] =
        from_double<T>(low + (high - low) * uniform01(seed, stream, static_cast<uint64_t>(i)));
  }
}

template <class T>
void fill_normal(Guarded<T>& array, uint64_t seed, const char* name, double scale = 1.0) {
  const uint64_t stream = stream_of(name);
  for (int64_t i = 0; i < array.count(); ++i) {
    array[i] = from_double<T>(scale * normal(seed, stream, static_cast<uint64_t>(i)));
  }
}

/// Array `i` holds `value(i)`.
template <class T, class Value>
Guarded<T> filled(int64_t count, const Value& value) {
  Guarded<T> array(count);
  for (int64_t i = 0; i < count; ++i) array[i] = static_cast<T>(value(i));
  return array;
}

}  // namespace adder::measure
