#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace adder {
namespace {

constexpr int64_t kDefaultDecayShare = 5;  // wsd: the last fifth

// 1 at the end of the warm-up (or of the stable phase), 0 at the last step.
double decay_factor(const TrainConfig& config, int64_t step, int64_t warmup) {
  if (config.schedule == "constant") return 1;
  if (config.schedule == "cosine") {
    const int64_t span = std::max<int64_t>(config.steps - warmup, 1);
    const double turn = static_cast<double>(step - warmup) / static_cast<double>(span);
    return 0.5 * (1 + std::cos(std::numbers::pi * turn));
  }
  const int64_t wanted =
      config.decay_steps > 0 ? config.decay_steps : config.steps / kDefaultDecayShare;
  const int64_t decay = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(config.steps - warmup, 1));
  const int64_t into = step - (config.steps - decay);
  if (into <= 0) return 1;
  const double share = static_cast<double>(into) / static_cast<double>(decay);
  return config.decay_shape == "sqrt" ? 1 - std::sqrt(share) : 1 - share;
}

}  // namespace

double learning_rate(const TrainConfig& config, int64_t step) {
  const int64_t t = std::clamp<int64_t>(step, 1, config.steps);
  const int64_t warmup = std::min(config.warmup, config.steps);
  if (t <= warmup) return config.lr * static_cast<double>(t) / static_cast<double>(warmup);
  return config.min_lr + (config.lr - config.min_lr) * decay_factor(config, t, warmup);
}

}  // namespace adder
