// Learning rate by step (math.md 8.3).
#pragma once

#include <cstdint>

#include "train/train_config.h"

namespace adder {

/// The learning rate of step t in [1, config.steps]: a linear rise over `warmup` steps to `lr`,
/// then cosine to `min_lr`, or constant and a decay to `min_lr` over the last steps (wsd), or
/// constant. A warm-up longer than the run is cut to it.
double learning_rate(const TrainConfig& config, int64_t step);

}  // namespace adder
