// Arrays for tests and benches: guarded by canaries, poisoned, misaligned on demand.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

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

/// `count` elements between two rings of canaries. Starts poisoned (NaN for floating types), one
/// element past a 64-byte boundary, so that aligned loads of the kernel would fault or be seen.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t count = 0)
      : count_(count), storage_(static_cast<size_t>(count) + 2 * kRing + 128 / sizeof(T)) {
    auto address = reinterpret_cast<uintptr_t>(storage_.data() + kRing);
    const uintptr_t aligned = (address + 63) / 64 * 64;
    first_ = kRing + (aligned - address) / sizeof(T) + 1;
    std::memset(static_cast<void*>(storage_.data()), 0xA5, storage_.size() * sizeof(T));
    std::memset(static_cast<void*>(data()), 0xFF, static_cast<size_t>(count_) * sizeof(T));
  }
  T* data() { return storage_.data() + first_; }
  const T* data() const { return storage_.data() + first_; }
  int64_t count() const { return count_; }
  T& operator[](int64_t i) { return data()[i]; }
  const T& operator[](int64_t i) const { return data()[i]; }

  /// True while nobody wrote outside the array.
  bool intact() const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(storage_.data());
    const size_t begin = first_ * sizeof(T);
    const size_t end = (first_ + static_cast<size_t>(count_)) * sizeof(T);
    for (size_t i = 0; i < storage_.size() * sizeof(T); ++i) {
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
  static constexpr size_t kRing = 64;
  int64_t count_;
  std::vector<T> storage_;
  size_t first_ = 0;
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
