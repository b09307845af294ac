// Softmax cross-entropy and its gradient, a row at a time in three passes: maximum, sum of
// exponentials, gradient. A row stays in L2 between them.
#pragma once

#include "kernels/loss/loss.h"

namespace adder {

void fused_cross_entropy(const LossShape& shape, const LossForward<double>& args, Exec exec);
void fused_cross_entropy(const LossShape& shape, const LossForward<float>& args, Exec exec);
void fused_cross_entropy(const LossShape& shape, const LossForward<Bf16>& args, Exec exec);

}  // namespace adder
