// The forward scan over one segment of one tile, for every line: lines differ in the order in which
// they visit (token, state) pairs, given by their Order, and in where segments begin.
//
// Vectorized over channels: B_t and C_t are broadcast, so no sum over lanes is needed. For each
// (channel, state) the operations and their order are the same whatever the Order, hence the bits:
//   h = fma(a, h, du * B[n]);  y = fma(C[n], h, y), n ascending from y = 0;  y = fma(D, u, y)

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_KERNELS_S6_FORWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_KERNELS_S6_FORWARD_INL_H_
#undef ADDER_KERNELS_S6_FORWARD_INL_H_
#else
#define ADDER_KERNELS_S6_FORWARD_INL_H_
#endif

#include <hwy/highway.h>

#include "core/subnormals.h"
#include "kernels/s6/s6_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

/// What one word of channels carries for one token, side by side: buffers a multiple of 4096 bytes
/// apart would make loads wait for unrelated stores (the addresses alias).
template <class C>
struct ScanRow {
  HWY_ALIGN C delta[kLanes<C>];
  C du[kLanes<C>];  // delta u
  C y[kLanes<C>];   // sum over the states so far
};

// The transcendental chains are cut into passes over the run: a scheduler holds about a hundred
// waiting operations, so short chains of many tokens overlap where one long chain each would not.

/// delta and delta * u of a run for one word; y is cleared.
template <bool kPlain, class T, class C>
HWY_NOINLINE void prepare_forward(bool softplus, const S6Inputs<T>& in, const Run& run,
                                  const Lane& lane, ScanRow<C>* rows) {
  const Words<C> d;
  const Limits<C> limits{in.dt_min, in.dt_max};
  const Rows<kPlain, const T> dt(in.dt, in.order, run, lane);
  const Rows<kPlain, const T> u(in.u, in.order, run, lane);
  const auto bias = load_channel_values(d, in.dt_bias, lane);
  for (int64_t t = 0; t < run.count; ++t) {
    const auto pre = hn::Add(dt.get(d, t), bias);
    hn::Store(pre, d, rows[t].delta);
    if (softplus) hn::Store(exp_minus_abs(d, pre), d, rows[t].y);
  }
  for (int64_t t = 0; t < run.count; ++t) {
    auto sp = hn::Load(d, rows[t].delta);
    if (softplus) sp = softplus_of(d, sp, hn::Load(d, rows[t].y));
    const auto delta = limits.clamp(d, sp);
    hn::Store(delta, d, rows[t].delta);
    hn::Store(hn::Mul(delta, u.get(d, t)), d, rows[t].du);
    hn::Store(hn::Zero(d), d, rows[t].y);
  }
}

/// out = (y + D u) silu(z). Overwrites the rows.
template <bool kPlain, class T, class C>
HWY_NOINLINE void finish_forward(const S6Forward<T>& args, const Run& run, const Lane& lane,
                                 ScanRow<C>* rows) {
  const Words<C> d;
  const S6Inputs<T>& in = args.in;
  const Rows<kPlain, const T> u(in.u, in.order, run, lane);
  const Rows<kPlain, const T> z(in.z, in.order, run, lane);
  const Rows<kPlain, T> y(args.y, in.order, run, lane);
  const bool skips = in.D != nullptr;
  const auto skip = load_channel_values(d, in.D, lane);
  for (int64_t t = 0; z && t < run.count; ++t) {
    hn::Store(exp_minus_abs(d, z.get(d, t)), d, rows[t].delta);
  }
  for (int64_t t = 0; t < run.count; ++t) {
    auto out = hn::Load(d, rows[t].y);
    if (skips) out = hn::MulAdd(skip, u.get(d, t), out);
    if (z) {
      const auto gate = z.get(d, t);
      out = hn::Mul(out, hn::Mul(gate, sigmoid_of(d, gate, hn::Load(d, rows[t].delta))));
    }
    y.put(out, d, t);
  }
}

/// Lines to fetch for a token of a scan.
inline constexpr int kScanViews = 4;

/// What one word needs to scan a run.
template <class C>
struct ScanWord {
  const C* a2;  // (states, kLanes)
  C* h;         // (states, kLanes)
  ScanRow<C>* tokens;
  const C* B_rows;  // (count, kSlab), first state of the block at [0]
  const C* C_rows;  // (count, kSlab)
  int64_t count;
  const Ahead* ahead;  // those still to be fetched
};

/// kStates states over all tokens of the run, token by token, the states in registers; fetches
/// kViews views ahead. kOutputs off: the state only (first pass of the parallel line).
template <int kStates, int kViews, bool kOutputs, class C>
HWY_NOINLINE void scan_block(const ScanWord<C>& word) {
  const Words<C> d;
  V<Words<C>> h[kStates];
#pragma GCC unroll 16
  for (int n = 0; n < kStates; ++n) h[n] = hn::Load(d, word.h + n * kLanes<C>);
  for (int64_t t = 0; t < word.count; ++t) {
    ScanRow<C>& token = word.tokens[t];
    const auto delta = hn::Load(d, token.delta);
    const auto du = hn::Load(d, token.du);
    for (int i = 0; i < kViews; ++i) word.ahead[i].fetch(t);
    const C* B = word.B_rows + t * kSlab;
    const C* weights = word.C_rows + t * kSlab;
    auto y = kOutputs ? hn::Load(d, token.y) : hn::Zero(d);
#pragma GCC unroll 16
    for (int n = 0; n < kStates; ++n) {
      const auto a = decay_word(d, delta, hn::Load(d, word.a2 + n * kLanes<C>));
      h[n] = hn::MulAdd(a, h[n], hn::Mul(du, hn::Set(d, B[n])));
      if constexpr (kOutputs) y = hn::MulAdd(hn::Set(d, weights[n]), h[n], y);
    }
    if constexpr (kOutputs) hn::Store(y, d, token.y);
  }
#pragma GCC unroll 16
  for (int n = 0; n < kStates; ++n) hn::Store(h[n], d, word.h + n * kLanes<C>);
}

template <class C>
inline ScanWord<C> advance(ScanWord<C> word, int64_t states) {
  word.a2 += states * kLanes<C>;
  word.h += states * kLanes<C>;
  word.B_rows += states;
  word.C_rows += states;
  return word;
}

/// Scans `states` (a multiple of 4) in blocks of kBlock, the rest in blocks of four. A block of a
/// slab fetches all views ahead, a block of four one of them.
template <int kBlock, bool kOutputs, class C>
void scan_states(ScanWord<C> word, int64_t states, int views) {
  while (states > 0) {
    const bool fetch = views > 0;
    if (kBlock != s6::kStateBlock && states >= kBlock) {
      fetch ? scan_block<kBlock, kScanViews, kOutputs>(word)
            : scan_block<kBlock, 0, kOutputs>(word);
      word = advance(word, kBlock);
      states -= kBlock;
      views = 0;
    } else {
      fetch ? scan_block<s6::kStateBlock, 1, kOutputs>(word)
            : scan_block<s6::kStateBlock, 0, kOutputs>(word);
      word = advance(word, s6::kStateBlock);
      states -= s6::kStateBlock;
      ++word.ahead;
      --views;
    }
  }
}

/// All states of a token (up to a slab) before the next token.
struct TokenOrder {
  static constexpr int kBlock = kSlab;
};
/// All tokens of a chunk for a few states, then the next states.
struct ChunkOrder {
  static constexpr int kBlock = s6::kStateBlock;
};

template <class T>
struct ForwardJob {
  using C = accumulate_t<T>;
  const S6Shape* shape;
  const S6Forward<T>* args;
  s6::Cut cut;
  int64_t states;  // padded to whole blocks
  C* a2;           // (words, states, kLanes): A log2(e)

  int64_t word_size() const { return states * kLanes<C>; }
};

/// Buffers of one work item, on its stack: they stay in the cache from item to item.
template <class C>
struct ForwardBuffers {
  HWY_ALIGN C B_rows[kS6Chunk * kSlab];
  HWY_ALIGN C C_rows[kS6Chunk * kSlab];
  // One word each while all states fit a slab; the whole tile otherwise.
  ScanRow<C> tokens[kS6Chunk * s6::kMaxTileChannels / kLanes<C>];
};

template <class T>
void save_state(const ForwardJob<T>& job, const s6::Segment& segment, int64_t step,
                const Lane& lane, const accumulate_t<T>* h) {
  const int64_t chunk = segment.saved + (step - segment.begin) / kS6Chunk;
  const int64_t index = segment.batch * job.shape->saved_chunks() + chunk;
  rows_from_words(h, job.shape->state, lane.count, job.shape->state,
                  state_row(job.args->saved, *job.shape, index, lane.channel));
}

/// The rows of the word after `word` in this run, or of the first word in the next run.
template <class T>
void aim_ahead(const S6Forward<T>& args, const s6::Segment& segment, const s6::Tile& tile,
               const Run& run, int64_t word, const void* nothing, Ahead* ahead) {
  const bool next_run = word + 1 == tile.words;
  Run next = run;
  if (next_run) {
    next.begin += run.count;
    next.count = HWY_MIN(kS6Chunk, segment.end - next.begin);
  }
  const int64_t channel = lane_of<T>(tile, next_run ? 0 : word + 1).channel;
  ahead[0] = Ahead::of(args.in.u, next, channel, nothing);
  ahead[1] = Ahead::of(args.in.dt, next, channel, nothing);
  ahead[2] = Ahead::of(args.in.z, next, channel, nothing);
  ahead[3] = Ahead::of(args.y, next, channel, nothing);
}

/// Adds the run's deltas to their sum.
template <class C>
void add_deltas(const ScanRow<C>* tokens, int64_t count, C* delta_sum) {
  const Words<C> d;
  auto sum = hn::Load(d, delta_sum);
  for (int64_t t = 0; t < count; ++t) sum = hn::Add(sum, hn::Load(d, tokens[t].delta));
  hn::Store(sum, d, delta_sum);
}

/// Scans the segment for the words of the tile from `state` (tile.words, states, kLanes), which is
/// left at the segment's end. kOutputs off: only the state, and the sum of delta for each channel
/// is added to delta_sum (tile.words, kLanes).
template <class Order, bool kOutputs, class T>
void scan_segment(const ForwardJob<T>& job, const s6::Segment& segment, const s6::Tile& tile,
                  accumulate_t<T>* state, accumulate_t<T>* delta_sum) {
  using C = accumulate_t<T>;
  const S6Inputs<T>& in = job.args->in;
  ForwardBuffers<C> buffers;
  Ahead ahead[kScanViews];
  const bool one_slab = job.states <= kSlab;
  for (int64_t step = segment.begin; step < segment.end; step += kS6Chunk) {
    const Run run{segment.batch, step, HWY_MIN(kS6Chunk, segment.end - step)};
    for (int64_t n = 0; n < job.states; n += kSlab) {
      const int64_t states = HWY_MIN(kSlab, job.states - n);
      const int64_t offset = tile.group * job.shape->state + n;
      gather_states<kSlab>(in, in.B, run, offset, job.shape->state - n, buffers.B_rows);
      if (kOutputs)
        gather_states<kSlab>(in, in.C, run, offset, job.shape->state - n, buffers.C_rows);
      for (int64_t w = 0; w < tile.words; ++w) {
        const Lane lane = lane_of<T>(tile, w);
        ScanRow<C>* tokens = buffers.tokens + (one_slab ? 0 : w * kS6Chunk);
        C* h = state + w * job.word_size();
        if (n == 0) {
          plain_rows(in, lane, in.u, in.dt)
              ? prepare_forward<true>(job.shape->softplus, in, run, lane, tokens)
              : prepare_forward<false>(job.shape->softplus, in, run, lane, tokens);
          if (kOutputs && job.args->saved != nullptr) save_state(job, segment, step, lane, h);
        }
        const C* a2 = job.a2 + (tile.word + w) * job.word_size() + n * kLanes<C>;
        if (n == 0) aim_ahead(*job.args, segment, tile, run, w, a2, ahead);
        scan_states<Order::kBlock, kOutputs>(
            ScanWord<C>{a2, h + n * kLanes<C>, tokens, buffers.B_rows, buffers.C_rows, run.count,
                        ahead},
            states, n == 0 && in.order == nullptr ? kScanViews : 0);
        if (n + kSlab < job.states) continue;
        if constexpr (kOutputs) {
          plain_rows(in, lane, in.u, in.z, job.args->y)
              ? finish_forward<true>(*job.args, run, lane, tokens)
              : finish_forward<false>(*job.args, run, lane, tokens);
        } else {
          add_deltas(tokens, run.count, delta_sum + w * kLanes<C>);
        }
      }
    }
  }
}

/// Enters h0 (or zeros) of the row.
template <class T>
void load_entering_state(const S6Shape& shape, const S6Inputs<T>& in, int64_t row,
                         const s6::Tile& tile, accumulate_t<T>* state) {
  const int64_t states = s6::padded_states(shape.state);
  for (int64_t w = 0; w < tile.words; ++w) {
    const Lane lane = lane_of<T>(tile, w);
    words_from_rows(state_row(in.h0, shape, slot_of(in, row), lane.channel), shape.state,
                    lane.count, shape.state, states, state + w * states * kLanes<accumulate_t<T>>);
  }
}

template <class T>
void store_final_state(const ForwardJob<T>& job, int64_t row, const s6::Tile& tile,
                       const accumulate_t<T>* state) {
  if (job.args->hT == nullptr) return;
  for (int64_t w = 0; w < tile.words; ++w) {
    const Lane lane = lane_of<T>(tile, w);
    rows_from_words(state + w * job.word_size(), job.shape->state, lane.count, job.shape->state,
                    state_row(job.args->hT, *job.shape, slot_of(job.args->in, row), lane.channel));
  }
}

/// Every sequence from its first token to its last. `scan(job, segment, tile, state)` takes the
/// state over a segment and writes its outputs; rate_words as in scale_decay_rates.
template <class T, class Scan>
void forward_whole_sequences(const S6Shape& shape, const S6Forward<T>& args, Exec exec,
                             int64_t rate_words, const Scan& scan) {
  using C = accumulate_t<T>;
  auto* segments = exec.carve<s6::Segment>(s6::max_segments(shape, s6::kWholeSequence));
  const int64_t count = s6::list_segments(shape, args.in.cu_seqlens, s6::kWholeSequence, segments);
  const int64_t bundles = HWY_MIN(count, s6::kMaxBundles);
  const int64_t plane = s6::padded_channels<C>(shape) * s6::padded_states(shape.state);
  const s6::Cut cut(shape, kLanes<C>);
  const ForwardJob<T> job{&shape, &args, cut, s6::padded_states(shape.state), exec.carve<C>(plane)};
  C* state = exec.carve<C>(bundles * plane);
  scale_decay_rates(shape, cut, args.in.A, rate_words, exec.threads, job.a2);
  parallel_for(exec.threads, bundles * cut.tiles(), [&](int64_t item) {
    const FlushSubnormals flush;
    const int64_t bundle = item / cut.tiles();
    const s6::Tile tile = cut.tile(item % cut.tiles());
    C* own = state + bundle * plane + tile.word * job.word_size();
    const int64_t end = s6::first_of_bundle(bundle + 1, bundles, count);
    for (int64_t i = s6::first_of_bundle(bundle, bundles, count); i < end; ++i) {
      load_entering_state(shape, args.in, segments[i].row, tile, own);
      scan(job, segments[i], tile, own);
      store_final_state(job, segments[i].row, tile, own);
    }
  });
}

/// The sequential and the chunked line.
template <class Order, class T>
void forward_in_order(const S6Shape& shape, const S6Forward<T>& args, Exec exec) {
  using C = accumulate_t<T>;
  const auto scan = [](const ForwardJob<T>& job, const s6::Segment& segment, const s6::Tile& tile,
                       C* state) {
    scan_segment<Order, true>(job, segment, tile, state, static_cast<C*>(nullptr));
  };
  forward_whole_sequences(shape, args, exec, 1, scan);
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
