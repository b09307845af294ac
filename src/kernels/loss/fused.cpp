#include "kernels/loss/fused.h"

#include <algorithm>
#include <cmath>

#include "core/threads.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/loss/fused.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {
namespace {

constexpr int64_t kItemElements = 16384;  // of logits, at least one row
// Elements summed in the compute type before the sum goes on in double.
constexpr int64_t kSumBlock = 2048;

template <class C>
C largest(const C* x, int64_t count) {
  const Words<C> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto lowest = hn::Set(d, -std::numeric_limits<C>::infinity());
  auto first = lowest, second = lowest;
  int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    first = hn::Max(first, load(d, x + i));
    second = hn::Max(second, load(d, x + i + lanes));
  }
  C most = hn::GetLane(hn::MaxOfLanes(d, hn::Max(first, second)));
  for (; i < count; ++i) most = std::max(most, x[i]);
  return most;
}

// Sum over the elements of term(word), which must be 0 where the mask of the last word is off.
template <class C, class Term>
HWY_INLINE double sum_of(const C* x, int64_t count, const Term& term) {
  const Words<C> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kSumBlock) {
    const int64_t end = std::min(count, begin + kSumBlock);
    auto first = hn::Zero(d), second = hn::Zero(d);
    int64_t i = begin;
    for (; i + 2 * lanes <= end; i += 2 * lanes) {
      first = hn::Add(first, term(load(d, x + i)));
      second = hn::Add(second, term(load(d, x + i + lanes)));
    }
    for (; i < end; i += lanes) {
      const auto left = static_cast<size_t>(std::min(lanes, end - i));
      const auto last = term(load_n(d, x + i, left));
      first = hn::Add(first, hn::IfThenElseZero(hn::FirstN(d, left), last));
    }
    total += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, hn::Add(first, second))));
  }
  return total;
}

template <class C>
double sum_of_exps(const C* x, int64_t count, C most) {
  const Words<C> d;
  const auto shift = hn::Set(d, most);
  return sum_of(x, count, [&](auto word) { return exp_word(d, hn::Sub(word, shift)); });
}

template <class C>
double sum_of_logits(const C* x, int64_t count) {
  return sum_of(x, count, [](auto word) { return word; });
}

template <class T>
void write_zeros(T* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = T(0.0f);
}

// to = factor e^(x - most) - smooth.
template <class L, class D>
void write_gradient(const L* x, int64_t count, L most, L factor, L smooth, D* to) {
  const Words<L> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto shift = hn::Set(d, most), scale = hn::Set(d, factor), less = hn::Set(d, smooth);
  for (int64_t i = 0; i < count; i += lanes) {
    const auto left = static_cast<size_t>(std::min(lanes, count - i));
    const auto e = exp_word(d, hn::Sub(load_n(d, x + i, left), shift));
    store_converted_n(hn::MulSub(e, scale, less), d, to + i, left);
  }
}

// math.md 8.1 with q = (1 - eps) onehot(target) + eps / vocab.
template <class L, class D>
void row(const LossShape& shape, const LossForward<L, D>& args, double scale, int64_t index) {
  const L* x = args.logits + index * args.logit_stride;
  D* gradient = args.dlogits == nullptr ? nullptr : args.dlogits + index * args.dlogit_stride;
  const int32_t target = args.targets[index];
  if (target == kIgnoreIndex) {
    args.row_loss[index] = 0;
    if (gradient != nullptr) write_zeros(gradient, shape.columns);
    return;
  }
  const double eps = shape.label_smoothing, even = eps / static_cast<double>(shape.vocab);
  const L most = largest(x, shape.vocab);
  const double sum = sum_of_exps(x, shape.vocab, most);
  const double lse = static_cast<double>(most) + std::log(sum);
  const double at_target = static_cast<double>(x[target]);
  // Without smoothing a logit of -inf must not meet a factor of 0.
  const double smoothed = eps == 0 ? 0.0 : even * sum_of_logits(x, shape.vocab);
  args.row_loss[index] = lse - (1 - eps) * at_target - smoothed + shape.z_loss * lse * lse;
  if (gradient == nullptr) return;

  const double factor = scale * (1 + 2 * shape.z_loss * lse) / sum;
  const double smooth = scale * even;
  write_gradient(x, shape.vocab, most, static_cast<L>(factor), static_cast<L>(smooth), gradient);
  // In one piece, so that a narrow type rounds it once.
  const double gain = factor * std::exp(at_target - static_cast<double>(most));
  const Words<L> d;
  store_converted_n(hn::Set(d, static_cast<L>(gain - smooth - scale * (1 - eps))), d,
                    gradient + target, 1);
  write_zeros(gradient + shape.vocab, shape.columns - shape.vocab);
}

template <class L, class D>
void forward(const LossShape& shape, const LossForward<L, D>& args, Exec exec) {
  const double scale = args.gradient_scale == nullptr ? 1.0 : *args.gradient_scale;
  const int64_t item_rows =
      std::max<int64_t>(1, kItemElements / std::max<int64_t>(1, shape.columns));
  parallel_for(exec.threads, (shape.rows + item_rows - 1) / item_rows, [&](int64_t item) {
    const int64_t end = std::min(shape.rows, (item + 1) * item_rows);
    for (int64_t index = item * item_rows; index < end; ++index) row(shape, args, scale, index);
  });
}

}  // namespace

ADDER_SIMD_FUNCTION(fused_f64, forward, LossShape, LossForward<double, double>)
ADDER_SIMD_FUNCTION(fused_f32, forward, LossShape, LossForward<float, float>)
ADDER_SIMD_FUNCTION(fused_f32_bf16, forward, LossShape, LossForward<float, Bf16>)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

ADDER_SIMD_LINE(fused_f64, fused_cross_entropy, LossShape, LossForward<double, double>)
ADDER_SIMD_LINE(fused_f32, fused_cross_entropy, LossShape, LossForward<float, float>)
ADDER_SIMD_LINE(fused_f32_bf16, fused_cross_entropy, LossShape, LossForward<float, Bf16>)

void sequential_sum(const LossSumShape& shape, const LossSumArgs& args, Exec) {
  double sum = args.accumulate ? *args.sum : 0.0;
  for (int64_t row = 0; row < shape.rows; ++row) sum += args.row_loss[row];
  *args.sum = sum;
}

}  // namespace adder
#endif
