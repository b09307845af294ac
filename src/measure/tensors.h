// Arrays for tests and benches: guarded by canaries, poisoned, misaligned on demand.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "core/buffer.h"
#include "core/dtype.h"
#include "core/rng.h"
#include "measure/compare.h"

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

/// `count` elements between two rings of canaries. Starts poisoned (NaN for floating types), one
/// element past a 64-byte boundary, so that aligned loads of the kernel would fault or be seen
/// (ArenaLayout: on the boundary). Large arrays stand on huge pages, as core/buffer.h has it.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t count = 0)
      : count_(count),
        storage_((count + 2 * kRing) * static_cast<int64_t>(sizeof(T)) + kAlignment),
        first_(kRing + (ArenaLayout::on() ? 0 : 1)) {
    std::memset(storage_.data(), 0xA5, static_cast<size_t>(storage_.bytes()));
    std::memset(static_cast<void*>(data()), 0xFF, static_cast<size_t>(count_) * sizeof(T));
  }
  Guarded(const Guarded& other) : Guarded(other.count_) {
    std::copy_n(other.data(), count_, data());
  }
  Guarded(Guarded&&) = default;
  Guarded& operator=(const Guarded& other) {
    if (this != &other) *this = Guarded(other);
    return *this;
  }
  Guarded& operator=(Guarded&&) = default;

  T* data() { return storage_.template as<T>() + first_; }
  const T* data() const { return storage_.template as<T>() + first_; }
  int64_t count() const { return count_; }
  T& operator[](int64_t i) { return data()[i]; }
  const T& operator[](int64_t i) const { return data()[i]; }

  /// True while nobody wrote outside the array.
  bool intact() const {
    const auto* bytes = storage_.template as<const unsigned char>();
    const int64_t begin = first_ * static_cast<int64_t>(sizeof(T));
    const int64_t end = (first_ + count_) * static_cast<int64_t>(sizeof(T));
    for (int64_t i = 0; i < storage_.bytes(); ++i) {
      if ((i < begin || i >= end) && bytes[i] != 0xA5) return false;
    }
    return true;
  }
  std::vector<double> widened() const {
    std::vector<double> out(static_cast<size_t>(count_));
    for (int64_t i = 0; i < count_; ++i) out[static_cast<size_t>(i)] = to_double((*this)[i]);
    return out;
  }
  /// The same values in another type, exact upward.
  template <class U>
  Guarded<U> converted() const {
    Guarded<U> out(count_);
    for (int64_t i = 0; i < count_; ++i) out[i] = from_double<U>(to_double((*this)[i]));
    return out;
  }
  void check_guards(Comparison& comparison, const std::string& name) const {
    if (!intact()) comparison.add_fault("wrote outside of '" + name + "'");
  }

 private:
  static constexpr int64_t kRing = 64;  // elements; a whole number of cache lines
  int64_t count_;
  Buffer storage_;
  int64_t first_;
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

}  // namespace adder::measure
