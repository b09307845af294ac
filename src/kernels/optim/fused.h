// AdamW in one pass over g, p, m and v, and the sum of squares of the gradient norm.
#pragma once

#include "kernels/optim/optim.h"

namespace adder {

void fused_adamw(const OptimShape& shape, const AdamWArgs<double>& args, Exec exec);
void fused_adamw(const OptimShape& shape, const AdamWArgs<float>& args, Exec exec);

/// Elements of one block of the sum of squares: blocks are summed apart, then in order.
inline constexpr int64_t kSquaresBlock = 16384;
constexpr int64_t squares_blocks(int64_t count) {
  return (count + kSquaresBlock - 1) / kSquaresBlock;
}
/// partial (squares_blocks(count)): the sum of every block, in double.
void block_squares(int64_t count, const double* g, double* partial, int threads);
void block_squares(int64_t count, const float* g, double* partial, int threads);

}  // namespace adder
