// C = A B^T with both operands read along k: every element of C is the dot product of a row of A
// and a row of B, its lanes summed in one order whatever the shape. Streams the weights once for
// up to four rows of A: decoding. Accepts any number of rows with the same bits.
#pragma once

#include "kernels/gemm/gemm.h"

namespace adder {

void row_dots_forward(const GemmShape& shape, const GemmArgs<double, double, double>& args,
                      Exec exec);
void row_dots_forward(const GemmShape& shape, const GemmArgs<float, float, float>& args, Exec exec);
void row_dots_forward(const GemmShape& shape, const GemmArgs<float, Bf16, float>& args, Exec exec);
void row_dots_forward(const GemmShape& shape, const GemmArgs<Bf16, Bf16, Bf16>& args, Exec exec);
void row_dots_forward(const GemmShape& shape, const GemmArgs<Bf16, Bf16, float>& args, Exec exec);

}  // namespace adder
