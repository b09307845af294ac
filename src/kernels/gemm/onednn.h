// oneDNN's products, cut into tiles by shape; each tile runs on one thread. Only onednn.cpp sees
// the library. In fp32, A not transposed, the bits of a row of C do not depend on the number of
// rows for m >= kOnednnRows; in bf16 they may (its matmul has another order of summation for the
// smallest tiles).
#pragma once

#include "kernels/gemm/gemm.h"

namespace adder {

/// Below this many rows, and for one column, oneDNN switches to kernels with another order of
/// summation (its small-m and matrix-vector paths).
inline constexpr int64_t kOnednnRows = 16;

void onednn_forward(const GemmShape& shape, const GemmArgs<float, float, float>& args, Exec exec);
/// Widens B to fp32 a block of columns at a time, in scratch.
void onednn_forward(const GemmShape& shape, const GemmArgs<float, Bf16, float>& args, Exec exec);
void onednn_forward(const GemmShape& shape, const GemmArgs<Bf16, Bf16, Bf16>& args, Exec exec);
void onednn_forward(const GemmShape& shape, const GemmArgs<Bf16, Bf16, float>& args, Exec exec);

/// Of the fp32 line, and of the one that widens B.
int64_t onednn_scratch_bytes(const Caps&, const GemmShape& shape, Direction);
int64_t onednn_widened_scratch_bytes(const Caps&, const GemmShape& shape, Direction);

}  // namespace adder
