#include "kernels/sample/rows.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/sample/weights.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {
namespace {

template <class D>
HWY_INLINE V<D> without_nan(D d, V<D> word) {
  const auto lowest = hn::Set(d, -std::numeric_limits<hn::TFromD<D>>::infinity());
  return hn::IfThenElse(hn::Eq(word, word), word, lowest);
}

}  // namespace

float largest(const float* logits, int64_t count) {
  const Words<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  auto most = hn::Set(d, kLowest);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    most = hn::Max(most, without_nan(d, hn::LoadU(d, logits + i)));
  }
  float result = hn::GetLane(hn::MaxOfLanes(d, most));
  for (; i < count; ++i) result = logits[i] > result ? logits[i] : result;
  return result;
}

void weights(const float* logits, int64_t count, float most, double temperature, double* weight) {
  const Words<double> d;
  const hn::Rebind<float, Words<double>> narrow;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto shift = hn::Set(d, static_cast<double>(most)), scale = hn::Set(d, temperature);
  for (int64_t i = 0; i < count; i += lanes) {
    const auto left = static_cast<size_t>(std::min(lanes, count - i));
    const auto word = hn::PromoteTo(d, load_n(narrow, logits + i, left));
    const auto exponent = hn::Div(hn::Sub(without_nan(d, word), shift), scale);
    store_n(exp_word(d, exponent), d, weight + i, left);
  }
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

HWY_EXPORT(largest);
HWY_EXPORT(weights);

float largest_logit(const float* logits, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(largest)(logits, count);
}

void softmax_weights(const float* logits, int64_t count, float most, double temperature,
                     double* weight) {
  HWY_DYNAMIC_DISPATCH(weights)(logits, count, most, temperature, weight);
}

}  // namespace adder
#endif
