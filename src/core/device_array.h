// Typed memory that grows to what calls need.
#pragma once

#include <cstdint>

#include "core/buffer.h"

namespace adder {

/// Contents are lost when it grows; the address stays while it does not. Not thread-safe.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const Memory& memory) : memory_(memory) {}

  /// At least `count` elements.
  T* hold(int64_t count) {
    if (count > count_) {
      buffer_ = Buffer();  // gives the old one back first
      buffer_ = Buffer(count * static_cast<int64_t>(sizeof(T)), memory_);
      count_ = count;
    }
    return data();
  }
  T* data() const { return buffer_.as<T>(); }
  int64_t bytes() const { return buffer_.bytes(); }

 private:
  Memory memory_;
  Buffer buffer_;
  int64_t count_ = 0;
};

}  // namespace adder
