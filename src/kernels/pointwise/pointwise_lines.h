// Private to the room: the loops behind the doors and table lines, and how they are cut.
#pragma once

#include <algorithm>
#include <cstdint>

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

void gate_forward_rowwise(const PointwiseShape&, const GateForward<double>&, Exec);
void gate_forward_rowwise(const PointwiseShape&, const GateForward<float>&, Exec);
void gate_forward_rowwise(const PointwiseShape&, const GateForward<Bf16>&, Exec);
void gate_backward_rowwise(const PointwiseShape&, const GateBackward<double>&, Exec);
void gate_backward_rowwise(const PointwiseShape&, const GateBackward<float>&, Exec);
void gate_backward_rowwise(const PointwiseShape&, const GateBackward<Bf16>&, Exec);

/// Each pair of types is rounded once, to nearest even.
#define ADDER_CONVERT_BLOCK(From)                                  \
  void convert_block(int64_t count, const From* from, double* to); \
  void convert_block(int64_t count, const From* from, float* to);  \
  void convert_block(int64_t count, const From* from, Bf16* to);   \
  void convert_block(int64_t count, const From* from, F16* to);
ADDER_CONVERT_BLOCK(double)
ADDER_CONVERT_BLOCK(float)
ADDER_CONVERT_BLOCK(Bf16)
ADDER_CONVERT_BLOCK(F16)
#undef ADDER_CONVERT_BLOCK

}  // namespace adder
