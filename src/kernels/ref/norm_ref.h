// Sequential references of kernels/norm (math.md section 6). absolute: S of the tolerance rule,
// every product and sum on absolute values at the true statistics, plus the first-order effect of
// rounded sums on the statistics.
#pragma once

#include "kernels/norm/norm.h"

namespace adder::ref {

template <class T, class R>
void norm_forward(const NormShape& shape, const NormForward<T, R>& args, bool absolute = false);
template <class T, class R>
void norm_backward(const NormShape& shape, const NormBackward<T, R>& args, bool absolute = false);
template <class T>
void gated_norm_forward(const GatedNormShape& shape, const GatedNormForward<T>& args,
                        bool absolute = false);
template <class T>
void gated_norm_backward(const GatedNormShape& shape, const GatedNormBackward<T>& args,
                         bool absolute = false);

}  // namespace adder::ref
