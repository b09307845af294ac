// Kernel family `gemm`: C = op(A) op(B) (+ bias) (+ C), row-major, fp32 accumulation (double for
// double). Thread-safe.
//
// gemm.h, .cpp        door, table and the ranking of its lines
// onednn.h, .cpp      oneDNN's products, cut into tiles
// row_dots.cpp        our dot products for few rows: decoding
// blocked.cpp         our packed products for every layout and type
// cut.h               how a product is cut into items, the list of types
//
// TA, TB, TC: element types of A, B, C. Instantiated for <double, double, double>,
// <float, float, float>, <Bf16, Bf16, Bf16>, <Bf16, Bf16, float> and <float, Bf16, float> (bf16
// weights under fp32 activations: decoding).
#pragma once

#include <cstdint>
#include <string>

#include "core/kernel_table.h"

namespace adder {

struct GemmShape {
  int64_t m = 0;             // rows of C
  int64_t n = 0;             // columns of C
  int64_t k = 0;             // inner extent
  bool transpose_a = false;  // A is stored (k, m) instead of (m, k)
  bool transpose_b = false;  // B is stored (n, k) instead of (k, n): a linear layer's weight
  bool accumulate = false;   // add to C instead of overwriting it
  bool bias = false;         // add bias[n] to every row
  Layout layout = {};        // set by the door

  void check() const;
  /// dtype: of A; b_type: of B.
  Cost cost(Dtype dtype, Dtype b_type, Dtype c_type) const;
  std::string describe() const;
};

template <class TA, class TB, class TC>
struct GemmArgs {
  const TA* a = nullptr;
  int64_t lda = 0;  // elements between stored rows of A
  const TB* b = nullptr;
  int64_t ldb = 0;
  TC* c = nullptr;  // (m, n)
  int64_t ldc = 0;
  const accumulate_t<TA>* bias = nullptr;  // (n)
};

template <class TA, class TB, class TC>
using GemmLine = Line<GemmShape, OneWay<GemmShape, GemmArgs<TA, TB, TC>>>;
template <class TA, class TB, class TC>
std::span<const GemmLine<TA, TB, TC>> gemm_lines();

/// The door. k == 0 gives bias (or C, or 0). The bits do not depend on the number of threads, and
/// in one exact class a row of C does not depend on how many rows there are.
template <class TA, class TB, class TC>
void gemm(Context& context, const GemmShape& shape, const GemmArgs<TA, TB, TC>& args,
          const Choice& choice = {});

}  // namespace adder
