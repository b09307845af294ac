// The context of a call: the device and its capabilities, the stream, the number of threads and the
// scratch memory.
#pragma once

#include <cstdint>

#include "core/buffer.h"

namespace adder {

/// The capabilities of a device, which a table line reads when it decides whether it accepts a
/// shape. They are found once for a context and stay as they are. The number of threads is not
/// among them: lines differ in their last bits, and no result may depend on how many threads
/// computed it.
struct Caps {
  Device device = Device::cpu;
  int ordinal = 0;  // its number among the devices of that type
  // CPU.
  int vector_bytes = 16;  // widest Highway target in use: 64 AVX-512, 32 AVX2, 16 NEON or scalar
  bool avx512_bf16 = false;
  bool avx512_vnni = false;
  bool amx_bf16 = false;
  // GPU.
  int architecture = 0;               // 10 major + minor: 80 (A100), 90 (H100)
  int processors = 0;                 // streaming multiprocessors
  int64_t shared_bytes = 0;           // that one block can opt in to
  int64_t memory_bandwidth_mb_s = 0;  // computed from the driver's clock and bus width
};

/// The capabilities of the CPU with the SIMD target in use.
Caps cpu_caps();

/// The caller's side of every kernel call. Not shared between threads. The arena must hold the
/// scratch of the kernels that run: core/workspace.h measures how much that is and allocates it.
struct Context {
  Caps caps = cpu_caps();
  void* stream = nullptr;  // cudaStream_t on CUDA
  int threads = 1;         // CPU threads that a CPU line may use
  Arena* arena = nullptr;

  Memory memory(MemoryKind kind) const { return {kind, caps.device, caps.ordinal}; }
  DeviceBackend& backend() const { return device_backend(caps.device); }
  /// True while a call only tells what memory it needs: nothing is run, copied or filled.
  bool planning() const { return arena != nullptr && arena->measuring(); }
};

/// Copies `count` elements from one kind of memory to another, without waiting: neither array may
/// be touched by the host before the stream was synchronized (DeviceBackend::copy).
template <class T>
void copy_elements(const Context& context, T* to, const T* from, int64_t count) {
  if (context.planning() || count == 0) return;
  context.backend().copy(context.stream, to, from, count * static_cast<int64_t>(sizeof(T)));
}
/// Sets `count` elements to zero, without waiting.
template <class T>
void zero_elements(const Context& context, T* to, int64_t count) {
  if (context.planning() || count == 0) return;
  context.backend().fill(context.stream, to, 0, count * static_cast<int64_t>(sizeof(T)));
}
/// Copies to host memory and waits, so that `to` may be read at once.
template <class T>
void fetch_elements(const Context& context, T* to, const T* from, int64_t count) {
  copy_elements(context, to, from, count);
  if (!context.planning()) context.backend().synchronize(context.stream);
}

/// The part of the context that a kernel sees. It has nothing to allocate from but its scratch.
struct Exec {
  void* stream = nullptr;
  int threads = 1;
  std::byte* scratch = nullptr;  // scratch_bytes of the line, aligned to kAlignment

  /// Carves `count` elements off the front of the scratch.
  template <class T>
  T* carve(int64_t count) {
    T* block = reinterpret_cast<T*>(scratch);
    scratch += align_up(count * static_cast<int64_t>(sizeof(T)));
    return block;
  }
};

/// The number of cores that this process may use.
int available_threads();

}  // namespace adder
