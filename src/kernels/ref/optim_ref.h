// Reference of family `optim` (math.md 8.2), an element at a time in Acc. absolute: every sum on
// absolute values; the quotient m / (sqrt(v) + eps) keeps its true denominator.
#pragma once

#include "kernels/optim/optim.h"

namespace adder::ref {

template <class Acc>
void adamw(const OptimShape& shape, const AdamWArgs<Acc>& args, bool absolute = false);

}  // namespace adder::ref
