// The one way to start a kernel, for the .cu files of the families.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

#include "core/context.h"
#include "kernels/device/cuda_call.cuh"

namespace adder {

struct Grid {
  dim3 blocks;
  dim3 threads;              // of one block
  int64_t shared_bytes = 0;  // dynamic, of one block; up to Caps::shared_bytes
};

/// ceil(count / per_block), for one extent of a grid.
inline unsigned blocks_for(int64_t count, int64_t per_block) {
  const int64_t blocks = (count + per_block - 1) / per_block;
  ADDER_CHECK(blocks >= 0 && blocks <= std::numeric_limits<int32_t>::max());
  return static_cast<unsigned>(blocks);
}

/// Enqueues kernel<<<grid>>>(arguments) on the stream of `exec`; an empty grid is nothing to do.
/// Throws an Error that shows `name` when the launch is refused. A fault inside of the kernel is
/// reported by the next synchronize().
template <class... Parameters>
void launch(const char* name, void (*kernel)(Parameters...), const Grid& grid, const Exec& exec,
            const std::type_identity_t<Parameters>&... arguments) {
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return;
  constexpr int64_t kWithoutAsking = 48 << 10;  // more dynamic shared memory must be opted in
  if (grid.shared_bytes > kWithoutAsking) {
    ADDER_CUDA_CALL(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(grid.shared_bytes)));
  }
  kernel<<<grid.blocks, grid.threads, static_cast<size_t>(grid.shared_bytes),
           static_cast<cudaStream_t>(exec.stream)>>>(arguments...);
  const cudaError_t code = cudaGetLastError();
  if (code != cudaSuccess) check_cuda(code, ("launch of " + std::string(name)).c_str());
}

}  // namespace adder
