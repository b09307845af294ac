// Reference of family `optim` (math.md 8.2), an element at a time in Acc. absolute: every sum on
// absolute values; the quotient m / (sqrt(v) + eps) keeps its true denominator.
#pragma once

#include "kernels/optim/optim.h"

namespace adder::ref {

template <class Acc>
void adamw(const OptimShape& shape, const AdamWArgs<Acc>& args, bool absolute = false);
/// absolute: the sum of the sums on the way, which bounds the roundings of any order.
template <class Acc>
void sum_of_squares(const OptimShape& shape, const SquaresArgs<Acc>& args, bool absolute = false);
void decide_step(const OptimShape&, const DecisionArgs& args, bool absolute = false);

}  // namespace adder::ref
