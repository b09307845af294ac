#include "kernels/ref/pointwise_ref.h"

#include <bit>
#include <cmath>
#include <type_traits>

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

// A double in To, rounded once: through a float that keeps what it cuts off as a set last bit.
template <class To>
To rounded(double value) {
  if constexpr (std::is_same_v<To, double> || std::is_same_v<To, float>) {
    return static_cast<To>(value);
  } else {
    auto near = static_cast<float>(value);
    if (std::isfinite(near) && near != value) {
      if (std::abs(static_cast<double>(near)) > std::abs(value)) near = std::nextafter(near, 0.0f);
      near = std::bit_cast<float>(std::bit_cast<uint32_t>(near) | 1u);
    }
    return To(near);
  }
}

}  // namespace

template <class From, class To>
void convert(const PointwiseShape& shape, const ConvertArgs<From, To>& args, bool absolute) {
  for (int64_t i = 0; i < shape.rows * shape.width; ++i) {
    const auto value = static_cast<double>(args.from[i]);
    args.to[i] = rounded<To>(absolute ? std::abs(value) : value);
  }
}

template <class T>
void column_sum(const PointwiseShape& shape, const ColumnSumArgs<T>& args, bool absolute) {
  using Acc = accumulate_t<T>;
  const auto sized = [&](Acc value) { return absolute ? std::abs(value) : value; };
  for (int64_t c = 0; c < shape.width; ++c) {
    Acc sum = args.accumulate ? sized(args.out[c]) : Acc(0);
    for (int64_t row = 0; row < shape.rows; ++row) {
      sum += sized(static_cast<Acc>(args.g[row * args.g_stride + c]));
    }
    args.out[c] = sum;
  }
}

template <class Acc>
void decay_forward(const PointwiseShape& shape, const DecayForward<Acc>& args, bool absolute) {
  for (int64_t i = 0; i < shape.rows * shape.width; ++i) {
    const Acc value = std::exp(args.a_log[i]);
    args.a[i] = absolute ? value * (1 + std::abs(args.a_log[i])) : -value;
  }
}

template <class Acc>
void decay_backward(const PointwiseShape& shape, const DecayBackward<Acc>& args, bool absolute) {
  const auto sized = [&](Acc value) { return absolute ? std::abs(value) : value; };
  for (int64_t i = 0; i < shape.rows * shape.width; ++i) {
    const Acc before = args.accumulate ? sized(args.da_log[i]) : Acc(0);
    args.da_log[i] = before + sized(args.da[i] * args.a[i]);
  }
}

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

#define ADDER_REF_POINTWISE(T)                                                         \
  template void gate_forward<T>(const PointwiseShape&, const GateForward<T>&, bool);   \
  template void gate_backward<T>(const PointwiseShape&, const GateBackward<T>&, bool); \
  template void column_sum<T>(const PointwiseShape&, const ColumnSumArgs<T>&, bool);
ADDER_REF_POINTWISE(double)
ADDER_REF_POINTWISE(float)
ADDER_REF_POINTWISE(Bf16)
#undef ADDER_REF_POINTWISE

#define ADDER_REF_CONVERT(From, To) \
  template void convert(const PointwiseShape&, const ConvertArgs<From, To>&, bool);
#define ADDER_REF_CONVERT_FROM(From) \
  ADDER_REF_CONVERT(From, double)    \
  ADDER_REF_CONVERT(From, float)     \
  ADDER_REF_CONVERT(From, Bf16)      \
  ADDER_REF_CONVERT(From, F16)
ADDER_REF_CONVERT_FROM(double)
ADDER_REF_CONVERT_FROM(float)
ADDER_REF_CONVERT_FROM(Bf16)
ADDER_REF_CONVERT_FROM(F16)
#undef ADDER_REF_CONVERT_FROM
#undef ADDER_REF_CONVERT

template void decay_forward(const PointwiseShape&, const DecayForward<double>&, bool);
template void decay_forward(const PointwiseShape&, const DecayForward<float>&, bool);
template void decay_backward(const PointwiseShape&, const DecayBackward<double>&, bool);
template void decay_backward(const PointwiseShape&, const DecayBackward<float>&, bool);

}  // namespace adder::ref
