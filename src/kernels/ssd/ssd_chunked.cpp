// Line "chunked", forward: products by words of every SIMD target.
#include "kernels/ssd/ssd_lines.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/ssd/ssd_chunked.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/ssd/ssd_chunk_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

void chunked_forward_f64(const SsdShape& shape, const SsdForward<double>& args, Exec exec) {
  chunked_forward(shape, args, exec, FmaTiles<double>());
}
void chunked_forward_f32(const SsdShape& shape, const SsdForward<float>& args, Exec exec) {
  chunked_forward(shape, args, exec, FmaTiles<float>());
}
void chunked_forward_bf16(const SsdShape& shape, const SsdForward<Bf16>& args, Exec exec) {
  chunked_forward(shape, args, exec, FmaTiles<float>());
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

HWY_EXPORT(chunked_forward_f64);
HWY_EXPORT(chunked_forward_f32);
HWY_EXPORT(chunked_forward_bf16);

namespace ssd {

template <>
void chunked_forward(const SsdShape& shape, const SsdForward<double>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(chunked_forward_f64)(shape, args, exec);
}
template <>
void chunked_forward(const SsdShape& shape, const SsdForward<float>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(chunked_forward_f32)(shape, args, exec);
}
template <>
void chunked_forward(const SsdShape& shape, const SsdForward<Bf16>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(chunked_forward_bf16)(shape, args, exec);
}

}  // namespace ssd
}  // namespace adder
#endif
