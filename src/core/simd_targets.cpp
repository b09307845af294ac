#include "core/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/simd_targets.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

int vector_bytes() {
  return static_cast<int>(hwy::HWY_NAMESPACE::Lanes(hwy::HWY_NAMESPACE::ScalableTag<uint8_t>()));
}
int64_t target_bits() { return HWY_TARGET; }

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

HWY_EXPORT(vector_bytes);
HWY_EXPORT(target_bits);

std::vector<SimdTarget> simd_targets() {
  std::vector<SimdTarget> found;
  for (const int64_t bits : hwy::SupportedAndGeneratedTargets()) {
    found.push_back({bits, hwy::TargetName(bits)});
  }
  return found;
}

void force_simd_target(int64_t bits) {
  hwy::SetSupportedTargetsForTest(bits);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

int simd_vector_bytes() { return HWY_DYNAMIC_DISPATCH(vector_bytes)(); }
std::string simd_target_name() { return hwy::TargetName(HWY_DYNAMIC_DISPATCH(target_bits)()); }

}  // namespace adder
#endif
