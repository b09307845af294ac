// C = A B^T with both operands read along k: every element of C is the dot product of a row of A
// and a row of B, its lanes summed in one order whatever the shape. Streams the weights once for
// up to four rows of A: decoding. Accepts any number of rows with the same bits.
#pragma once

#include "kernels/gemm/cut.h"
#include "kernels/gemm/gemm.h"

namespace adder {

#define ADDER_DECLARE(TA, TB, TC, suffix) \
  void row_dots_forward(const GemmShape& shape, const GemmArgs<TA, TB, TC>& args, Exec exec);
ADDER_GEMM_TYPES(ADDER_DECLARE)
#undef ADDER_DECLARE

}  // namespace adder
