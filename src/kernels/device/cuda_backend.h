// The GPUs of this machine, for code that is compiled with and without CUDA: how many there are, what
// they can do, and a context on one of them. Without CUDA in the build there are none. Thread-safe.
#pragma once

#include "core/context.h"

namespace adder {

/// How many GPUs a context can be had on; 0 without CUDA in the build, without a driver that works, or
/// without a GPU.
int cuda_device_count();

/// The architecture, processors, shared memory and bandwidth of one GPU. Throws Error that says what is
/// missing: CUDA in the build, a driver, a GPU, this number.
Caps cuda_caps(int ordinal);

/// A context on one GPU: makes it the calling thread's current device and, the first time, CUDA the
/// backend of Device::cuda. All contexts of a GPU share one stream, which lives as long as the
/// process and keeps its order with Buffer's own copies. A context is for the thread that asked for
/// it. Errors: as cuda_caps.
Context use_cuda(int ordinal);

}  // namespace adder
