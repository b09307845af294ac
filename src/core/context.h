// Where work runs: the device and what it can do, its stream, the number of threads and the scratch
// memory.
#pragma once

#include <cstdint>

#include "core/buffer.h"

namespace adder {

/// What a table line may ask about the device when it decides whether it accepts a shape. Found once
/// for a context, never changed by it. Threads are not part of it: lines differ in their last bits,
/// and a result may not depend on how many threads computed it.
struct Caps {
  Device device = Device::cpu;
  int ordinal = 0;  // which device of that type
  // CPU.
  int vector_bytes = 16;  // widest Highway target in use: 64 AVX-512, 32 AVX2, 16 NEON or scalar
  bool avx512_bf16 = false;
  bool avx512_vnni = false;
  bool amx_bf16 = false;
  // GPU.
  int architecture = 0;               // 10 major + minor: 80, 90
  int processors = 0;                 // streaming multiprocessors
  int64_t shared_bytes = 0;           // of one block, opted in
  int64_t memory_bandwidth_mb_s = 0;  // by the driver's figures
};

/// Those of the CPU, for the SIMD target in use.
Caps cpu_caps();

/// The caller's side of every kernel call. Not shared between threads. The arena must hold the
/// scratch of the kernels that run (a measuring arena sizes it; core/workspace.h does both).
struct Context {
  Caps caps = cpu_caps();
  void* stream = nullptr;  // cudaStream_t on CUDA
  int threads = 1;         // of the CPU
  Arena* arena = nullptr;

  Memory memory(MemoryKind kind) const { return {kind, caps.device, caps.ordinal}; }
  DeviceBackend& backend() const { return device_backend(caps.device); }
  /// True while a call only tells what memory it needs: nothing is run, copied or filled.
  bool planning() const { return arena != nullptr && arena->measuring(); }
};

/// `count` elements from one kind of memory to another. Not waited for: see DeviceBackend::copy.
template <class T>
void copy_elements(const Context& context, T* to, const T* from, int64_t count) {
  if (context.planning() || count == 0) return;
  context.backend().copy(context.stream, to, from, count * static_cast<int64_t>(sizeof(T)));
}
/// Zeros, not waited for.
template <class T>
void zero_elements(const Context& context, T* to, int64_t count) {
  if (context.planning() || count == 0) return;
  context.backend().fill(context.stream, to, 0, count * static_cast<int64_t>(sizeof(T)));
}
/// As copy_elements, to host memory that may be read at once.
template <class T>
void fetch_elements(const Context& context, T* to, const T* from, int64_t count) {
  copy_elements(context, to, from, count);
  if (!context.planning()) context.backend().synchronize(context.stream);
}

/// What a kernel gets: no allocation, no environment, no printing inside.
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

/// Cores that this process may use.
int available_threads();

}  // namespace adder
