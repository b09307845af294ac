// Kernel family `ssd`: state space duality, the operator of Mamba-2 (arXiv 2405.21060; math.md
// section 4). Per head, with group g = head / (heads / groups) and one scalar decay a token:
//
//   delta = clamp(softplus(dt + dt_bias), dt_min, dt_max)          (each part optional)
//   h_t   = exp(delta_t A) h_{t-1} + delta_t x_t B_t^T             (head_dim x state)
//   y_t   = h_t C_t + D x_t, times silu(z_t) where z is given
//
// Storage type T (double, float, Bf16); accumulate_t<T> for states, A, D, dt_bias, the decays and
// every sum. All functions are thread-safe: they touch only what the arguments name.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "core/kernel_table.h"
#include "core/view.h"

namespace adder {

struct SsdShape {
  int64_t batch = 1;     // packed: 1
  int64_t len = 0;       // tokens of a row; packed: of all sequences together
  int64_t heads = 0;     // H
  int64_t head_dim = 0;  // P
  int64_t state = 0;     // N
  int64_t groups = 1;    // of B and C; heads % groups == 0
  // Tokens between two saved states, and the block length of the chunked form. Results differ only
  // by rounding. Chunks begin anew with each packed sequence.
  int64_t chunk = 64;
  int64_t sequences = 0;       // > 0: packed, cu_seqlens has sequences + 1 entries and batch is 1
  bool softplus = true;        // off: dt (+ dt_bias) is used as it is
  bool gated = false;          // z is given
  bool d_per_channel = false;  // D is (heads * head_dim), not (heads)
  Layout layout = {};          // set by the doors

  bool packed() const { return sequences > 0; }
  bool empty() const { return batch == 0 || len == 0; }
  int64_t inner() const { return heads * head_dim; }
  /// Rows of h0 and hT: one a sequence.
  int64_t state_rows() const { return packed() ? sequences : batch; }
  int64_t state_elements() const { return heads * head_dim * state; }  // of one row
  int64_t d_elements() const { return d_per_channel ? inner() : heads; }
  /// Chunk-boundary states that forward saves: an upper bound that serves packed rows too. The state
  /// that enters chunk c of packed sequence q has the index cu_seqlens[q] / chunk + q + c.
  int64_t saved_chunks() const { return (len + chunk - 1) / chunk + (packed() ? sequences : 0); }
  int64_t saved_elements() const { return batch * saved_chunks() * state_elements(); }

  /// Throws Error naming the field that is out of range.
  void check() const;
  Cost cost(Direction direction, Dtype dtype) const;
  std::string describe() const;
};

/// The chunk that trains best, forward and backward together, in f32 and bf16: where states are
/// large, what passes between chunks costs more than what stays inside.
int64_t ssd_chunk_for(int64_t head_dim, int64_t state);

/// Inputs that forward and backward share. Views are (batch, len, channels), channel stride 1.
template <class T>
struct SsdInputs {
  using Acc = accumulate_t<T>;
  TokenView<const T> x;          // (batch, len, heads * head_dim)
  TokenView<const T> dt;         // (batch, len, heads), before bias and softplus
  TokenView<const T> B;          // (batch, len, groups * state)
  TokenView<const T> C;          // (batch, len, groups * state)
  TokenView<const T> z;          // (batch, len, heads * head_dim) or absent: no gate
  const Acc* A = nullptr;        // (heads), entries <= 0
  const Acc* D = nullptr;        // (heads) or (heads * head_dim), or absent: 0
  const Acc* dt_bias = nullptr;  // (heads) or absent: 0
  // Limits of delta, after softplus (or on dt + dt_bias as it is); the default is no limit.
  Acc dt_min = -std::numeric_limits<Acc>::infinity();
  Acc dt_max = std::numeric_limits<Acc>::infinity();
  const Acc* h0 = nullptr;               // (state_rows, heads, head_dim, state) or absent: 0
  const int32_t* cu_seqlens = nullptr;   // (sequences + 1), packed only
  const int32_t* state_index = nullptr;  // (state_rows): slot of h0 and hT; absent: row r is slot r
  const int32_t* order = nullptr;        // (len): token visited at step t; absent: t
};

template <class T>
struct SsdForward {
  using Acc = accumulate_t<T>;
  SsdInputs<T> in;
  TokenView<T> y;     // (batch, len, heads * head_dim)
  Acc* hT = nullptr;  // (slots, heads, head_dim, state) or absent; may be the same memory as h0
  // (batch, saved_chunks, heads, head_dim, state): the state that enters each chunk, at the index
  // that SsdShape::saved_chunks gives; absent: inference. Every line writes the same layout.
  Acc* saved = nullptr;
};

template <class T>
struct SsdBackward {
  using Acc = accumulate_t<T>;
  SsdInputs<T> in;
  const Acc* saved = nullptr;  // as forward wrote it, by whichever line
  TokenView<const T> gy;       // (batch, len, heads * head_dim)
  const Acc* ghT = nullptr;    // (state_rows, heads, head_dim, state) or absent: 0; not by slot
  // Each may be absent. Gradients of tokens and states are written; those of parameters (dA, dD,
  // ddt_bias) are added to where `accumulate` is set.
  TokenView<T> dx;          // (batch, len, heads * head_dim)
  TokenView<T> ddt;         // (batch, len, heads), of the raw dt
  TokenView<T> dB;          // (batch, len, groups * state)
  TokenView<T> dC;          // (batch, len, groups * state)
  TokenView<T> dz;          // (batch, len, heads * head_dim)
  Acc* dA = nullptr;        // (heads)
  Acc* dD = nullptr;        // as D
  Acc* ddt_bias = nullptr;  // (heads)
  bool accumulate = false;
  Acc* dh0 = nullptr;  // (state_rows, heads, head_dim, state)
};

template <class T>
using SsdLine = Line<SsdShape, TwoWay<SsdShape, SsdForward<T>, SsdBackward<T>>>;

/// The entries of A, shape (heads), are <= 0, else Error "bad shape" at "ssd: A". For host arrays
/// where they enter the engine: doors read no contents. NaN passes: it shows in the result, where
/// the caller looks for it.
template <class Acc>
void check_decay(const SsdShape& shape, std::span<const Acc> A);

/// The lines for storage type T: double, float or Bf16. "recurrent" is the linear form,
/// "quadratic" the masked-matrix form, "chunked*" the block decomposition.
template <class T>
std::span<const SsdLine<T>> ssd_lines();

/// The door: checks shape and arguments, picks a line, takes its scratch from context.arena.
/// len == 0 writes hT = h0. Throws Error on a bad shape or when no line serves it.
template <class T>
void ssd_forward(Context& context, const SsdShape& shape, const SsdForward<T>& args,
                 const Choice& choice = {});
template <class T>
void ssd_backward(Context& context, const SsdShape& shape, const SsdBackward<T>& args,
                  const Choice& choice = {});
/// One token for each batch row: forward with len = 1 and h0 = hT = `state`.
template <class T>
void ssd_step(Context& context, const SsdShape& shape, SsdForward<T> args,
              const Choice& choice = {});

}  // namespace adder
