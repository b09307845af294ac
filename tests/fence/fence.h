// A fence around the memory of the device, for tests: on the CPU, memory of kind `device` lies on
// pages that can be neither read nor written except while a table line or a copy runs. A host that
// dereferences it dies of SIGSEGV, as it would with the memory of a GPU.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

#include "core/device.h"

namespace adder::tests {

/// Thread-safe. While one thread's line runs, the pages are open to all.
class FenceBackend final : public DeviceBackend {
 public:
  /// plant_at > 0: after so many lines the host reads one byte of the memory of the device.
  explicit FenceBackend(int64_t plant_at = 0) : plant_at_(plant_at) {}

  std::byte* allocate(int64_t bytes, const Memory& memory) override;
  void release(std::byte* data, int64_t bytes, const Memory& memory) override;
  void fill(void* stream, void* to, int byte, int64_t bytes) override;
  void copy(void* stream, void* to, const void* from, int64_t bytes) override;
  void synchronize(void*) override {}
  double elapsed_us(void* stream, const std::function<void()>& work) override;
  void begin_line() override;
  void end_line() override;

  int64_t lines() const { return lines_; }
  int64_t blocks() const { return static_cast<int64_t>(regions_.size()); }

 private:
  void protect(int how);
  void open();
  void close();

  std::mutex mutex_;
  std::map<std::byte*, int64_t> regions_;  // address and size of each mapping of device memory
  int open_ = 0;
  int64_t lines_ = 0;
  int64_t plant_at_ = 0;
};

}  // namespace adder::tests
