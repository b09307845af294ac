#include "kernels/ref/gemm_ref.h"

#include <cmath>

namespace adder::ref {

template <class TA, class TB, class TC>
void gemm(const GemmShape& shape, const GemmArgs<TA, TB, TC>& args, bool absolute) {
  using Acc = accumulate_t<TA>;
  const auto value = [&](auto x) {
    const auto wide = static_cast<Acc>(x);
    return absolute ? std::abs(wide) : wide;
  };
  for (int64_t i = 0; i < shape.m; ++i) {
    for (int64_t j = 0; j < shape.n; ++j) {
      Acc sum = 0;
      for (int64_t k = 0; k < shape.k; ++k) {
        const int64_t a = shape.transpose_a ? k * args.lda + i : i * args.lda + k;
        const int64_t b = shape.transpose_b ? j * args.ldb + k : k * args.ldb + j;
        sum += value(args.a[a]) * value(args.b[b]);
      }
      TC& c = args.c[i * args.ldc + j];
      if (shape.bias) sum += value(args.bias[j]);
      if (shape.accumulate) sum += value(c);
      c = static_cast<TC>(sum);
    }
  }
}

#define ADDER_GEMM(TA, TB, TC) \
  template void gemm<TA, TB, TC>(const GemmShape&, const GemmArgs<TA, TB, TC>&, bool);
ADDER_GEMM(double, double, double)
ADDER_GEMM(float, float, float)
ADDER_GEMM(Bf16, Bf16, Bf16)
ADDER_GEMM(Bf16, Bf16, float)
ADDER_GEMM(float, Bf16, float)
#undef ADDER_GEMM

}  // namespace adder::ref
