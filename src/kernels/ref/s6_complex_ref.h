// Reference of kernels/s6 with complex A (math.md 3.5), reached through ref::s6_forward and
// ref::s6_backward. Bounds: the error of a complex number is bounded as a whole, by magnitudes.
#pragma once

#include "kernels/s6/s6.h"

namespace adder::ref {

template <class T>
void s6_complex_forward(const S6Shape& shape, const S6Forward<T>& args, bool absolute);
template <class T>
void s6_complex_backward(const S6Shape& shape, const S6Backward<T>& args, bool absolute);

}  // namespace adder::ref
