// Line "sequential": each token's states, all of them, before the next token.
#include "kernels/s6/s6_lines.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/s6/s6_sequential.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/s6/s6_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

void sequential_f64(const S6Shape& shape, const S6Forward<double>& args, Exec exec) {
  forward_whole_sequences<TokenOrder>(shape, args, exec);
}
void sequential_f32(const S6Shape& shape, const S6Forward<float>& args, Exec exec) {
  forward_whole_sequences<TokenOrder>(shape, args, exec);
}
void sequential_bf16(const S6Shape& shape, const S6Forward<Bf16>& args, Exec exec) {
  forward_whole_sequences<TokenOrder>(shape, args, exec);
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

HWY_EXPORT(sequential_f64);
HWY_EXPORT(sequential_f32);
HWY_EXPORT(sequential_bf16);

namespace s6 {

template <>
void sequential_forward(const S6Shape& shape, const S6Forward<double>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(sequential_f64)(shape, args, exec);
}
template <>
void sequential_forward(const S6Shape& shape, const S6Forward<float>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(sequential_f32)(shape, args, exec);
}
template <>
void sequential_forward(const S6Shape& shape, const S6Forward<Bf16>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(sequential_bf16)(shape, args, exec);
}

}  // namespace s6
}  // namespace adder
#endif
