// Private to the room: the loops behind the doors and table lines, and how they are cut.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/simd_line.h"
#include "kernels/pointwise/pointwise.h"

namespace adder {

/// Elements of one work item; rows of one partial column sum. Cut by shape only.
inline constexpr int64_t kPointwiseBlock = 1 << 14;
inline constexpr int64_t kColumnSumRows = 64;

inline int64_t pointwise_blocks(int64_t count) {
  return (count + kPointwiseBlock - 1) / kPointwiseBlock;
}
/// Rows of one item of the gate.
inline int64_t gate_rows(int64_t width) {
  return std::max<int64_t>(1, kPointwiseBlock / std::max<int64_t>(1, width));
}

/// sum += x.
template <class Acc>
void add_block(int64_t count, const Acc* x, Acc* sum);
template <class Acc>
void decay_block(int64_t count, const Acc* a_log, Acc* a);
/// da_log (+)= da a.
template <class Acc>
void multiply_block(int64_t count, const Acc* a, const Acc* da, bool accumulate, Acc* da_log);
/// sums[c] = sum of `rows` rows of g, from the first on.
template <class T>
void column_sum_block(int64_t rows, int64_t width, const T* g, int64_t stride,
                      accumulate_t<T>* sums);

template <class T>
void gate_forward_rowwise(const PointwiseShape&, const GateForward<T>&, Exec);
template <class T>
void gate_backward_rowwise(const PointwiseShape&, const GateBackward<T>&, Exec);

/// Each pair of types is rounded once, to nearest even.
template <class From, class To>
void convert_block(int64_t count, const From* from, To* to);

}  // namespace adder
