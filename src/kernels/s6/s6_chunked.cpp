// Line "chunked": a few states over all tokens of a chunk, then the next states.
#include "kernels/s6/s6_lines.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/s6/s6_chunked.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/s6/s6_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

void chunked_f64(const S6Shape& shape, const S6Forward<double>& args, Exec exec) {
  forward_whole_sequences<ChunkOrder>(shape, args, exec);
}
void chunked_f32(const S6Shape& shape, const S6Forward<float>& args, Exec exec) {
  forward_whole_sequences<ChunkOrder>(shape, args, exec);
}
void chunked_bf16(const S6Shape& shape, const S6Forward<Bf16>& args, Exec exec) {
  forward_whole_sequences<ChunkOrder>(shape, args, exec);
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

HWY_EXPORT(chunked_f64);
HWY_EXPORT(chunked_f32);
HWY_EXPORT(chunked_bf16);

namespace s6 {

template <>
void chunked_forward(const S6Shape& shape, const S6Forward<double>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(chunked_f64)(shape, args, exec);
}
template <>
void chunked_forward(const S6Shape& shape, const S6Forward<float>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(chunked_f32)(shape, args, exec);
}
template <>
void chunked_forward(const S6Shape& shape, const S6Forward<Bf16>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(chunked_bf16)(shape, args, exec);
}

}  // namespace s6
}  // namespace adder
#endif
