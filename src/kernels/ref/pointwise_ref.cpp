#include "kernels/ref/pointwise_ref.h"

#include <cmath>

namespace adder::ref {
namespace {

template <class Acc>
Acc sigmoid(Acc x) {
  return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
}

// silu and its slope; with `absolute` their sizes, times what rounding x can do.
template <class Acc>
Acc silu(Acc x, bool absolute) {
  const Acc value = x * sigmoid(x);
  return absolute ? std::abs(value) * (1 + std::abs(x)) : value;
}
template <class Acc>
Acc silu_slope(Acc x, bool absolute) {
  const Acc s = sigmoid(x);
  if (absolute) return s * (1 + std::abs(x) * (1 - s)) * (1 + std::abs(x));
  return s * (1 + x * (1 - s));
}

}  // namespace

template <class T>
void gate_forward(const PointwiseShape& shape, const GateForward<T>& a, bool absolute) {
  using Acc = accumulate_t<T>;
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t i = 0; i < shape.width; ++i) {
      const Acc y = static_cast<Acc>(a.y[row * a.y_stride + i]);
      const Acc gate = static_cast<Acc>(a.gate[row * a.gate_stride + i]);
      const Acc value = (absolute ? std::abs(y) : y) * silu(gate, absolute);
      a.out[row * a.out_stride + i] = static_cast<T>(value);
    }
  }
}

template <class T>
void gate_backward(const PointwiseShape& shape, const GateBackward<T>& a, bool absolute) {
  using Acc = accumulate_t<T>;
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t i = 0; i < shape.width; ++i) {
      Acc y = static_cast<Acc>(a.y[row * a.y_stride + i]);
      Acc g = static_cast<Acc>(a.gout[row * a.gout_stride + i]);
      const Acc gate = static_cast<Acc>(a.gate[row * a.gate_stride + i]);
      if (absolute) {
        y = std::abs(y);
        g = std::abs(g);
      }
      a.dy[row * a.dy_stride + i] = static_cast<T>(g * silu(gate, absolute));
      a.dgate[row * a.dgate_stride + i] = static_cast<T>(g * y * silu_slope(gate, absolute));
    }
  }
}

#define ADDER_REF_POINTWISE(T)                                                       \
  template void gate_forward<T>(const PointwiseShape&, const GateForward<T>&, bool); \
  template void gate_backward<T>(const PointwiseShape&, const GateBackward<T>&, bool);
ADDER_REF_POINTWISE(double)
ADDER_REF_POINTWISE(float)
ADDER_REF_POINTWISE(Bf16)
#undef ADDER_REF_POINTWISE

}  // namespace adder::ref
