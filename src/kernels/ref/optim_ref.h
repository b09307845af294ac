// AdamW, element by element (math.md 8.2).
#pragma once

#include "kernels/optim/optim.h"

namespace adder::ref {

/// absolute: sums of absolute values, the S of the tolerance rule.
template <class Acc>
void adamw_step(const OptimShape& shape, const AdamWArgs<Acc>& args, bool absolute = false);

}  // namespace adder::ref
