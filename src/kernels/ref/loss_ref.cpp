#include "kernels/ref/loss_ref.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace adder::ref {
namespace {

// The sums that both outputs of a row share. bound: relative error condition of `sum`, which is
// sum of p_c (1 + |x_c - most|), since e^(x - most) has condition |x - most|.
template <class Acc>
struct RowSums {
  Acc most = -std::numeric_limits<Acc>::infinity();
  Acc sum = 0;
  Acc lse = 0;
  Acc bound = 0;
};

// |x - most| e^(x - most) is 0 where the exponential is.
template <class Acc>
Acc condition(Acc x, Acc most) {
  return std::exp(x - most) == 0 ? Acc{1} : 1 + std::abs(x - most);
}

template <class Acc>
RowSums<Acc> row_sums(const LossShape& shape, const Acc* x) {
  RowSums<Acc> sums;
  for (int64_t c = 0; c < shape.vocab; ++c) sums.most = std::max(sums.most, x[c]);
  for (int64_t c = 0; c < shape.vocab; ++c) {
    const Acc value = x[c];
    const Acc e = std::exp(value - sums.most);
    sums.sum += e;
    sums.bound += e * condition(value, sums.most);
  }
  sums.bound /= sums.sum;
  sums.lse = sums.most + std::log(sums.sum);
  return sums;
}

template <class Acc>
double row_loss(const LossShape& shape, const Acc* x, int32_t target, const RowSums<Acc>& sums,
                bool absolute) {
  const auto sign = [&](Acc value) { return absolute ? std::abs(value) : value; };
  const auto eps = static_cast<Acc>(shape.label_smoothing), zeta = static_cast<Acc>(shape.z_loss);
  Acc total = 0;
  if (shape.label_smoothing != 0) {
    for (int64_t c = 0; c < shape.vocab; ++c) total += sign(x[c]);
  }
  const Acc smoothed = shape.label_smoothing == 0 ? 0 : eps / static_cast<Acc>(shape.vocab) * total;
  const Acc at_target = x[target];
  if (!absolute) {
    return static_cast<double>(sums.lse - (1 - eps) * at_target - smoothed +
                               zeta * sums.lse * sums.lse);
  }
  const Acc lse = std::abs(sums.most) + std::abs(std::log(sums.sum)) + sums.bound;
  return static_cast<double>(lse + (1 - eps) * std::abs(at_target) + smoothed +
                             zeta * (sums.lse * sums.lse + 2 * std::abs(sums.lse) * lse));
}

template <class Acc, class D>
void row_gradient(const LossShape& shape, const LossForward<Acc, D>& args, int64_t index,
                  const RowSums<Acc>& sums, bool absolute) {
  const Acc* x = args.logits + index * args.logit_stride;
  const auto eps = static_cast<Acc>(shape.label_smoothing), zeta = static_cast<Acc>(shape.z_loss);
  const Acc scale =
      args.gradient_scale == nullptr ? Acc(1) : static_cast<Acc>(*args.gradient_scale);
  const Acc lse_bound = std::abs(sums.most) + std::abs(std::log(sums.sum)) + sums.bound;
  // The logits may be overwritten by their gradient.
  std::vector<Acc> row(static_cast<size_t>(shape.columns), Acc{0});
  for (int64_t c = 0; c < shape.vocab; ++c) {
    const Acc value = x[c];
    const Acc p = std::exp(value - sums.most) / sums.sum;
    const Acc q = eps / static_cast<Acc>(shape.vocab) + (c == args.targets[index] ? 1 - eps : 0);
    if (!absolute) {
      row[static_cast<size_t>(c)] = scale * (p * (1 + 2 * zeta * sums.lse) - q);
    } else {
      const Acc gain =
          (condition(value, sums.most) + sums.bound) * (1 + 2 * zeta * std::abs(sums.lse)) +
          2 * zeta * lse_bound;
      row[static_cast<size_t>(c)] = std::abs(scale) * (p * gain + q);
    }
  }
  D* to = args.dlogits + index * args.dlogit_stride;
  for (int64_t c = 0; c < shape.columns; ++c) to[c] = static_cast<D>(row[static_cast<size_t>(c)]);
}

}  // namespace

template <class L, class D>
void softmax_cross_entropy(const LossShape& shape, const LossForward<L, D>& args, bool absolute) {
  for (int64_t index = 0; index < shape.rows; ++index) {
    if (args.targets[index] == kIgnoreIndex) {
      args.row_loss[index] = 0;
      if (args.dlogits == nullptr) continue;
      D* to = args.dlogits + index * args.dlogit_stride;
      for (int64_t c = 0; c < shape.columns; ++c) to[c] = D(0.0f);
      continue;
    }
    const L* x = args.logits + index * args.logit_stride;
    const auto sums = row_sums(shape, x);
    args.row_loss[index] = row_loss(shape, x, args.targets[index], sums, absolute);
    if (args.dlogits != nullptr) row_gradient(shape, args, index, sums, absolute);
  }
}

void sum_losses(const LossSumShape& shape, const LossSumArgs& args, bool absolute) {
  const auto sized = [&](double value) { return absolute ? std::abs(value) : value; };
  double sum = args.accumulate ? sized(*args.sum) : 0;
  for (int64_t row = 0; row < shape.rows; ++row) sum += sized(args.row_loss[row]);
  *args.sum = sum;
}

#define ADDER_REF_LOSS(L, D) \
  template void softmax_cross_entropy<L, D>(const LossShape&, const LossForward<L, D>&, bool);
ADDER_REF_LOSS(double, double)
ADDER_REF_LOSS(float, float)
ADDER_REF_LOSS(float, Bf16)
#undef ADDER_REF_LOSS

}  // namespace adder::ref
