#include "kernels/ref/optim_ref.h"

#include <cmath>

namespace adder::ref {

template <class Acc>
void adamw_step(const OptimShape& shape, const AdamWArgs<Acc>& args, bool absolute) {
  const StepValues& values = *args.values;
  const AdamWConstants& constants = args.constants;
  if (values.skip != 0) return;
  const auto lr = static_cast<Acc>(values.learning_rate);
  const auto b1 = static_cast<Acc>(constants.beta1);
  const auto b2 = static_cast<Acc>(constants.beta2);
  const auto correction1 = static_cast<Acc>(1 - std::pow(constants.beta1, values.step));
  const auto correction2 = static_cast<Acc>(std::sqrt(1 - std::pow(constants.beta2, values.step)));
  for (int64_t i = 0; i < shape.count; ++i) {
    const Acc g = args.g[i] * static_cast<Acc>(values.clip_coefficient);
    const Acc shrunk = args.p[i] * (1 - lr * static_cast<Acc>(constants.weight_decay));
    const Acc m = b1 * args.m[i] + (1 - b1) * g;
    const Acc size = std::abs(b1 * args.m[i]) + std::abs((1 - b1) * g);
    const Acc v = b2 * args.v[i] + (1 - b2) * g * g;
    const Acc unit = lr / correction1 / (std::sqrt(v) / correction2 + static_cast<Acc>(constants.eps));
    args.m[i] = absolute ? size : m;
    args.v[i] = v;
    args.p[i] = absolute ? std::abs(shrunk) + unit * size : shrunk - unit * m;
  }
}

template void adamw_step<float>(const OptimShape&, const AdamWArgs<float>&, bool);
template void adamw_step<double>(const OptimShape&, const AdamWArgs<double>&, bool);

}  // namespace adder::ref
