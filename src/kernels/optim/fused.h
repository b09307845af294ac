// Private to the room: AdamW in one pass over g, p, m and v, the sum of squares of the gradient
// norm, and the decision between them.
#pragma once

#include "core/simd_line.h"
#include "kernels/optim/optim.h"

namespace adder {

template <class Acc>
void fused_adamw(const OptimShape& shape, const AdamWArgs<Acc>& args, Exec exec);

/// Elements of one block of the sum of squares: blocks are summed apart, then in order.
inline constexpr int64_t kSquaresBlock = 16384;
constexpr int64_t squares_blocks(int64_t count) {
  return (count + kSquaresBlock - 1) / kSquaresBlock;
}
/// Scratch: squares_blocks(count) doubles.
template <class Acc>
void block_squares(const OptimShape& shape, const SquaresArgs<Acc>& args, Exec exec);

void decide(const OptimShape& shape, const DecisionArgs& args, Exec exec);

}  // namespace adder
