// Kernel family `pointwise`: element-wise work and column sums. Thread-safe; memory-bound.
//
// pointwise.h, .cpp      doors and tables; conversion and decay, a block of elements at a time
// pointwise_lines.h      the loops behind them, and how work is cut
// pointwise_simd.cpp     loops of sums, decays and the gate
// convert_simd.cpp       loops of the conversions
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

/// to[i] = from[i] rounded to To, once, to nearest even. Any pair of double, float, Bf16, F16.
template <class From, class To>
struct ConvertArgs {
  const From* from = nullptr;  // (rows, width) dense
  To* to = nullptr;            // (rows, width) dense
};
template <class From, class To>
using ConvertLine = Line<PointwiseShape, OneWay<PointwiseShape, ConvertArgs<From, To>>>;
template <class From, class To>
std::span<const ConvertLine<From, To>> convert_lines();
template <class From, class To>
void convert(Context& context, const PointwiseShape& shape, const ConvertArgs<From, To>& args,
             const Choice& choice = {});

/// out[c] (+)= sum over rows of g[row, c]: bias gradients. Rows are summed in a fixed tree.
template <class T>
struct ColumnSumArgs {
  const T* g = nullptr;  // (rows, width), row stride g_stride
  int64_t g_stride = 0;
  accumulate_t<T>* out = nullptr;  // (width)
  bool accumulate = false;
};
template <class T>
using ColumnSumLine = Line<PointwiseShape, OneWay<PointwiseShape, ColumnSumArgs<T>>>;
template <class T>
std::span<const ColumnSumLine<T>> column_sum_lines();
template <class T>
void column_sum(Context& context, const PointwiseShape& shape, const ColumnSumArgs<T>& args,
                const Choice& choice = {});

/// Forward: A = -exp(A_log). Backward: dA_log (+)= dA A (math.md 3.2).
template <class Acc>
struct DecayForward {
  const Acc* a_log = nullptr;  // (rows, width) dense
  Acc* a = nullptr;
};
template <class Acc>
struct DecayBackward {
  const Acc* a = nullptr;
  const Acc* da = nullptr;
  Acc* da_log = nullptr;
  bool accumulate = false;
};
template <class Acc>
using DecayLine =
    Line<PointwiseShape, TwoWay<PointwiseShape, DecayForward<Acc>, DecayBackward<Acc>>>;
template <class Acc>
std::span<const DecayLine<Acc>> decay_lines();
template <class Acc>
void decay_forward(Context& context, const PointwiseShape& shape, const DecayForward<Acc>& args,
                   const Choice& choice = {});
template <class Acc>
void decay_backward(Context& context, const PointwiseShape& shape, const DecayBackward<Acc>& args,
                    const Choice& choice = {});

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
using GateLine = Line<PointwiseShape, TwoWay<PointwiseShape, GateForward<T>, GateBackward<T>>>;
template <class T>
std::span<const GateLine<T>> gate_lines();
template <class T>
void gate_forward(Context& context, const PointwiseShape& shape, const GateForward<T>& args,
                  const Choice& choice = {});
template <class T>
void gate_backward(Context& context, const PointwiseShape& shape, const GateBackward<T>& args,
                   const Choice& choice = {});

}  // namespace adder
