// Backward of the lines "sequential" and "chunked": every sequence from its last chunk to its
// first.
#include "kernels/s6/s6_lines.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/s6/s6_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/s6/s6_backward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

template <class T>
void backward(const S6Shape& shape, const S6Backward<T>& args, Exec exec) {
  using C = accumulate_t<T>;
  const auto segment_back = [](const BackwardJob<T>& job, const s6::Segment& segment,
                               const s6::Tile& tile, C* mu, const PartialSums<C>& sums) {
    backward_segment(job, segment, tile, mu, sums);
  };
  backward_whole_sequences(shape, args, exec, 1, segment_back);
}
ADDER_SIMD_FUNCTIONS(backward, S6Shape, S6Backward, backward)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

ADDER_SIMD_DISPATCH(backward, S6Shape, S6Backward, s6::chunked_backward)

}  // namespace adder
#endif
