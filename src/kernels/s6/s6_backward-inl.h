// The backward scan over one segment of one tile (math.md 3.2). Chunks go from last to first; for
// each chunk and each block of four states
//   forward:  from the saved state, a_t and the state that enters each token, kept on the stack
//   reverse:  lam = mu + C gy;  mu = a lam;  r = mu h_{t-1}  (= lam a h_{t-1}, never h_t - du B)
//             s1 += lam B;  s2 += A2 r;  dA += delta r;  dB += lam du;  dC += gy h_t
// and then, for each token and channel,
//   du = D gy + delta s1;  ddelta = u s1 + ln(2) s2;  ddt = ddelta * slope (math.md 0.4)
// dB and dC are sums over channels: lanes are added up over the words of a tile, then over lanes,
// then over tiles, each in index order.

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_KERNELS_S6_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_KERNELS_S6_BACKWARD_INL_H_
#undef ADDER_KERNELS_S6_BACKWARD_INL_H_
#else
#define ADDER_KERNELS_S6_BACKWARD_INL_H_
#endif

#include <hwy/highway.h>

#include "kernels/s6/s6_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

inline constexpr int64_t kBlock = s6::kStateBlock;

/// Sums of one bundle, to be added to those of the other bundles in index order.
template <class C>
struct PartialSums {
  C* dA;        // (words, states, kLanes)
  C* dD;        // (words, kLanes)
  C* ddt_bias;  // (words, kLanes)
};

template <class T>
struct BackwardJob {
  using C = accumulate_t<T>;
  const S6Shape* shape;
  const S6Backward<T>* args;
  s6::Cut cut;
  int64_t states;  // padded to whole blocks
  C* a2;           // (words, states, kLanes): A log2(e)
  C* dB;           // (tiles of a group, batch, len, groups, state): partial sums
  C* dC;

  int64_t word_size() const { return states * kLanes<C>; }
  int64_t rows_size() const {
    return shape->batch * shape->len * shape->groups * shape->state;
  }
};

/// What one word of channels carries for one token.
template <class C>
struct TokenRow {
  HWY_ALIGN C delta[kLanes<C>];
  C du[kLanes<C>];     // delta u
  C gy[kLanes<C>];     // gradient of y before the gate
  C slope[kLanes<C>];  // d delta / d dt
  C gate[kLanes<C>];   // gradient of the gated y, times silu'(z)
  C y[kLanes<C>];      // before the gate, without D u
  C s1[kLanes<C>];     // sum over states of lam B
  C s2[kLanes<C>];     // sum over states of A2 lam a h_{t-1}
};
/// Of a chunk and a tile: kS6Chunk rows for each word.
template <class C>
inline constexpr int64_t kTokenRows = kS6Chunk * s6::kTileChannels / kLanes<C>;

/// What one block of states carries for one token.
template <class C>
struct StateRow {
  static constexpr int64_t kSize = kBlock * kLanes<C>;
  HWY_ALIGN C a[kSize];   // decays
  C entering[kSize];      // h_{t-1}
  C dB[kSize];            // sums over the words of the tile so far
  C dC[kSize];
};
template <class C>
struct BlockBuffers {
  HWY_ALIGN C B_rows[kS6Chunk * kSlab];
  HWY_ALIGN C C_rows[kS6Chunk * kSlab];
  StateRow<C> rows[kS6Chunk];
};

/// delta, its slope and delta * u.
template <bool kPlain, class T, class C>
HWY_NOINLINE void prepare_steps(bool softplus, const S6Inputs<T>& in, const Run& run,
                                const Lane& lane, TokenRow<C>* rows) {
  const Words<C> d;
  const Limits<C> limits{in.dt_min, in.dt_max};
  const Rows<kPlain, const T> u(in.u, in.order, run, lane);
  const Rows<kPlain, const T> dt(in.dt, in.order, run, lane);
  const auto bias = load_channel_values(d, in.dt_bias, lane);
  const auto one = hn::Set(d, static_cast<C>(1));
  for (int64_t t = 0; t < run.count; ++t) {
    const auto pre = hn::Add(dt.get(d, t), bias);
    hn::Store(pre, d, rows[t].delta);
    if (softplus) hn::Store(exp_minus_abs(d, pre), d, rows[t].slope);
  }
  for (int64_t t = 0; t < run.count; ++t) {
    const auto pre = hn::Load(d, rows[t].delta);
    auto sp = pre;
    auto slope = one;
    if (softplus) {
      const auto e = hn::Load(d, rows[t].slope);
      sp = softplus_of(d, pre, e);
      slope = hn::IfThenElse(hn::Gt(pre, hn::Set(d, static_cast<C>(20))), one,
                             sigmoid_of(d, pre, e));
    }
    const auto delta = limits.clamp(d, sp);
    hn::Store(hn::IfThenElseZero(hn::Eq(delta, sp), slope), d, rows[t].slope);
    hn::Store(delta, d, rows[t].delta);
    hn::Store(hn::Mul(delta, u.get(d, t)), d, rows[t].du);
  }
}

/// gy before the gate, and what turns y into dz.
template <bool kPlain, class T, class C>
HWY_NOINLINE void prepare_gates(const S6Backward<T>& args, const Run& run, const Lane& lane,
                                TokenRow<C>* rows) {
  const Words<C> d;
  const Rows<kPlain, const T> z(args.in.z, args.in.order, run, lane);
  const Rows<kPlain, const T> gout(args.gy, args.in.order, run, lane);
  const auto one = hn::Set(d, static_cast<C>(1));
  if (!z) {
    for (int64_t t = 0; t < run.count; ++t) hn::Store(gout.get(d, t), d, rows[t].gy);
    return;
  }
  for (int64_t t = 0; t < run.count; ++t) {
    hn::Store(exp_minus_abs(d, z.get(d, t)), d, rows[t].gate);
  }
  for (int64_t t = 0; t < run.count; ++t) {
    const auto gate = z.get(d, t);
    const auto g = gout.get(d, t);
    const auto s = sigmoid_of(d, gate, hn::Load(d, rows[t].gate));
    const auto silu_slope = hn::Mul(s, hn::MulAdd(gate, hn::Sub(one, s), one));
    hn::Store(hn::Mul(g, silu_slope), d, rows[t].gate);
    hn::Store(hn::Mul(g, hn::Mul(gate, s)), d, rows[t].gy);
  }
}

template <class T, class C>
void prepare_rows(const BackwardJob<T>& job, const Run& run, const Lane& lane, TokenRow<C>* rows) {
  const S6Inputs<T>& in = job.args->in;
  const bool softplus = job.shape->softplus;
  if (plain_rows(in, lane, in.u, in.dt, in.z, job.args->gy)) {
    prepare_steps<true>(softplus, in, run, lane, rows);
    prepare_gates<true>(*job.args, run, lane, rows);
  } else {
    prepare_steps<false>(softplus, in, run, lane, rows);
    prepare_gates<false>(*job.args, run, lane, rows);
  }
}

/// One word and one block of states.
template <class C>
struct BlockWord {
  const C* a2;  // (kBlock, kLanes)
  C* h;         // (kBlock, kLanes): entering the chunk; overwritten
  C* mu;        // (kBlock, kLanes): in from the right, out to the left
  C* dA;        // (kBlock, kLanes), added to
  TokenRow<C>* tokens;
  const C* B_rows;  // (count, kSlab), first state of the block at [0]
  const C* C_rows;  // (count, kSlab)
  StateRow<C>* rows;
  int64_t count;
};

/// Decays and entering states of the chunk; y is added to (kFirst: begins at 0).
template <bool kFirst, class C>
HWY_NOINLINE void block_forward(const BlockWord<C>& word, const Ahead<2>* ahead) {
  const Words<C> d;
  V<Words<C>> h[kBlock];
#pragma GCC unroll 4
  for (int64_t n = 0; n < kBlock; ++n) h[n] = hn::Load(d, word.h + n * kLanes<C>);
  for (int64_t t = 0; t < word.count; ++t) {
    TokenRow<C>& token = word.tokens[t];
    StateRow<C>& row = word.rows[t];
    const auto delta = hn::Load(d, token.delta);
    const auto du = hn::Load(d, token.du);
    auto y = kFirst ? hn::Zero(d) : hn::Load(d, token.y);
    const C* B_row = word.B_rows + t * kSlab;
    const C* C_row = word.C_rows + t * kSlab;
    if (ahead != nullptr) ahead->fetch(t);
#pragma GCC unroll 4
    for (int64_t n = 0; n < kBlock; ++n) {
      const int64_t at = n * kLanes<C>;
      const auto a = decay_word(d, delta, hn::Load(d, word.a2 + at));
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

/// kFirst: s1 and s2 begin at 0. kFirstWord: dB and dC do.
template <bool kFirst, bool kFirstWord, class C>
HWY_NOINLINE void block_reverse(const BlockWord<C>& word) {
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
    const C* B_row = word.B_rows + t * kSlab;
    const C* C_row = word.C_rows + t * kSlab;
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
                                  const TokenRow<C>* from, C* dD_sum, C* bias_sum) {
  const Words<C> d;
  const int32_t* order = args.in.order;
  const Rows<kPlain, const T> u_rows(args.in.u, order, run, lane);
  const Rows<kPlain, T> du(args.du, order, run, lane);
  const Rows<kPlain, T> ddt(args.ddt, order, run, lane);
  const Rows<kPlain, T> dz(args.in.z ? args.dz : TokenView<T>{}, order, run, lane);
  const auto skip = load_channel_values(d, args.in.D, lane);
  auto dD = hn::Load(d, dD_sum);
  auto ddt_bias = hn::Load(d, bias_sum);
  for (int64_t t = 0; t < run.count; ++t, ++from) {
    const auto u = u_rows.get(d, t);
    const auto gy = hn::Load(d, from->gy);
    const auto s1 = hn::Load(d, from->s1);
    const auto s2 = hn::Mul(hn::Load(d, from->s2), hn::Set(d, static_cast<C>(kLn2)));
    const auto g = hn::Mul(hn::MulAdd(u, s1, s2), hn::Load(d, from->slope));
    dD = hn::MulAdd(gy, u, dD);
    ddt_bias = hn::Add(ddt_bias, g);
    if (du) du.put(hn::MulAdd(hn::Load(d, from->delta), s1, hn::Mul(skip, gy)), d, t);
    if (ddt) ddt.put(g, d, t);
    if (dz) {
      const auto y = hn::MulAdd(skip, u, hn::Load(d, from->y));
      dz.put(hn::Mul(hn::Load(d, from->gate), y), d, t);
    }
  }
  hn::Store(dD, d, dD_sum);
  hn::Store(ddt_bias, d, bias_sum);
}
template <class T, class C>
void finish_rows(const S6Backward<T>& args, const Run& run, const Lane& lane,
                 const TokenRow<C>* from, C* dD_sum, C* bias_sum) {
  plain_rows(args.in, lane, args.in.u, args.du, args.ddt, args.dz)
      ? finish_backward<true>(args, run, lane, from, dD_sum, bias_sum)
      : finish_backward<false>(args, run, lane, from, dD_sum, bias_sum);
}

/// Sums over lanes of a block's dB and dC into the tile's partial rows.
template <class T, class C>
HWY_NOINLINE void reduce_block(const BackwardJob<T>& job, const Run& run, const s6::Tile& tile,
                               int64_t state, const BlockBuffers<C>& block) {
  const S6Shape& shape = *job.shape;
  const int64_t count = HWY_MIN(kBlock, shape.state - state);
  const int64_t offset = tile.index_in_group * job.rows_size() + tile.group * shape.state + state;
  for (int64_t t = 0; t < run.count; ++t) {
    const int64_t token = run.batch * shape.len + token_at(job.args->in, run.begin + t);
    const int64_t to = offset + token * shape.groups * shape.state;
    C sums[2 * kBlock];
    sum_lanes(block.rows[t].dB, sums);
    sum_lanes(block.rows[t].dC, sums + kBlock);
    for (int64_t n = 0; n < count; ++n) {
      job.dB[to + n] = sums[n];
      job.dC[to + n] = sums[kBlock + n];
    }
  }
}

template <bool kFirst, class C>
void run_block(const BlockWord<C>& word, const Ahead<2>* ahead, bool first_word) {
  block_forward<kFirst>(word, ahead);
  first_word ? block_reverse<kFirst, true>(word) : block_reverse<kFirst, false>(word);
}

/// The block that starts at `state`, for all words of the tile.
template <class T, class C>
void backward_block(const BackwardJob<T>& job, const s6::Segment& segment, const Run& run,
                    const s6::Tile& tile, int64_t state, C* mu, C* dA, TokenRow<C>* tokens,
                    BlockBuffers<C>* block) {
  const S6Shape& shape = *job.shape;
  const int64_t saved = segment.batch * shape.saved_chunks() + segment.saved +
                        (run.begin - segment.begin) / kS6Chunk;
  for (int64_t w = 0; w < tile.words; ++w) {
    const Lane lane = lane_of<T>(tile, w);
    HWY_ALIGN C h[StateRow<C>::kSize];
    words_from_rows(state_row(job.args->saved, shape, saved, lane.channel) + state, shape.state,
                    lane.count, HWY_MIN(kBlock, shape.state - state), kBlock, h);
    const int64_t row = w * job.word_size() + state * kLanes<C>;
    const BlockWord<C> word{job.a2 + tile.word * job.word_size() + row,
                            h,
                            mu + row,
                            dA + row,
                            tokens + w * kS6Chunk,
                            block->B_rows + state % kSlab,
                            block->C_rows + state % kSlab,
                            block->rows,
                            run.count};
    Ahead<2> ahead;
    const bool fetch = aim_ahead(*job.args, segment, run, lane, state, word.a2, &ahead);
    state == 0 ? run_block<true>(word, fetch ? &ahead : nullptr, w == 0)
               : run_block<false>(word, fetch ? &ahead : nullptr, w == 0);
  }
  reduce_block(job, run, tile, state, *block);
}

/// During the first two blocks the inputs of the chunk before this one, during the next two the
/// outputs of this chunk: two lines a token, which is what the line fill buffers keep up with.
template <class T>
bool aim_ahead(const S6Backward<T>& args, const s6::Segment& segment, const Run& run,
               const Lane& lane, int64_t state, const void* nothing, Ahead<2>* ahead) {
  Run target = run;
  const int64_t block = state / kBlock;
  if (block < 2) target.begin -= kS6Chunk;
  if (target.begin < segment.begin || args.in.order != nullptr || block > 3) return false;
  const auto aim = [&](const auto& first, const auto& second) {
    ahead->aim(0, first, target, lane.channel, nothing);
    ahead->aim(1, second, target, lane.channel, nothing);
  };
  if (block == 0) aim(args.in.u, args.in.dt);
  if (block == 1) aim(args.in.z, args.gy);
  if (block == 2) aim(args.du, args.ddt);
  if (block == 3) aim(args.dz, args.dz);
  return true;
}

/// The gradients of the segment's tokens, from mu (tile.words, states, kLanes), the gradient of the
/// state that leaves it, which becomes that of the state that enters it. Adds to `sums`.
template <class T, class C>
void backward_segment(const BackwardJob<T>& job, const s6::Segment& segment, const s6::Tile& tile,
                      C* mu, const PartialSums<C>& sums) {
  const S6Inputs<T>& in = job.args->in;
  TokenRow<C> tokens[kTokenRows<C>];
  BlockBuffers<C> block;
  const int64_t chunks = s6::ceil_div(segment.end - segment.begin, kS6Chunk);
  for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
    const int64_t begin = segment.begin + chunk * kS6Chunk;
    const Run run{segment.batch, begin, HWY_MIN(kS6Chunk, segment.end - begin)};
    for (int64_t w = 0; w < tile.words; ++w) {
      prepare_rows(job, run, lane_of<T>(tile, w), tokens + w * kS6Chunk);
    }
    for (int64_t state = 0; state < job.states; state += kBlock) {
      if (state % kSlab == 0) {
        const int64_t offset = tile.group * job.shape->state + state;
        const int64_t left = job.shape->state - state;
        gather_states<kSlab>(in, in.B, run, offset, left, block.B_rows);
        gather_states<kSlab>(in, in.C, run, offset, left, block.C_rows);
      }
      backward_block(job, segment, run, tile, state, mu, sums.dA + tile.word * job.word_size(),
                     tokens, &block);
    }
    for (int64_t w = 0; w < tile.words; ++w) {
      const int64_t at = (tile.word + w) * kLanes<C>;
      finish_rows(*job.args, run, lane_of<T>(tile, w), tokens + w * kS6Chunk, sums.dD + at,
                  sums.ddt_bias + at);
    }
  }
}

/// mu at the end of a sequence: ghT or zero.
template <class T, class C>
void load_final_gradient(const BackwardJob<T>& job, int64_t row, const s6::Tile& tile, C* mu) {
  for (int64_t w = 0; w < tile.words; ++w) {
    const Lane lane = lane_of<T>(tile, w);
    words_from_rows(state_row(job.args->ghT, *job.shape, row, lane.channel), job.shape->state,
                    lane.count, job.shape->state, job.states, mu + w * job.word_size());
  }
}
template <class T, class C>
void store_entering_gradient(const BackwardJob<T>& job, int64_t row, const s6::Tile& tile,
                             const C* mu) {
  if (job.args->dh0 == nullptr) return;
  for (int64_t w = 0; w < tile.words; ++w) {
    const Lane lane = lane_of<T>(tile, w);
    rows_from_words(mu + w * job.word_size(), job.shape->state, lane.count, job.shape->state,
                    state_row(job.args->dh0, *job.shape, row, lane.channel));
  }
}

/// dB and dC of all tokens: the sum over the tiles of a group, rounded once.
template <class T>
void sum_tiles(const BackwardJob<T>& job, const TokenView<T>& out,
               const accumulate_t<T>* partial, int threads) {
  using C = accumulate_t<T>;
  const S6Shape& shape = *job.shape;
  if (!out) return;
  const int64_t width = shape.groups * shape.state;
  const int64_t tokens = shape.batch * shape.len;
  parallel_for(threads, s6::ceil_div(tokens, kS6Chunk), [&](int64_t item) {
    const Words<C> d;
    for (int64_t i = item * kS6Chunk; i < HWY_MIN(tokens, (item + 1) * kS6Chunk); ++i) {
      T* to = out.row(i / shape.len, i % shape.len);
      for (int64_t n = 0; n < width; n += kLanes<C>) {
        const auto lanes = static_cast<size_t>(HWY_MIN(kLanes<C>, width - n));
        auto sum = load_n(d, partial + i * width + n, lanes);
        for (int64_t k = 1; k < job.cut.group_tiles(); ++k) {
          sum = hn::Add(sum, load_n(d, partial + k * job.rows_size() + i * width + n, lanes));
        }
        store_n(sum, d, to + n, lanes);
      }
    }
  });
}

/// The sums of bundle `part`, cleared for the tile.
template <class T>
PartialSums<accumulate_t<T>> clear_sums(const BackwardJob<T>& job, const s6::Tile& tile,
                                        PartialSums<accumulate_t<T>> sums, int64_t part,
                                        int64_t channels) {
  using C = accumulate_t<T>;
  sums.dA += part * channels * job.states;
  sums.dD += part * channels;
  sums.ddt_bias += part * channels;
  std::fill_n(sums.dA + tile.word * job.word_size(), tile.words * job.word_size(), C{0});
  std::fill_n(sums.dD + tile.word * kLanes<C>, tile.words * kLanes<C>, C{0});
  std::fill_n(sums.ddt_bias + tile.word * kLanes<C>, tile.words * kLanes<C>, C{0});
  return sums;
}

/// dA, dD and ddt_bias: the sum over `parts` sets of partial sums, `channels` words apart.
template <class T>
void sum_bundles(const BackwardJob<T>& job, const PartialSums<accumulate_t<T>>& sums,
                 int64_t parts, int64_t channels, int threads) {
  using C = accumulate_t<T>;
  const S6Backward<T>& args = *job.args;
  parallel_for(threads, job.cut.tiles(), [&](int64_t index) {
    const Words<C> d;
    const s6::Tile tile = job.cut.tile(index);
    if (parts == 0) clear_sums(job, tile, sums, 0, channels);  // no rows: the sums are 0
    const auto add_up = [&](C* first, int64_t count, int64_t stride) {
      for (int64_t i = 0; i < count; i += kLanes<C>) {
        auto sum = hn::Load(d, first + i);
        for (int64_t p = 1; p < parts; ++p) sum = hn::Add(sum, hn::Load(d, first + p * stride + i));
        hn::Store(sum, d, first + i);
      }
    };
    for (int64_t w = 0; w < tile.words; ++w) {
      const Lane lane = lane_of<T>(tile, w);
      const int64_t word = tile.word + w;
      if (args.dA != nullptr) {
        C* dA = sums.dA + word * job.word_size();
        add_up(dA, job.word_size(), channels * job.states);
        rows_from_words(dA, job.shape->state, lane.count, job.shape->state,
                        state_row(args.dA, *job.shape, 0, lane.channel));
      }
      const auto write_channels = [&](C* partial, C* to) {
        if (to == nullptr) return;
        add_up(partial + word * kLanes<C>, kLanes<C>, channels);
        store_n(hn::Load(d, partial + word * kLanes<C>), d, to + lane.channel,
                static_cast<size_t>(lane.count));
      };
      write_channels(sums.dD, args.dD);
      write_channels(sums.ddt_bias, args.ddt_bias);
    }
  });
}

/// Carves what both cuts need; `parts` sets of partial sums.
template <class T>
BackwardJob<T> carve_backward(const S6Shape& shape, const S6Backward<T>& args, Exec* exec,
                              int64_t parts, PartialSums<accumulate_t<T>>* sums) {
  using C = accumulate_t<T>;
  const int64_t channels = s6::padded_channels<C>(shape);
  const int64_t states = s6::padded_states(shape.state);
  const s6::Cut cut(shape, kLanes<C>);
  BackwardJob<T> job{&shape, &args, cut, states, exec->carve<C>(channels * states), nullptr,
                     nullptr};
  job.dB = exec->carve<C>(cut.group_tiles() * job.rows_size());
  job.dC = exec->carve<C>(cut.group_tiles() * job.rows_size());
  parts = HWY_MAX(parts, int64_t{1});
  *sums = {exec->carve<C>(parts * channels * states), exec->carve<C>(parts * channels),
           exec->carve<C>(parts * channels)};
  return job;
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
