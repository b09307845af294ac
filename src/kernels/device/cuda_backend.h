// The GPUs of this machine: their number, their capabilities, and a context on one of them. This
// header is for code that is compiled with and without CUDA; in a build without it there are
// no GPUs. Thread-safe.
#pragma once

#include "core/context.h"

namespace adder {

/// The number of GPUs; 0 without CUDA in the build, without a working driver, or without a GPU.
int cuda_device_count();

/// The capabilities of one GPU. Throws an Error that says which part is missing: CUDA in the build,
/// a driver, a GPU, or a GPU of this number.
Caps cuda_caps(int ordinal);

/// A context on one GPU: makes it the calling thread's current device and, the first time, CUDA the
/// backend of Device::cuda. All contexts of a GPU share one stream, which lives as long as the
/// process and keeps its order with Buffer's own copies. A context is for the thread that asked for
/// it. Errors: as cuda_caps.
Context use_cuda(int ordinal);

}  // namespace adder
