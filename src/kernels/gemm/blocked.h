// Packed and register-blocked products for every layout and type: double, and the shapes that
// neither oneDNN nor row_dots takes. Each element of C is one chain of multiply-adds over k.
#pragma once

#include "kernels/gemm/gemm.h"

namespace adder {

void blocked_forward(const GemmShape& shape, const GemmArgs<double, double, double>& args,
                     Exec exec);
void blocked_forward(const GemmShape& shape, const GemmArgs<float, float, float>& args, Exec exec);
void blocked_forward(const GemmShape& shape, const GemmArgs<float, Bf16, float>& args, Exec exec);
void blocked_forward(const GemmShape& shape, const GemmArgs<Bf16, Bf16, Bf16>& args, Exec exec);
void blocked_forward(const GemmShape& shape, const GemmArgs<Bf16, Bf16, float>& args, Exec exec);

}  // namespace adder
