// Owning memory and the arena.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/error.h"

namespace adder {

inline constexpr int64_t kAlignment = 64;  // one cache line, one AVX-512 word

constexpr int64_t align_up(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

/// Aligned, uninitialised host memory. Throws Error when the system has no more.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t bytes);
  std::byte* data() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte[], Free> data_;
  int64_t bytes_ = 0;
};

/// A stack of aligned blocks. Planned before it is allocated: a default-constructed arena has no
/// memory and only measures (its pointers are distinct, aligned and must not be dereferenced); run
/// the same code over it, read peak_bytes(), then run it again over Arena(peak). Not thread-safe.
class Arena {
 public:
  Arena() = default;
  explicit Arena(int64_t bytes) : buffer_(bytes), measuring_(false) {}

  bool measuring() const { return measuring_; }
  int64_t used_bytes() const { return used_; }
  int64_t peak_bytes() const { return peak_; }
  int64_t capacity() const { return buffer_.bytes(); }

  /// `count` elements, uninitialised. Running past the plan is our own bug.
  template <class T>
  T* take(int64_t count) {
    const int64_t begin = used_;
    used_ += align_up(count * static_cast<int64_t>(sizeof(T)));
    if (used_ > peak_) peak_ = used_;
    // Never dereferenced. NOLINTNEXTLINE(performance-no-int-to-ptr)
    if (measuring_) return reinterpret_cast<T*>(kMeasuringBase + begin);
    ADDER_CHECK(used_ <= buffer_.bytes());
    return reinterpret_cast<T*>(buffer_.data() + begin);
  }

  /// Everything taken while a Scope lives is given back when it ends.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), mark_(arena.used_) {}
    ~Scope() { arena_.used_ = mark_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    int64_t mark_;
  };

 private:
  static constexpr int64_t kMeasuringBase = 1 << 20;

  Buffer buffer_;
  int64_t used_ = 0;
  int64_t peak_ = 0;
  bool measuring_ = true;
};

}  // namespace adder
