// Kernel family `pointwise`: what is left between the other kernels. Thread-safe; memory-bound.
#pragma once

#include <cstdint>
#include <string>

#include "core/kernel_table.h"

namespace adder {

struct PointwiseShape {
  int64_t rows = 0;
  int64_t width = 0;

  void check() const;
  Cost cost(Dtype from, Dtype to) const;
  std::string describe() const;
};

/// to[i] = from[i] rounded to To. Any pair of double, float, Bf16, F16 (table: one line a pair).
template <class From, class To>
void convert(Context& context, int64_t count, const From* from, To* to);

/// sum[i] += x[i].
template <class T>
void add_into(Context& context, int64_t count, const T* x, T* sum);

/// out[c] (+)= sum over rows of g[row, c]: bias gradients. Rows are summed in a fixed tree.
template <class T>
void column_sum(Context& context, const PointwiseShape& shape, const T* g, int64_t g_stride,
                accumulate_t<T>* out, bool accumulate);

/// A = -exp(A_log), and dA_log = dA A (math.md 3.2).
template <class Acc>
void decay_from_log(Context& context, int64_t count, const Acc* a_log, Acc* a);
template <class Acc>
void decay_log_gradient(Context& context, int64_t count, const Acc* a, const Acc* da, Acc* da_log,
                        bool accumulate);

/// out = y silu(gate); views with row strides (gated MLP, math.md 7.6).
template <class T>
struct GateForward {
  const T* y = nullptr;
  int64_t y_stride = 0;
  const T* gate = nullptr;
  int64_t gate_stride = 0;
  T* out = nullptr;
  int64_t out_stride = 0;
};
template <class T>
struct GateBackward {
  const T* y = nullptr;
  int64_t y_stride = 0;
  const T* gate = nullptr;
  int64_t gate_stride = 0;
  const T* gout = nullptr;
  int64_t gout_stride = 0;
  T* dy = nullptr;
  int64_t dy_stride = 0;
  T* dgate = nullptr;
  int64_t dgate_stride = 0;
};
template <class T>
struct GateFunctions {
  void (*forward)(const PointwiseShape&, const GateForward<T>&, Exec);
  void (*backward)(const PointwiseShape&, const GateBackward<T>&, Exec);
};
template <class T>
using GateLine = Line<PointwiseShape, GateFunctions<T>>;
template <class T>
std::span<const GateLine<T>> gate_lines();
template <class T>
void gate_forward(Context& context, const PointwiseShape& shape, const GateForward<T>& args,
                  const Choice& choice = {});
template <class T>
void gate_backward(Context& context, const PointwiseShape& shape, const GateBackward<T>& args,
                   const Choice& choice = {});

}  // namespace adder
