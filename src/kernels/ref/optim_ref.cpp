#include "kernels/ref/optim_ref.h"

#include <cmath>

namespace adder::ref {

template <class Acc>
void adamw(const OptimShape& shape, const AdamWArgs<Acc>& args, bool absolute) {
  const StepState& state = *args.state;
  if (state.skip != 0) return;
  const auto t = static_cast<double>(state.updates);
  const auto b1 = static_cast<Acc>(args.constants.beta1),
             b2 = static_cast<Acc>(args.constants.beta2);
  const auto rate = static_cast<Acc>(state.learning_rate / (1 - std::pow(args.constants.beta1, t)));
  const auto root2 = static_cast<Acc>(std::sqrt(1 - std::pow(args.constants.beta2, t)));
  const auto decay = static_cast<Acc>(state.learning_rate * args.constants.weight_decay);
  for (int64_t i = 0; i < shape.count; ++i) {
    const Acc g = args.g[i] * static_cast<Acc>(state.clip);
    const Acc v = b2 * args.v[i] + static_cast<Acc>(1 - args.constants.beta2) * g * g;
    const Acc spread = std::sqrt(v) / root2 + static_cast<Acc>(args.constants.eps);
    const Acc rest1 = static_cast<Acc>(1 - args.constants.beta1);
    args.v[i] = v;
    if (absolute) {
      args.m[i] = b1 * std::abs(args.m[i]) + rest1 * std::abs(g);
      args.p[i] = std::abs(args.p[i]) * (1 + decay) + std::abs(rate) * args.m[i] / spread;
    } else {
      args.m[i] = b1 * args.m[i] + rest1 * g;
      args.p[i] = args.p[i] * (1 - decay) - rate * args.m[i] / spread;
    }
    if (args.rounded != nullptr) args.rounded[i] = Bf16(static_cast<float>(args.p[i]));
  }
}

template <class Acc>
void sum_of_squares(const OptimShape& shape, const SquaresArgs<Acc>& args, bool absolute) {
  double sum = 0, bound = 0;
  for (int64_t i = 0; i < shape.count; ++i) {
    const auto g = static_cast<double>(args.g[i]);
    sum += g * g;
    bound += sum;
  }
  const double before = args.accumulate ? *args.sum : 0;
  *args.sum = absolute ? std::abs(before) + bound : before + sum;
}

void decide_step(const OptimShape&, const DecisionArgs& args, bool) {
  StepState& state = *args.state;
  state.grad_norm = std::sqrt(state.squares);
  state.skip = std::isfinite(state.grad_norm) && std::isfinite(state.loss_sum) ? 0 : 1;
  state.skipped += state.skip;
  if (state.skip != 0) return;
  ++state.updates;
  const double wanted = args.clip_norm / (state.grad_norm + 1e-6);
  state.clip = args.clip_norm > 0 && wanted < 1 ? wanted : 1;
}

template void sum_of_squares<double>(const OptimShape&, const SquaresArgs<double>&, bool);
template void sum_of_squares<float>(const OptimShape&, const SquaresArgs<float>&, bool);
template void adamw<double>(const OptimShape&, const AdamWArgs<double>&, bool);
template void adamw<float>(const OptimShape&, const AdamWArgs<float>&, bool);

}  // namespace adder::ref
