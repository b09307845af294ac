// Packed and register-blocked products for every layout and type: double, and the shapes that
// neither oneDNN nor row_dots takes. Each element of C is one chain of multiply-adds over k.
#pragma once

#include "kernels/gemm/cut.h"
#include "kernels/gemm/gemm.h"

namespace adder {

#define ADDER_DECLARE(TA, TB, TC, suffix) \
  void blocked_forward(const GemmShape& shape, const GemmArgs<TA, TB, TC>& args, Exec exec);
ADDER_GEMM_TYPES(ADDER_DECLARE)
#undef ADDER_DECLARE

}  // namespace adder
