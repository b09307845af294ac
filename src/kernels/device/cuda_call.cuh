// The one check of CUDA calls. For .cu files and for sources that are compiled only with CUDA.
#pragma once

#include <cuda_runtime.h>

namespace adder {

/// Throws Error unless `code` is success: "device 'cuda:0': cudaMemcpyAsync failed:
/// cudaErrorInvalidValue (invalid argument)". `call` is the call as it was written; the message
/// shows its name.
void check_cuda(cudaError_t code, const char* call);

}  // namespace adder

#define ADDER_CUDA_CALL(call) ::adder::check_cuda((call), #call)
