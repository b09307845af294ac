// Buffers, which own memory, and arenas, which hand it out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/device.h"
#include "core/error.h"

namespace adder {

inline constexpr int64_t kAlignment = 64;  // one cache line, one AVX-512 word

constexpr int64_t align_up(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

/// Aligned, uninitialised memory of one kind. Throws Error when there is no more of it. The address
/// of memory of kind `device` may be passed to table lines and copies, not dereferenced.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t bytes, const Memory& memory = {});
  ~Buffer();
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  const Memory& memory() const { return memory_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

  /// Sets every byte, and waits for it.
  void fill(int byte);
  /// Copies `bytes` between host memory and this buffer, from byte `offset` on, and waits for it.
  void write(int64_t offset, const void* from, int64_t bytes);
  void read(int64_t offset, void* to, int64_t bytes) const;

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(memory_, other.memory_);
  }

  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
  Memory memory_;
};

/// A stack of aligned blocks. Its size is planned before it is allocated: a default-constructed
/// arena has no memory and only measures; its pointers are distinct and aligned, and must not be
/// dereferenced. The caller runs its code over such an arena, reads peak_bytes(), and runs the same
/// code again over Arena(peak, memory). core/workspace.h does so. Not thread-safe.
class Arena {
 public:
  Arena() = default;
  Arena(int64_t bytes, const Memory& memory) : buffer_(bytes, memory), measuring_(false) {}

  bool measuring() const { return measuring_; }
  int64_t used_bytes() const { return used_; }
  int64_t peak_bytes() const { return peak_; }
  int64_t capacity() const { return buffer_.bytes(); }

  /// `count` elements, uninitialised. Taking more than was planned is our own bug.
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
