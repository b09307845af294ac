// Line "chunked", backward.
#include "kernels/ssd/ssd_lines.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/ssd/ssd_chunked_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/ssd/ssd_chunk_backward_pass-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

template <class T>
void by_words(const SsdShape& shape, const SsdBackward<T>& args, Exec exec) {
  chunked_backward(shape, args, exec, FmaTiles<accumulate_t<T>>());
}
ADDER_SIMD_FUNCTIONS(chunked_backward, SsdShape, SsdBackward, by_words)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

ADDER_SIMD_DISPATCH(chunked_backward, SsdShape, SsdBackward, ssd::chunked_backward)

}  // namespace adder
#endif
