// The gate of the MLP, element by element (math.md 7.6).
#pragma once

#include "kernels/pointwise/pointwise.h"

namespace adder::ref {

/// absolute: on absolute values, the S of the tolerance rule; the rounding of `gate` inside the
/// exponential of silu counts as 1 + |gate|.
template <class T>
void gate_forward(const PointwiseShape& shape, const GateForward<T>& args, bool absolute = false);
template <class T>
void gate_backward(const PointwiseShape& shape, const GateBackward<T>& args, bool absolute = false);

}  // namespace adder::ref
