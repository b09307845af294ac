// The loops of column sums, decays and the gate, a word at a time.
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/pointwise/pointwise_simd.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/simd-inl.h"
#include "core/threads.h"
#include "kernels/pointwise/pointwise_lines.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

// Calls body(d, i, n) for each word of [0, count); n lanes are in use.
template <class C, class Body>
HWY_INLINE void each_word(int64_t count, const Body& body) {
  const Words<C> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < count; i += lanes) {
    body(d, i, static_cast<size_t>(std::min(lanes, count - i)));
  }
}

template <class Acc>
HWY_NOINLINE void add_words(int64_t count, const Acc* x, Acc* sum) {
  each_word<Acc>(count, [&](auto d, int64_t i, size_t n) HWY_ATTR {
    store_n(hn::Add(load_n(d, sum + i, n), load_n(d, x + i, n)), d, sum + i, n);
  });
}

// -e^a_log; -infinity (the state is forgotten) where that does not fit.
template <class Acc>
HWY_NOINLINE void decay_words(int64_t count, const Acc* a_log, Acc* a) {
  constexpr Acc kLargest = sizeof(Acc) == 4 ? static_cast<Acc>(88.72) : static_cast<Acc>(709.78);
  each_word<Acc>(count, [&](auto d, int64_t i, size_t n) HWY_ATTR {
    const auto x = load_n(d, a_log + i, n);
    const auto infinity = hn::Set(d, std::numeric_limits<Acc>::infinity());
    const auto e = hn::IfThenElse(hn::Gt(x, hn::Set(d, kLargest)), infinity, exp_word(d, x));
    store_n(hn::Neg(e), d, a + i, n);
  });
}

template <class Acc>
HWY_NOINLINE void multiply_words(int64_t count, const Acc* a, const Acc* da, bool accumulate,
                                 Acc* out) {
  each_word<Acc>(count, [&](auto d, int64_t i, size_t n) HWY_ATTR {
    const auto product = hn::Mul(load_n(d, a + i, n), load_n(d, da + i, n));
    store_n(accumulate ? hn::Add(load_n(d, out + i, n), product) : product, d, out + i, n);
  });
}

template <class T>
HWY_NOINLINE void column_sum_words(int64_t rows, int64_t width, const T* g, int64_t stride,
                                   accumulate_t<T>* sums) {
  each_word<accumulate_t<T>>(width, [&](auto d, int64_t i, size_t n) HWY_ATTR {
    auto sum = hn::Zero(d);
    for (int64_t row = 0; row < rows; ++row) sum = hn::Add(sum, load_n(d, g + row * stride + i, n));
    store_n(sum, d, sums + i, n);
  });
}

template <class T>
HWY_NOINLINE void gate_row(int64_t width, const T* y, const T* gate, T* out) {
  each_word<accumulate_t<T>>(width, [&](auto d, int64_t i, size_t n) HWY_ATTR {
    store_n(hn::Mul(load_n(d, y + i, n), silu_word(d, load_n(d, gate + i, n))), d, out + i, n);
  });
}

template <class T>
HWY_NOINLINE void gate_gradient_row(const GateBackward<T>& a, int64_t row, int64_t width) {
  const T* y = a.y + row * a.y_stride;
  const T* gate = a.gate + row * a.gate_stride;
  const T* gout = a.gout + row * a.gout_stride;
  T* dy = a.dy + row * a.dy_stride;
  T* dgate = a.dgate + row * a.dgate_stride;
  each_word<accumulate_t<T>>(width, [&](auto d, int64_t i, size_t n) HWY_ATTR {
    const auto g = load_n(d, gout + i, n);
    const auto x = load_n(d, gate + i, n);
    const auto value = load_n(d, y + i, n);
    const auto parts = sigmoid_parts(d, x);  // shared: silu_word and silu_slope_word would take two
    const auto one = hn::Set(d, static_cast<accumulate_t<T>>(1));
    const auto sigmoid = [&](auto factor) HWY_ATTR {
      return hn::Mul(hn::Mul(hn::Mul(factor, parts.root), parts.rest), parts.root);
    };
    store_n(hn::Mul(g, sigmoid(x)), d, dy + i, n);
    store_n(hn::Mul(hn::Mul(g, value), sigmoid(hn::MulAdd(x, parts.other, one))), d, dgate + i, n);
  });
}

template <class Body>
void each_row(const PointwiseShape& shape, Exec exec, const Body& body) {
  const int64_t rows = gate_rows(shape.width);
  parallel_for(exec.threads, (shape.rows + rows - 1) / rows, [&](int64_t item) {
    const int64_t last = std::min(shape.rows, (item + 1) * rows);
    for (int64_t row = item * rows; row < last; ++row) body(row);
  });
}

template <class T>
void gate_all(const PointwiseShape& shape, const GateForward<T>& a, Exec exec) {
  each_row(shape, exec, [&](int64_t row) {
    gate_row(shape.width, a.y + row * a.y_stride, a.gate + row * a.gate_stride,
             a.out + row * a.out_stride);
  });
}

template <class T>
void gate_gradient_all(const PointwiseShape& shape, const GateBackward<T>& a, Exec exec) {
  each_row(shape, exec, [&](int64_t row) { gate_gradient_row(a, row, shape.width); });
}

#define ADDER_POINTWISE_TARGET(T, Acc, suffix)                                      \
  void column_sum_##suffix(int64_t r, int64_t w, const T* g, int64_t s, Acc* out) { \
    column_sum_words(r, w, g, s, out);                                              \
  }
ADDER_POINTWISE_TARGET(double, double, f64)
ADDER_POINTWISE_TARGET(float, float, f32)
ADDER_POINTWISE_TARGET(Bf16, float, bf16)
#undef ADDER_POINTWISE_TARGET
ADDER_SIMD_FUNCTIONS(gate, PointwiseShape, GateForward, gate_all)
ADDER_SIMD_FUNCTIONS(gate_gradient, PointwiseShape, GateBackward, gate_gradient_all)
#define ADDER_POINTWISE_ACC_TARGET(Acc, suffix)                                          \
  void add_##suffix(int64_t n, const Acc* x, Acc* sum) { add_words(n, x, sum); }         \
  void decay_##suffix(int64_t n, const Acc* from, Acc* to) { decay_words(n, from, to); } \
  void multiply_##suffix(int64_t n, const Acc* a, const Acc* da, bool added, Acc* out) { \
    multiply_words(n, a, da, added, out);                                                \
  }
ADDER_POINTWISE_ACC_TARGET(double, f64)
ADDER_POINTWISE_ACC_TARGET(float, f32)
#undef ADDER_POINTWISE_ACC_TARGET

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

#define ADDER_POINTWISE_DOORS(T, Acc, suffix)                                                    \
  HWY_EXPORT(column_sum_##suffix);                                                               \
  template <>                                                                                    \
  void column_sum_block<T>(int64_t rows, int64_t width, const T* g, int64_t stride, Acc* sums) { \
    HWY_DYNAMIC_DISPATCH(column_sum_##suffix)(rows, width, g, stride, sums);                     \
  }
ADDER_POINTWISE_DOORS(double, double, f64)
ADDER_POINTWISE_DOORS(float, float, f32)
ADDER_POINTWISE_DOORS(Bf16, float, bf16)
#undef ADDER_POINTWISE_DOORS
ADDER_SIMD_DISPATCH(gate, PointwiseShape, GateForward, gate_forward_rowwise)
ADDER_SIMD_DISPATCH(gate_gradient, PointwiseShape, GateBackward, gate_backward_rowwise)

#define ADDER_POINTWISE_ACC_DOORS(Acc, suffix)                                          \
  HWY_EXPORT(add_##suffix);                                                             \
  HWY_EXPORT(decay_##suffix);                                                           \
  HWY_EXPORT(multiply_##suffix);                                                        \
  template <>                                                                           \
  void add_block<Acc>(int64_t count, const Acc* x, Acc* sum) {                          \
    HWY_DYNAMIC_DISPATCH(add_##suffix)(count, x, sum);                                  \
  }                                                                                     \
  template <>                                                                           \
  void decay_block<Acc>(int64_t count, const Acc* a_log, Acc* a) {                      \
    HWY_DYNAMIC_DISPATCH(decay_##suffix)(count, a_log, a);                              \
  }                                                                                     \
  template <>                                                                           \
  void multiply_block<Acc>(int64_t count, const Acc* a, const Acc* da, bool accumulate, \
                           Acc* da_log) {                                               \
    HWY_DYNAMIC_DISPATCH(multiply_##suffix)(count, a, da, accumulate, da_log);          \
  }
ADDER_POINTWISE_ACC_DOORS(double, f64)
ADDER_POINTWISE_ACC_DOORS(float, f32)
#undef ADDER_POINTWISE_ACC_DOORS

}  // namespace adder
#endif
