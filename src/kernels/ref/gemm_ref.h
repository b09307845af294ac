// Reference of family `gemm`: one sequential sum per element, products and sums rounded one by one
// in accumulate_t<TA>. absolute: the same on absolute values.
#pragma once

#include "kernels/gemm/gemm.h"

namespace adder::ref {

template <class TA, class TB, class TC>
void gemm(const GemmShape& shape, const GemmArgs<TA, TB, TC>& args, bool absolute = false);

}  // namespace adder::ref
