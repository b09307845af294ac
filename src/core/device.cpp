#include "core/device.h"

#include <sys/mman.h>

#include <chrono>
#include <cstdlib>
#include <cstring>

#include "core/buffer.h"
#include "core/error.h"

namespace adder {
namespace {

// Large buffers stand on huge pages where the system has them: streaming over weights spends about
// a tenth of its time on page walks otherwise.
constexpr int64_t kHugePage = 2 << 20;

// The CPU works on host memory, so its three kinds are one and a call is done when it returns.
class CpuBackend final : public DeviceBackend {
 public:
  std::byte* allocate(int64_t bytes, const Memory&) override {
    const int64_t unit = bytes >= 2 * kHugePage ? kHugePage : kAlignment;
    const auto rounded = static_cast<size_t>((bytes + unit - 1) / unit * unit);
    auto* data = static_cast<std::byte*>(std::aligned_alloc(static_cast<size_t>(unit), rounded));
#ifdef MADV_HUGEPAGE
    // This is a hint: without huge pages everything works, only slower.
    if (data != nullptr && unit == kHugePage) madvise(data, rounded, MADV_HUGEPAGE);
#endif
    return data;
  }
  void release(std::byte* data, int64_t, const Memory&) override { std::free(data); }
  void fill(void*, void* to, int byte, int64_t bytes) override {
    std::memset(to, byte, static_cast<size_t>(bytes));
  }
  void copy(void*, void* to, const void* from, int64_t bytes) override {
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  void synchronize(void*) override {}
  double elapsed_us(void*, const std::function<void()>& work) override {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    work();
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
  }
};

DeviceBackend& cpu_backend() {
  static CpuBackend backend;
  return backend;
}

DeviceBackend* g_backends[2] = {nullptr, nullptr};

}  // namespace

std::string_view device_name(Device device) { return device == Device::cpu ? "cpu" : "cuda"; }

DeviceBackend& device_backend(Device device) {
  DeviceBackend* backend = g_backends[static_cast<size_t>(device)];
  if (backend != nullptr) return *backend;
  if (device == Device::cpu) return cpu_backend();
  throw Error({"not in use: this build or this machine has none", "device 'cuda'", {}, {}});
}

void set_device_backend(Device device, DeviceBackend* backend) {
  g_backends[static_cast<size_t>(device)] = backend;
}

}  // namespace adder
