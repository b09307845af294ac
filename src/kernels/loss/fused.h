// Private to the room: softmax cross-entropy and its gradient, a row at a time in three passes
// (maximum, sum of exponentials, gradient), while the row stays in L2; and the sum of the losses.
#pragma once

#include "core/simd_line.h"
#include "kernels/loss/loss.h"

namespace adder {

template <class L, class D>
void fused_cross_entropy(const LossShape&, const LossForward<L, D>&, Exec);

void sequential_sum(const LossSumShape& shape, const LossSumArgs& args, Exec exec);

}  // namespace adder
