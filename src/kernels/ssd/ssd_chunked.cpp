// Line "chunked", forward: products by words of every SIMD target.
#include "kernels/ssd/ssd_lines.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/ssd/ssd_chunked.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/ssd/ssd_chunk_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

template <class T>
void by_words(const SsdShape& shape, const SsdForward<T>& args, Exec exec) {
  chunked_forward(shape, args, exec, FmaTiles<accumulate_t<T>>());
}
ADDER_SIMD_FUNCTIONS(chunked_forward, SsdShape, SsdForward, by_words)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

ADDER_SIMD_DISPATCH(chunked_forward, SsdShape, SsdForward, ssd::chunked_forward)

}  // namespace adder
#endif
