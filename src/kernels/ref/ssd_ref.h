// Sequential reference of kernels/ssd (math.md 4.1): one token and one channel (head, p) after the
// other in accumulate_t<T>; every state is kept, so backward does not read `saved`.
//
// absolute: S of the tolerance rule (design.md 6), a first-order running-error bound in units of
// roundoff: each operation adds the size of its result, each function the error of its argument
// times its slope. In particular S(e^{delta A}) = e^{delta A} (1 + |A| S(delta)).
#pragma once

#include "kernels/ssd/ssd.h"

namespace adder::ref {

/// The form whose rounding is evaluated or bounded; all forms have the same exact result.
enum class SsdForm : uint8_t {
  recurrent,  // the recurrence as it stands
  // Sums over pairs of tokens: a state or its gradient counts with the sizes of its terms, since
  // these are rounded before they cancel.
  quadratic,
  // As quadratic; decays are e^{cs_i - cs_j}, so each adds |cs| of its chunk to the relative error;
  // operands of products are rounded to T where math.md 4.3 and 4.10 say so.
  chunked,
};

template <class T>
void ssd_forward(const SsdShape& shape, const SsdForward<T>& args, bool absolute = false,
                 SsdForm form = SsdForm::recurrent);
template <class T>
void ssd_backward(const SsdShape& shape, const SsdBackward<T>& args, bool absolute = false,
                  SsdForm form = SsdForm::recurrent);

}  // namespace adder::ref
