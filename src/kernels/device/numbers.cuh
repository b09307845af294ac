// Numbers in device code: the storage types of core/dtype.h and 64-bit indices.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "core/dtype.h"

namespace adder {

/// A stored value in the type that is computed with; exact.
template <class T>
__device__ accumulate_t<T> widened(T value) {
  if constexpr (std::is_same_v<T, F16>) {
    return __half2float(__ushort_as_half(value.bits));
  } else {
    return static_cast<accumulate_t<T>>(value);
  }
}

/// Rounds to nearest even into storage type T; NaN stays NaN.
template <class T>
__device__ T rounded(accumulate_t<T> value) {
  T stored;
  if constexpr (std::is_same_v<T, Bf16>) {
    stored.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
  } else if constexpr (std::is_same_v<T, F16>) {
    stored.bits = __half_as_ushort(__float2half_rn(value));
  } else {
    stored = value;
  }
  return stored;
}

/// The index of this thread along one extent of the grid: x, or y.
__device__ inline int64_t index_x() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline int64_t index_y() {
  return static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y;
}

}  // namespace adder
