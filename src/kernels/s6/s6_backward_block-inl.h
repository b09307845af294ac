// One word of channels of one chunk in the backward scan (math.md 3.2), a block of four states at a
// time:
//   forward:  from the saved state, a_t and the state that enters each token, kept on the stack
//   reverse:  lam = mu + C gy;  mu = a lam;  r = mu h_{t-1}  (= lam a h_{t-1}, never h_t - du B)
//             s1 += lam B;  s2 += A2 r;  dA += delta r;  dB += lam du;  dC += gy h_t
// and when all blocks are done, for each token and channel,
//   du = D gy + delta s1;  ddelta = u s1 + ln(2) s2;  ddt = ddelta * slope (math.md 0.4)

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_KERNELS_S6_BACKWARD_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_KERNELS_S6_BACKWARD_BLOCK_INL_H_
#undef ADDER_KERNELS_S6_BACKWARD_BLOCK_INL_H_
#else
#define ADDER_KERNELS_S6_BACKWARD_BLOCK_INL_H_
#endif

#include <hwy/highway.h>

#include "kernels/s6/s6_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

inline constexpr int64_t kBlock = s6::kStateBlock;

/// The values that one word of channels carries for one token and that every block of states reads.
template <class C>
struct TokenRow {
  HWY_ALIGN C delta[kLanes<C>];
  C du[kLanes<C>];  // delta u
  C gy[kLanes<C>];  // gradient of y before the gate
  C y[kLanes<C>];   // before the gate, without D u
  C s1[kLanes<C>];  // sum over states of lam B
  C s2[kLanes<C>];  // sum over states of A2 lam a h_{t-1}
};
/// These are prepared before the blocks and used after them.
template <class C>
struct GateRow {
  HWY_ALIGN C slope[kLanes<C>];  // d delta / d dt
  C gate[kLanes<C>];             // gradient of the gated y, times silu'(z)
};
/// The rows of one word and one chunk.
template <class C>
struct WordRows {
  TokenRow<C> tokens[kS6Chunk];
  GateRow<C> gates[kS6Chunk];
};
template <class C>
inline constexpr int64_t kTileWords = s6::kMaxTileChannels / kLanes<C>;

/// The values that one block of states carries for one token.
template <class C>
struct StateRow {
  static constexpr int64_t kSize = kBlock * kLanes<C>;
  HWY_ALIGN C a[kSize];  // decays
  C entering[kSize];     // h_{t-1}
  C dB[kSize];           // sums over the words of the tile so far
  C dC[kSize];
};
template <class C>
struct BlockBuffers {
  StateRow<C> rows[kS6Chunk];
  HWY_ALIGN C B_rows[kS6Chunk * kBlock];
  HWY_ALIGN C C_rows[kS6Chunk * kBlock];
};

/// Finds delta, its slope and delta * u.
template <bool kPlain, class T, class C>
HWY_NOINLINE void prepare_steps(bool softplus, const S6Inputs<T>& in, const Run& run,
                                const Lane& lane, WordRows<C>* word) {
  const Words<C> d;
  TokenRow<C>* rows = word->tokens;
  GateRow<C>* gates = word->gates;
  const Limits<C> limits{in.dt_min, in.dt_max};
  const Rows<kPlain, const T> u(in.u, in.order, run, lane);
  const Rows<kPlain, const T> dt(in.dt, in.order, run, lane);
  const auto bias = load_channel_values(d, in.dt_bias, lane);
  const auto one = hn::Set(d, static_cast<C>(1));
  for (int64_t t = 0; t < run.count; ++t) {
    const auto pre = hn::Add(dt.get(d, t), bias);
    hn::Store(pre, d, rows[t].delta);
    if (softplus) hn::Store(exp_minus_abs(d, pre), d, gates[t].slope);
  }
  for (int64_t t = 0; t < run.count; ++t) {
    const auto pre = hn::Load(d, rows[t].delta);
    auto sp = pre;
    auto slope = one;
    if (softplus) {
      const auto e = hn::Load(d, gates[t].slope);
      sp = softplus_of(d, pre, e);
      slope =
          hn::IfThenElse(hn::Gt(pre, hn::Set(d, static_cast<C>(20))), one, sigmoid_of(d, pre, e));
    }
    const auto delta = limits.clamp(d, sp);
    hn::Store(hn::IfThenElseZero(hn::Eq(delta, sp), slope), d, gates[t].slope);
    hn::Store(delta, d, rows[t].delta);
    hn::Store(hn::Mul(delta, u.get(d, t)), d, rows[t].du);
  }
}

/// Finds gy before the gate, and the factor that turns y into dz.
template <bool kPlain, class T, class C>
HWY_NOINLINE void prepare_gates(const S6Backward<T>& args, const Run& run, const Lane& lane,
                                WordRows<C>* word) {
  const Words<C> d;
  TokenRow<C>* rows = word->tokens;
  GateRow<C>* gates = word->gates;
  const Rows<kPlain, const T> z(args.in.z, args.in.order, run, lane);
  const Rows<kPlain, const T> gout(args.gy, args.in.order, run, lane);
  const auto one = hn::Set(d, static_cast<C>(1));
  if (!z) {
    for (int64_t t = 0; t < run.count; ++t) hn::Store(gout.get(d, t), d, rows[t].gy);
    return;
  }
  for (int64_t t = 0; t < run.count; ++t) {
    hn::Store(exp_minus_abs(d, z.get(d, t)), d, gates[t].gate);
  }
  for (int64_t t = 0; t < run.count; ++t) {
    const auto gate = z.get(d, t);
    const auto g = gout.get(d, t);
    const auto s = sigmoid_of(d, gate, hn::Load(d, gates[t].gate));
    const auto silu_slope = hn::Mul(s, hn::MulAdd(gate, hn::Sub(one, s), one));
    hn::Store(hn::Mul(g, silu_slope), d, gates[t].gate);
    hn::Store(hn::Mul(g, hn::Mul(gate, s)), d, rows[t].gy);
  }
}

template <class T, class C>
void prepare_rows(bool softplus, const S6Backward<T>& args, const Run& run, const Lane& lane,
                  WordRows<C>* rows) {
  const S6Inputs<T>& in = args.in;
  if (plain_rows(in, lane, in.u, in.dt, in.z, args.gy)) {
    prepare_steps<true>(softplus, in, run, lane, rows);
    prepare_gates<true>(args, run, lane, rows);
  } else {
    prepare_steps<false>(softplus, in, run, lane, rows);
    prepare_gates<false>(args, run, lane, rows);
  }
}

/// A block fetches lines of two views, one while it goes forward and one on the way back: the line
/// fill buffers keep up with one line a token.
inline constexpr int kBlockViews = 2;

/// One word and one block of states.
template <class C>
struct BlockWord {
  const C* a2;  // (kBlock, kLanes)
  C* h;         // (kBlock, kLanes): entering the chunk; overwritten
  C* mu;        // (kBlock, kLanes): in from the right, out to the left
  C* dA;        // (kBlock, kLanes), added to
  TokenRow<C>* tokens;
  const C* B_rows;  // (count, kBlock)
  const C* C_rows;  // (count, kBlock)
  StateRow<C>* rows;
  int64_t count;
};

// The argument structs come by value: stores through their pointers could change others, which
// would then be read again for every token.

/// Keeps decays and entering states of the chunk, and adds to y (kFirst: y begins at 0).
template <bool kFirst, class C>
HWY_NOINLINE void block_forward(const BlockWord<C> word, const Ahead ahead) {
  const Words<C> d;
  V<Words<C>> h[kBlock], a2[kBlock];
#pragma GCC unroll 4
  for (int64_t n = 0; n < kBlock; ++n) {
    h[n] = hn::Load(d, word.h + n * kLanes<C>);
    a2[n] = hn::Load(d, word.a2 + n * kLanes<C>);
  }
  for (int64_t t = 0; t < word.count; ++t) {
    TokenRow<C>& token = word.tokens[t];
    StateRow<C>& row = word.rows[t];
    const auto delta = hn::Load(d, token.delta);
    const auto du = hn::Load(d, token.du);
    auto y = kFirst ? hn::Zero(d) : hn::Load(d, token.y);
    const C* B_row = word.B_rows + t * kBlock;
    const C* C_row = word.C_rows + t * kBlock;
    ahead.fetch(t);
#pragma GCC unroll 4
    for (int64_t n = 0; n < kBlock; ++n) {
      const int64_t at = n * kLanes<C>;
      const auto a = decay_word(d, delta, a2[n]);
      hn::Store(a, d, row.a + at);
      hn::Store(h[n], d, row.entering + at);
      h[n] = hn::MulAdd(a, h[n], hn::Mul(du, hn::Set(d, B_row[n])));
      y = hn::MulAdd(hn::Set(d, C_row[n]), h[n], y);
    }
    hn::Store(y, d, token.y);
  }
#pragma GCC unroll 4
  for (int64_t n = 0; n < kBlock; ++n) hn::Store(h[n], d, word.h + n * kLanes<C>);
}

/// Goes back over the chunk. kFirst: s1 and s2 begin at 0. kFirstWord: dB and dC do.
template <bool kFirst, bool kFirstWord, class C>
HWY_NOINLINE void block_reverse(const BlockWord<C> word, const Ahead ahead) {
  const Words<C> d;
  V<Words<C>> h[kBlock], mu[kBlock], dA[kBlock], a2[kBlock];
#pragma GCC unroll 4
  for (int64_t n = 0; n < kBlock; ++n) {
    h[n] = hn::Load(d, word.h + n * kLanes<C>);
    mu[n] = hn::Load(d, word.mu + n * kLanes<C>);
    a2[n] = hn::Load(d, word.a2 + n * kLanes<C>);
    dA[n] = hn::Zero(d);
  }
  for (int64_t t = word.count - 1; t >= 0; --t) {
    TokenRow<C>& token = word.tokens[t];
    StateRow<C>& row = word.rows[t];
    const auto delta = hn::Load(d, token.delta);
    const auto du = hn::Load(d, token.du);
    const auto gy = hn::Load(d, token.gy);
    const C* B_row = word.B_rows + t * kBlock;
    const C* C_row = word.C_rows + t * kBlock;
    ahead.fetch(t);
    auto s1 = kFirst ? hn::Zero(d) : hn::Load(d, token.s1);
    auto s2 = kFirst ? hn::Zero(d) : hn::Load(d, token.s2);
#pragma GCC unroll 4
    for (int64_t n = 0; n < kBlock; ++n) {
      const int64_t at = n * kLanes<C>;
      const auto lam = hn::MulAdd(hn::Set(d, C_row[n]), gy, mu[n]);
      s1 = hn::MulAdd(hn::Set(d, B_row[n]), lam, s1);
      const auto add = [&](C* sum, V<Words<C>> x, V<Words<C>> y) {
        hn::Store(kFirstWord ? hn::Mul(x, y) : hn::MulAdd(x, y, hn::Load(d, sum)), d, sum);
      };
      add(row.dB + at, lam, du);
      add(row.dC + at, gy, h[n]);
      mu[n] = hn::Mul(hn::Load(d, row.a + at), lam);
      h[n] = hn::Load(d, row.entering + at);
      const auto through = hn::Mul(mu[n], h[n]);
      s2 = hn::MulAdd(a2[n], through, s2);
      dA[n] = hn::MulAdd(delta, through, dA[n]);
    }
    hn::Store(s1, d, token.s1);
    hn::Store(s2, d, token.s2);
  }
#pragma GCC unroll 4
  for (int64_t n = 0; n < kBlock; ++n) {
    hn::Store(mu[n], d, word.mu + n * kLanes<C>);
    hn::Store(hn::Add(hn::Load(d, word.dA + n * kLanes<C>), dA[n]), d, word.dA + n * kLanes<C>);
  }
}

/// Writes the gradients of the run's tokens and adds to the sums over tokens.
template <bool kPlain, class T, class C>
HWY_NOINLINE void finish_backward(const S6Backward<T>& args, const Run& run, const Lane& lane,
                                  const WordRows<C>* word, C* dD_sum, C* bias_sum) {
  const Words<C> d;
  const TokenRow<C>* from = word->tokens;
  const GateRow<C>* gates = word->gates;
  const int32_t* order = args.in.order;
  const Rows<kPlain, const T> u_rows(args.in.u, order, run, lane);
  const Rows<kPlain, T> du(args.du, order, run, lane);
  const Rows<kPlain, T> ddt(args.ddt, order, run, lane);
  const Rows<kPlain, T> dz(args.in.z ? args.dz : TokenView<T>{}, order, run, lane);
  const auto skip = load_channel_values(d, args.in.D, lane);
  auto dD = hn::Load(d, dD_sum);
  auto ddt_bias = hn::Load(d, bias_sum);
  for (int64_t t = 0; t < run.count; ++t, ++from, ++gates) {
    const auto u = u_rows.get(d, t);
    const auto gy = hn::Load(d, from->gy);
    const auto s1 = hn::Load(d, from->s1);
    const auto s2 = hn::Mul(hn::Load(d, from->s2), hn::Set(d, static_cast<C>(kLn2)));
    const auto g = hn::Mul(hn::MulAdd(u, s1, s2), hn::Load(d, gates->slope));
    dD = hn::MulAdd(gy, u, dD);
    ddt_bias = hn::Add(ddt_bias, g);
    if (du) du.put(hn::MulAdd(hn::Load(d, from->delta), s1, hn::Mul(skip, gy)), d, t);
    if (ddt) ddt.put(g, d, t);
    if (dz) {
      const auto y = hn::MulAdd(skip, u, hn::Load(d, from->y));
      dz.put(hn::Mul(hn::Load(d, gates->gate), y), d, t);
    }
  }
  hn::Store(dD, d, dD_sum);
  hn::Store(ddt_bias, d, bias_sum);
}
template <class T, class C>
void finish_rows(const S6Backward<T>& args, const Run& run, const Lane& lane,
                 const WordRows<C>* from, C* dD_sum, C* bias_sum) {
  plain_rows(args.in, lane, args.in.u, args.du, args.ddt, args.dz)
      ? finish_backward<true>(args, run, lane, from, dD_sum, bias_sum)
      : finish_backward<false>(args, run, lane, from, dD_sum, bias_sum);
}

template <bool kFirst, class C>
void run_block(const BlockWord<C>& word, const Ahead* ahead, bool first_word) {
  block_forward<kFirst>(word, ahead[0]);
  first_word ? block_reverse<kFirst, true>(word, ahead[1])
             : block_reverse<kFirst, false>(word, ahead[1]);
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
