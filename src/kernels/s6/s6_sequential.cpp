// Line "sequential": each token's states, all of them, before the next token.
#include "kernels/s6/s6_lines.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/s6/s6_sequential.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/s6/s6_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

ADDER_SIMD_FUNCTIONS(sequential, S6Shape, S6Forward, forward_in_order<TokenOrder>)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

ADDER_SIMD_DISPATCH(sequential, S6Shape, S6Forward, s6::sequential_forward)

}  // namespace adder
#endif
