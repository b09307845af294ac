// Lines "chunked_amx" and "chunked_avx512bf16": the chunked form with products of bf16 operands.
#include "kernels/ssd/ssd_lines.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/ssd/ssd_chunked_bf16.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/ssd/ssd_chunk_backward_pass-inl.h"
#include "kernels/ssd/ssd_chunk_bf16_tiles-inl.h"
#include "kernels/ssd/ssd_chunk_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

void bf16_forward(const SsdShape& shape, const SsdForward<Bf16>& args, Exec exec,
                  const ssd::Bf16Units* units) {
  chunked_forward(shape, args, exec, Bf16Tiles{units});
}
void bf16_backward(const SsdShape& shape, const SsdBackward<Bf16>& args, Exec exec,
                   const ssd::Bf16Units* units) {
  chunked_backward(shape, args, exec, Bf16Tiles{units});
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

HWY_EXPORT(bf16_forward);
HWY_EXPORT(bf16_backward);

namespace ssd {

bool amx_accepts(const Caps& caps, const SsdShape& shape) {
  return caps.amx_bf16 && caps.avx512_bf16 && amx_permitted() && chunked_accepts(caps, shape);
}
void amx_forward(const SsdShape& shape, const SsdForward<Bf16>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(bf16_forward)(shape, args, exec, &amx_units());
}
void amx_backward(const SsdShape& shape, const SsdBackward<Bf16>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(bf16_backward)(shape, args, exec, &amx_units());
}

bool avx512bf16_accepts(const Caps& caps, const SsdShape& shape) {
  return caps.avx512_bf16 && chunked_accepts(caps, shape);
}
void avx512bf16_forward(const SsdShape& shape, const SsdForward<Bf16>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(bf16_forward)(shape, args, exec, &avx512bf16_units());
}
void avx512bf16_backward(const SsdShape& shape, const SsdBackward<Bf16>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(bf16_backward)(shape, args, exec, &avx512bf16_units());
}

}  // namespace ssd
}  // namespace adder
#endif
