#include "kernels/device/cuda_backend.h"

#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "core/error.h"
#include "kernels/device/cuda_call.cuh"

namespace adder {
namespace {

std::string name_of(cudaError_t code) {
  return std::string(cudaGetErrorName(code)) + " (" + cudaGetErrorString(code) + ")";
}

/// Makes a device current while it lives.
class Current {
 public:
  explicit Current(int ordinal) : ordinal_(ordinal) {
    ADDER_CUDA_CALL(cudaGetDevice(&before_));
    if (before_ != ordinal_) ADDER_CUDA_CALL(cudaSetDevice(ordinal_));
  }
  ~Current() {
    if (before_ != ordinal_) cudaSetDevice(before_);  // it was current: nothing new to report
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  int ordinal_;
  int before_ = 0;
};

class Event {
 public:
  Event() { ADDER_CUDA_CALL(cudaEventCreate(&event_)); }
  ~Event() { cudaEventDestroy(event_); }  // fails only where a call before it did
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

/// Ordinary host memory is the CPU's.
DeviceBackend& host() { return device_backend(Device::cpu); }

class CudaBackend final : public DeviceBackend {
 public:
  std::byte* allocate(int64_t bytes, const Memory& memory) override {
    if (memory.kind == MemoryKind::host) return host().allocate(bytes, Memory{});
    const Current current(memory.ordinal);
    const auto size = static_cast<size_t>(bytes);
    const bool pinned = memory.kind == MemoryKind::pinned;
    void* data = nullptr;
    const cudaError_t code = pinned ? cudaMallocHost(&data, size) : cudaMalloc(&data, size);
    if (code == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // the caller reports it: the next call starts afresh
      return nullptr;
    }
    check_cuda(code, pinned ? "cudaMallocHost" : "cudaMalloc");
    return static_cast<std::byte*>(data);
  }
  /// Destructors call it, so it does not throw: an error of earlier work stays with the device, and
  /// the next checked call reports it.
  void release(std::byte* data, int64_t bytes, const Memory& memory) override {
    if (memory.kind == MemoryKind::host) return host().release(data, bytes, Memory{});
    if (memory.kind == MemoryKind::pinned) {
      cudaFreeHost(data);
    } else {
      cudaFree(data);
    }
  }
  void fill(void* stream, void* to, int byte, int64_t bytes) override {
    const auto size = static_cast<size_t>(bytes);
    cudaPointerAttributes attributes{};
    ADDER_CUDA_CALL(cudaPointerGetAttributes(&attributes, to));
    if (attributes.type == cudaMemoryTypeUnregistered) {  // ordinary memory: cudaMemset refuses it
      synchronize(stream);
      std::memset(to, byte, size);
      return;
    }
    ADDER_CUDA_CALL(cudaMemsetAsync(to, byte, size, stream_of(stream)));
  }
  void copy(void* stream, void* to, const void* from, int64_t bytes) override {
    ADDER_CUDA_CALL(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault,
                                    stream_of(stream)));
  }
  void synchronize(void* stream) override {
    ADDER_CUDA_CALL(cudaStreamSynchronize(stream_of(stream)));
  }
  void* mark(void* stream) override {
    auto event = std::make_unique<Event>();
    ADDER_CUDA_CALL(cudaEventRecord(event->get(), stream_of(stream)));
    return event.release();
  }
  void wait(void* mark) override {
    const std::unique_ptr<Event> event(static_cast<Event*>(mark));
    ADDER_CUDA_CALL(cudaEventSynchronize(event->get()));
  }
  double elapsed_us(void* stream, const std::function<void()>& work) override {
    const Event begin, end;
    ADDER_CUDA_CALL(cudaEventRecord(begin.get(), stream_of(stream)));
    work();
    ADDER_CUDA_CALL(cudaEventRecord(end.get(), stream_of(stream)));
    ADDER_CUDA_CALL(cudaEventSynchronize(end.get()));
    float milliseconds = 0;
    ADDER_CUDA_CALL(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()));
    return 1e3 * static_cast<double>(milliseconds);
  }
};

std::string version_text(int version) {  // 13000 -> "CUDA 13.0"
  return "CUDA " + std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

/// Why there are no devices, in one line.
[[noreturn]] void no_devices(cudaError_t code) {
  const std::string where = "device 'cuda'";
  if (code == cudaErrorNoDevice || code == cudaSuccess) {
    throw Error({"this machine has no GPU that CUDA can use", where, {}, {}});
  }
  if (code == cudaErrorInsufficientDriver) {
    int driver = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
      throw Error({"this machine has no NVIDIA driver", where, {}, {}});
    }
    throw Error({"the NVIDIA driver is too old", where, version_text(CUDART_VERSION) + " or newer",
                 version_text(driver)});
  }
  throw Error({"the NVIDIA driver does not work: " + name_of(code), where, {}, {}});
}

/// Throws unless there is a device of this number.
void check_ordinal(int ordinal) {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess || count == 0) no_devices(code);
  if (ordinal >= 0 && ordinal < count) return;
  throw Error({"no such GPU", "device 'cuda'", "a number in [0, " + std::to_string(count) + ")",
               std::to_string(ordinal)});
}

int64_t attribute(int ordinal, cudaDeviceAttr which) {
  int value = 0;
  ADDER_CUDA_CALL(cudaDeviceGetAttribute(&value, which, ordinal));
  return value;
}

/// The stream of a device, made current. It is a blocking one, so that it keeps its order with the
/// default stream, on which Buffer copies. Never destroyed: contexts are copied freely.
cudaStream_t stream_on(int ordinal) {
  static std::mutex mutex;
  static std::map<int, cudaStream_t> streams;
  const std::lock_guard lock(mutex);
  cudaStream_t& stream = streams[ordinal];
  if (stream == nullptr) ADDER_CUDA_CALL(cudaStreamCreate(&stream));
  return stream;
}

}  // namespace

void check_cuda(cudaError_t code, const char* call) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // an error that can be recovered from is reported once
  int ordinal = 0;
  const bool known = cudaGetDevice(&ordinal) == cudaSuccess;
  const std::string where =
      known ? "device 'cuda:" + std::to_string(ordinal) + "'" : "device 'cuda'";
  const std::string name(call, std::strcspn(call, "("));
  throw Error({name + " failed: " + name_of(code), where, {}, {}});
}

int cuda_device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

Caps cuda_caps(int ordinal) {
  check_ordinal(ordinal);
  Caps caps;
  caps.device = Device::cuda;
  caps.ordinal = ordinal;
  caps.architecture = static_cast<int>(10 * attribute(ordinal, cudaDevAttrComputeCapabilityMajor) +
                                       attribute(ordinal, cudaDevAttrComputeCapabilityMinor));
  caps.processors = static_cast<int>(attribute(ordinal, cudaDevAttrMultiProcessorCount));
  caps.shared_bytes = attribute(ordinal, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  // Two transfers a clock: kHz * bits / 8 * 2 / 1000 is MB/s.
  caps.memory_bandwidth_mb_s = attribute(ordinal, cudaDevAttrMemoryClockRate) *
                               attribute(ordinal, cudaDevAttrGlobalMemoryBusWidth) / 4000;
  return caps;
}

Context use_cuda(int ordinal) {
  Context context;
  context.caps = cuda_caps(ordinal);
  ADDER_CUDA_CALL(cudaSetDevice(ordinal));
  context.stream = stream_on(ordinal);
  static CudaBackend backend;
  static std::once_flag installed;
  std::call_once(installed, [] { set_device_backend(Device::cuda, &backend); });
  return context;
}

}  // namespace adder
