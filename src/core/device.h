// Devices and their kinds of memory. Besides running table lines, a device gives memory, fills it,
// copies it and tells the time. Only table lines and copies may touch memory of kind `device`; all
// other code sees its contents by way of copies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>

namespace adder {

enum class Device : uint8_t { cpu, cuda };
/// "cpu", "cuda": the spelling of flags and reports.
std::string_view device_name(Device device);

/// host: ordinary memory. pinned: host memory that the device copies from and to without a detour.
/// device: the memory that table lines work on; on the CPU it lies in the same RAM.
enum class MemoryKind : uint8_t { host, pinned, device };

struct Memory {
  MemoryKind kind = MemoryKind::host;
  Device device = Device::cpu;
  int ordinal = 0;  // its number among the devices of one type
};

/// One type of device. Calls on one stream run in order, and only synchronize() waits for them. A
/// null stream is the default one, the only one that the CPU has. Thread-safe.
class DeviceBackend {
 public:
  virtual ~DeviceBackend() = default;
  /// Memory aligned to kAlignment, uninitialised; null when there is no more.
  virtual std::byte* allocate(int64_t bytes, const Memory& memory) = 0;
  virtual void release(std::byte* data, int64_t bytes, const Memory& memory) = 0;
  virtual void fill(void* stream, void* to, int byte, int64_t bytes) = 0;
  /// Copies between any two kinds of memory. The host may not touch `from` or `to` before
  /// synchronize().
  virtual void copy(void* stream, void* to, const void* from, int64_t bytes) = 0;
  virtual void synchronize(void* stream) = 0;
  /// Marks a point in the work of a stream; wait() lets the host wait for it and takes the mark
  /// back. A device whose calls are done when they return needs no marks.
  virtual void* mark(void* /*stream*/) { return nullptr; }
  virtual void wait(void* /*mark*/) {}
  /// Microseconds that `work` takes by the clock of the device.
  virtual double elapsed_us(void* stream, const std::function<void()>& work) = 0;
  /// Called before and after every table line: memory of kind `device` may be touched between them.
  virtual void begin_line() {}
  virtual void end_line() {}
};

/// The backend in use. Throws Error where this build or this machine has no such device.
DeviceBackend& device_backend(Device device);
/// Puts another backend in place: use_cuda() of kernels/device does so for CUDA, tests for their
/// fence. Null gives the built-in one back. Not thread-safe; buffers made before must not outlive
/// the change.
void set_device_backend(Device device, DeviceBackend* backend);

}  // namespace adder
