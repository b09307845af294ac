// Kernel family `s6`: the selective scan of Mamba-1 (arXiv 2312.00752; math.md section 3).
//
//   delta = clamp(softplus(dt + dt_bias), dt_min, dt_max)          (each part optional)
//   h_t   = exp(delta_t A) h_{t-1} + delta_t u_t B_t               (dim x state)
//   y_t   = <C_t, h_t> + D u_t, times silu(z_t) where z is given
//
// Channel d uses group d / (dim / groups). With complex A (math.md 3.5) A, B, C and every state
// hold `state` complex numbers, real and imaginary part side by side, and y = 2 Re(sum C h) + D u:
// each number stands for itself and its conjugate.
//
// Storage type T (double, float, Bf16); accumulate_t<T> for states, A, D, dt_bias and every sum.
// All functions are thread-safe: they touch only what the arguments name.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "core/kernel_table.h"
#include "core/view.h"

namespace adder {

/// Tokens between two saved states: what forward keeps for backward.
inline constexpr int64_t kS6Chunk = 32;

struct S6Shape {
  int64_t batch = 1;      // packed: 1
  int64_t len = 0;        // tokens of a row; packed: of all sequences together
  int64_t dim = 0;        // channels (d_inner)
  int64_t state = 0;      // N
  int64_t groups = 1;     // of B and C; dim % groups == 0
  int64_t sequences = 0;  // > 0: packed, cu_seqlens has sequences + 1 entries and batch is 1
  bool softplus = true;   // off: dt (+ dt_bias) is used as it is
  bool gated = false;     // z is given
  bool complex = false;   // A, B, C and the states are complex: (re, im) pairs
  // Which optional arguments are there matters to cost() only.
  Layout layout = {};  // set by the doors

  bool packed() const { return sequences > 0; }
  bool empty() const { return batch == 0 || len == 0; }
  /// Numbers of one channel's state.
  int64_t state_numbers() const { return complex ? 2 * state : state; }
  /// Rows of h0 and hT: one a sequence.
  int64_t state_rows() const { return packed() ? sequences : batch; }
  /// Chunk-boundary states that forward saves: an upper bound that serves packed rows too. The state
  /// that enters chunk c of packed sequence q has the index cu_seqlens[q] / kS6Chunk + q + c.
  int64_t saved_chunks() const {
    return (len + kS6Chunk - 1) / kS6Chunk + (packed() ? sequences : 0);
  }
  int64_t saved_elements() const { return batch * saved_chunks() * dim * state_numbers(); }

  /// Throws Error naming the field that is out of range.
  void check() const;
  Cost cost(Direction direction, Dtype dtype) const;
  std::string describe() const;
};

/// Inputs that forward and backward share. Views are (batch, len, channels); where a shape says
/// `state`, it is state_numbers() numbers.
template <class T>
struct S6Inputs {
  using Acc = accumulate_t<T>;
  TokenView<const T> u;   // (batch, len, dim)
  TokenView<const T> dt;  // (batch, len, dim), before bias and softplus
  TokenView<const T> B;   // (batch, len, groups * state), channel stride 1
  TokenView<const T> C;   // (batch, len, groups * state), channel stride 1
  // Batch and token strides of 0 make B or C constant over the tokens (with groups = dim: one row a
  // channel, the LTI ablation of the paper); dB or dC with such strides is the sum over all tokens.
  TokenView<const T> z;          // (batch, len, dim) or absent: no gate
  const Acc* A = nullptr;        // (dim, state), (real parts of) entries <= 0
  const Acc* D = nullptr;        // (dim) or absent: 0
  const Acc* dt_bias = nullptr;  // (dim) or absent: 0
  // Limits of delta, after softplus (or on dt + dt_bias as it is); the default is no limit.
  Acc dt_min = -std::numeric_limits<Acc>::infinity();
  Acc dt_max = std::numeric_limits<Acc>::infinity();
  const Acc* h0 = nullptr;               // (state_rows, dim, state) or absent: 0
  const int32_t* cu_seqlens = nullptr;   // (sequences + 1), packed only
  const int32_t* state_index = nullptr;  // (state_rows): slot of h0 and hT; absent: row r is slot r
  const int32_t* order = nullptr;        // (len): token visited at step t; absent: t
};

template <class T>
struct S6Forward {
  using Acc = accumulate_t<T>;
  S6Inputs<T> in;
  TokenView<T> y;        // (batch, len, dim)
  Acc* hT = nullptr;     // (slots, dim, state) or absent; may be the same memory as h0
  Acc* saved = nullptr;  // (batch, saved_chunks, dim, state): entering states; absent: inference
};

template <class T>
struct S6Backward {
  using Acc = accumulate_t<T>;
  S6Inputs<T> in;
  const Acc* saved = nullptr;  // as forward wrote it
  TokenView<const T> gy;       // (batch, len, dim)
  const Acc* ghT = nullptr;    // (state_rows, dim, state) or absent: 0; not indexed by slot
  // Each may be absent. Gradients of tokens and states are written; those of parameters (dA, dD,
  // ddt_bias) are added to where `accumulate` is set.
  TokenView<T> du;          // (batch, len, dim)
  TokenView<T> ddt;         // (batch, len, dim), of the raw dt
  TokenView<T> dB;          // (batch, len, groups * state)
  TokenView<T> dC;          // (batch, len, groups * state)
  TokenView<T> dz;          // (batch, len, dim)
  Acc* dA = nullptr;        // (dim, state)
  Acc* dD = nullptr;        // (dim)
  Acc* ddt_bias = nullptr;  // (dim)
  bool accumulate = false;
  Acc* dh0 = nullptr;  // (state_rows, dim, state)
};

template <class T>
using S6Line = Line<S6Shape, TwoWay<S6Shape, S6Forward<T>, S6Backward<T>>>;

/// A view whose one row stands for all tokens.
template <class T>
bool is_constant(const TokenView<T>& view) {
  return view.batch_stride == 0 && view.token_stride == 0;
}

/// The (real parts of the) entries of A, shape (dim, state_numbers), are <= 0, else Error "bad shape"
/// at "s6: A". For host arrays where they enter the engine: doors read no contents. NaN passes: it
/// shows in the result, where the caller looks for it.
template <class Acc>
void check_decay(const S6Shape& shape, std::span<const Acc> A);

/// The lines for storage type T: double, float or Bf16.
template <class T>
std::span<const S6Line<T>> s6_lines();

/// The door: checks shape and arguments, picks a line, takes its scratch from context.arena.
/// len == 0 writes hT = h0. Throws Error on a bad shape or when no line serves it.
template <class T>
void s6_forward(Context& context, const S6Shape& shape, const S6Forward<T>& args,
                const Choice& choice = {});
template <class T>
void s6_backward(Context& context, const S6Shape& shape, const S6Backward<T>& args,
                 const Choice& choice = {});
/// One token for each batch row: forward with len = 1 and h0 = hT = `state`, the same bits.
template <class T>
void s6_step(Context& context, const S6Shape& shape, S6Forward<T> args, const Choice& choice = {});

}  // namespace adder
