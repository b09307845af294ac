// Stands in for cuda_backend.cpp in a build without CUDA.
#if !ADDER_CUDA

#include "core/error.h"
#include "kernels/device/cuda_backend.h"

namespace adder {
namespace {

[[noreturn]] void no_cuda() { throw Error({"this build has no CUDA", "device 'cuda'", {}, {}}); }

}  // namespace

int cuda_device_count() { return 0; }
Caps cuda_caps(int) { no_cuda(); }
Context use_cuda(int) { no_cuda(); }

}  // namespace adder

#endif
