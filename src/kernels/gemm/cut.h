// The cut of a product into items, by its shape alone, so that the bits do not depend on threads;
// the list of its types; and the lines that are our own.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/simd_line.h"
#include "kernels/gemm/gemm.h"

/// X(TA, TB, TC, suffix of function names) for each choice of types.
#define ADDER_GEMM_TYPES(X)       \
  X(double, double, double, f64)  \
  X(float, float, float, f32)     \
  X(float, Bf16, float, f32_bf16) \
  X(Bf16, Bf16, Bf16, bf16)       \
  X(Bf16, Bf16, float, bf16_f32)

namespace adder {

/// One axis cut into `parts` nearly equal parts whose inner edges are multiples of kEdge. With
/// extent >= 2 kEdge parts, every part holds at least kEdge elements.
struct Cut {
  static constexpr int64_t kEdge = 16;
  int64_t extent = 0;
  int64_t parts = 1;

  /// Parts of about `target` elements; one part when the extent is short.
  static Cut by_target(int64_t extent, int64_t target) {
    const int64_t most = std::max<int64_t>(1, extent / (2 * kEdge));
    const int64_t wanted = (extent + target - 1) / target;
    return {extent, std::clamp<int64_t>(wanted, 1, most)};
  }
  int64_t begin(int64_t part) const {
    return part == parts ? extent : extent * part / parts / kEdge * kEdge;
  }
  int64_t size(int64_t part) const { return begin(part + 1) - begin(part); }
};

/// Threads worth opening a region for: it costs some microseconds, as much as 64K multiply-adds.
inline int useful_threads(const GemmShape& shape, int threads) {
  return shape.m * shape.n * shape.k < (int64_t{1} << 16) ? 1 : threads;
}

template <class TA, class TB, class TC>
void blocked_forward(const GemmShape& shape, const GemmArgs<TA, TB, TC>& args, Exec exec);
template <class TA, class TB, class TC>
void row_dots_forward(const GemmShape& shape, const GemmArgs<TA, TB, TC>& args, Exec exec);

}  // namespace adder
