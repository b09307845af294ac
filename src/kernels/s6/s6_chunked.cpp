// Line "chunked": a few states over all tokens of a chunk, then the next states.
#include "kernels/s6/s6_lines.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/s6/s6_chunked.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/s6/s6_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

ADDER_SIMD_FUNCTIONS(chunked, S6Shape, S6Forward, forward_in_order<ChunkOrder>)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

ADDER_SIMD_DISPATCH(chunked, S6Shape, S6Forward, s6::chunked_forward)

}  // namespace adder
#endif
