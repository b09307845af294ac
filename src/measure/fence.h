// The CPU with its device memory fenced: pages that nobody can read or write except while a table
// line or a copy runs. It proves without a GPU that only these touch device memory.
#pragma once

#include <map>
#include <mutex>

#include "core/device.h"

namespace adder::measure {

/// Stands in for the CPU's backend while it lives. Buffers made under it must not outlive it.
class Fence : public DeviceBackend {
 public:
  Fence();
  ~Fence() override;
  Fence(const Fence&) = delete;
  Fence& operator=(const Fence&) = delete;

  std::byte* allocate(int64_t bytes, const Memory& memory) override;
  void release(std::byte* data, int64_t bytes, const Memory& memory) override;
  void fill(void* stream, void* to, int byte, int64_t bytes) override;
  void copy(void* stream, void* to, const void* from, int64_t bytes) override;
  void synchronize(void* stream) override;
  double elapsed_us(void* stream, const std::function<void()>& work) override;
  void begin_line() override;
  void end_line() override;

 private:
  void protect(int access);

  DeviceBackend& cpu_;
  std::mutex mutex_;
  std::map<std::byte*, size_t> blocks_;
  int open_ = 0;  // lines and copies under way
};

}  // namespace adder::measure
