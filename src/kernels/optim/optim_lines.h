// Private to the room: the functions behind the table lines.
#pragma once

#include "kernels/optim/optim.h"

namespace adder {

/// Elements of one work item, and of one partial sum: cut by shape only.
inline constexpr int64_t kOptimBlock = 1 << 14;

void adamw_fused(const OptimShape&, const AdamWArgs<float>&, Exec);
void adamw_fused(const OptimShape&, const AdamWArgs<double>&, Exec);

/// Sum of squares of g[0, count) in double, lanes added in index order.
double block_sum_of_squares(const float* g, int64_t count);
double block_sum_of_squares(const double* g, int64_t count);

}  // namespace adder
