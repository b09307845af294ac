// Sequential reference of kernels/conv1d (math.md section 2), one multiply-add after the other in
// accumulate_t<T>. absolute: every product and sum on absolute values, times the first-order
// condition of the nonlinearity that a rounded sum enters (S of the tolerance rule, design.md 6).
#pragma once

#include "kernels/conv1d/conv1d.h"

namespace adder::ref {

template <class T>
void conv1d_forward(const Conv1dShape& shape, const Conv1dForward<T>& args, bool absolute = false);
template <class T>
void conv1d_backward(const Conv1dShape& shape, const Conv1dBackward<T>& args,
                     bool absolute = false);

}  // namespace adder::ref
