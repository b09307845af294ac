// Where work runs: the device, its stream, the number of threads and the scratch memory.
#pragma once

#include <cstdint>

#include "core/buffer.h"

namespace adder {

enum class Device : uint8_t { cpu, cuda };

/// What a kernel may ask about the machine when it decides whether it accepts a shape.
struct Caps {
  Device device = Device::cpu;
  int threads = 1;
  int vector_bytes = 16;  // widest Highway target in use: 64 AVX-512, 32 AVX2, 16 NEON or scalar
  bool avx512_bf16 = false;
  bool avx512_vnni = false;
  bool amx_bf16 = false;
};

/// The caller's side of every kernel call. Not shared between threads. The arena must hold the
/// scratch of the kernels that run (a measuring arena sizes it).
struct Context {
  Device device = Device::cpu;
  void* stream = nullptr;  // cudaStream_t on CUDA
  int threads = 1;
  Arena* arena = nullptr;

  Caps caps() const;
};

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
