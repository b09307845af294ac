// The references of `pointwise`, element by element and row by row: the gate of the MLP
// (math.md 7.6), decays (3.2), column sums, conversions.
#pragma once

#include "kernels/pointwise/pointwise.h"

namespace adder::ref {

/// absolute: on absolute values, the S of the tolerance rule; the rounding of `gate` inside the
/// exponential of silu counts as 1 + |gate|.
template <class T>
void gate_forward(const PointwiseShape& shape, const GateForward<T>& args, bool absolute = false);
template <class T>
void gate_backward(const PointwiseShape& shape, const GateBackward<T>& args, bool absolute = false);

/// Rounded once, to nearest even.
template <class From, class To>
void convert(const PointwiseShape& shape, const ConvertArgs<From, To>& args, bool absolute = false);
template <class T>
void column_sum(const PointwiseShape& shape, const ColumnSumArgs<T>& args, bool absolute = false);
/// absolute: the rounding of a_log inside the exponential counts as 1 + |a_log|.
template <class Acc>
void decay_forward(const PointwiseShape& shape, const DecayForward<Acc>& args,
                   bool absolute = false);
template <class Acc>
void decay_backward(const PointwiseShape& shape, const DecayBackward<Acc>& args,
                    bool absolute = false);

}  // namespace adder::ref
