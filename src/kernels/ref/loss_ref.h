// Reference of family `loss` (math.md 8.1), in the type of the logits, a row at a time. absolute:
// the running-error bound of the same formulas, with true exponentials; where a rounded value feeds
// an exponential or a logarithm, its first-order condition is added.
#pragma once

#include "kernels/loss/loss.h"

namespace adder::ref {

template <class L, class D>
void softmax_cross_entropy(const LossShape& shape, const LossForward<L, D>& args,
                           bool absolute = false);

void sum_losses(const LossSumShape& shape, const LossSumArgs& args, bool absolute = false);

}  // namespace adder::ref
