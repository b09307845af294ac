// Sequential reference of kernels/s6 (math.md section 3): one token and one channel after the
// other in accumulate_t<T>; every state is kept, so backward does not read `saved`.
//
// absolute: S of the tolerance rule (design.md 6), a first-order running-error bound in units of
// roundoff: each operation adds the size of its result, each function the error of its argument
// times its slope. In particular S(e^{delta A}) = e^{delta A} (1 + |A| S(delta)).
#pragma once

#include "kernels/s6/s6.h"

namespace adder::ref {

template <class T>
void s6_forward(const S6Shape& shape, const S6Forward<T>& args, bool absolute = false);
template <class T>
void s6_backward(const S6Shape& shape, const S6Backward<T>& args, bool absolute = false);

}  // namespace adder::ref
