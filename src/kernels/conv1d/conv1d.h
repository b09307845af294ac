// Kernel family `conv1d`: causal depthwise convolution with optional SiLU (math.md section 2).
//
// conv1d.h, .cpp        doors and table
// conv1d_lines.h        how work is cut
// conv1d_items.h        items of work and the stretches of sequences inside them
// conv1d_panel-inl.h    inputs gathered by columns, and the filter over a column
// conv1d_simd.cpp       both lines, forward and backward
//
//   a_t = bias + sum_k w_k X_{t-(width-1)+k},  y_t = silu(a_t) or a_t;  w_{width-1} meets the
//   current token; X before t = 0 is the state s0 (the width-1 inputs before, oldest first).
// Accumulation starts from bias and adds k ascending with one multiply-add each, in
// accumulate_t<T>, so that step and forward agree in bits. Thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "core/kernel_table.h"
#include "core/view.h"

namespace adder {

struct Conv1dShape {
  int64_t batch = 1;  // packed: 1
  int64_t len = 0;
  int64_t channels = 0;
  int64_t width = 4;      // >= 1
  int64_t sequences = 0;  // > 0: packed by cu_seqlens
  bool silu = true;
  Layout layout = {};  // set by the doors

  bool packed() const { return sequences > 0; }
  int64_t state_rows() const { return packed() ? sequences : batch; }
  void check() const;  // throws Error naming the field
  Cost cost(Direction direction, Dtype dtype) const;
  std::string describe() const;
};

template <class T>
struct Conv1dInputs {
  using Acc = accumulate_t<T>;
  TokenView<const T> x;                  // (batch, len, channels)
  const Acc* w = nullptr;                // (channels, width)
  const Acc* bias = nullptr;             // (channels) or absent
  const T* s0 = nullptr;                 // (slots, width - 1, channels) or absent: 0
  const int32_t* cu_seqlens = nullptr;   // (sequences + 1), packed only
  const int32_t* state_index = nullptr;  // (state_rows): slot of s0 and sT; absent: row r
  const int32_t* order = nullptr;        // (len): token visited at step t; absent: t
};

template <class T>
struct Conv1dForward {
  Conv1dInputs<T> in;
  TokenView<T> y;   // (batch, len, channels)
  T* sT = nullptr;  // (slots, width - 1, channels) or absent; may be the same memory as s0
};

template <class T>
struct Conv1dBackward {
  using Acc = accumulate_t<T>;
  Conv1dInputs<T> in;
  TokenView<const T> gy;    // (batch, len, channels)
  const T* gsT = nullptr;   // (state_rows, width - 1, channels) or absent: 0; not slot-indexed
  TokenView<T> dx;          // written
  Acc* dw = nullptr;        // (channels, width); may be absent
  Acc* dbias = nullptr;     // (channels); may be absent
  bool accumulate = false;  // dw and dbias are added to instead of written
  T* ds0 = nullptr;         // (state_rows, width - 1, channels), written; may be absent
};

template <class T>
using Conv1dLine = Line<Conv1dShape, TwoWay<Conv1dShape, Conv1dForward<T>, Conv1dBackward<T>>>;

/// T: double, float or Bf16.
template <class T>
std::span<const Conv1dLine<T>> conv1d_lines();

/// The doors: check, pick, run. len == 0 writes sT = s0. One token is forward with len = 1 and
/// s0 = sT: the same bits. Throw Error on a bad shape or when no line serves it.
template <class T>
void conv1d_forward(Context& context, const Conv1dShape& shape, const Conv1dForward<T>& args,
                    const Choice& choice = {});
template <class T>
void conv1d_backward(Context& context, const Conv1dShape& shape, const Conv1dBackward<T>& args,
                     const Choice& choice = {});

}  // namespace adder
