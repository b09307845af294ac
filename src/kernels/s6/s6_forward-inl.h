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

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "core/threads.h"
#include "kernels/s6/s6_plan.h"
#include "kernels/s6/s6_subnormals.h"
#include "kernels/s6/s6_words-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

/// States whose B and C rows are gathered at a time.
inline constexpr int64_t kSlab = 16;

/// Consecutive steps of one batch row, at most a chunk.
struct Run {
  int64_t batch;
  int64_t begin;
  int64_t count;
};

/// The channels of one word.
struct Lane {
  int64_t channel;  // first
  int64_t count;    // <= kLanes
};

template <class T>
inline Lane lane_of(const s6::Tile& tile, int64_t word) {
  const int64_t first = word * kLanes<accumulate_t<T>>;
  return {tile.channel + first, HWY_MIN(kLanes<accumulate_t<T>>, tile.channels - first)};
}

template <class T>
inline int64_t token_at(const S6Inputs<T>& in, int64_t step) {
  return in.order == nullptr ? step : in.order[step];
}

template <class T>
inline int64_t slot_of(const S6Inputs<T>& in, int64_t row) {
  return in.state_index == nullptr ? row : in.state_index[row];
}

/// The row of A, h0, hT, ... that belongs to (slot, channel), or nullptr.
template <class P>
inline P* state_row(P* base, const S6Shape& shape, int64_t slot, int64_t channel) {
  return base == nullptr ? nullptr : base + (slot * shape.dim + channel) * shape.state;
}

/// Values per channel such as D: zeros when absent.
template <class D, class C>
HWY_INLINE V<D> load_channel_values(D d, const C* values, const Lane& lane) {
  if (values == nullptr) return hn::Zero(d);
  return load_n(d, values + lane.channel, static_cast<size_t>(lane.count));
}

/// kWidth states of B or C from `offset` on, for each token of the run, as rows of compute numbers;
/// zeros past `count` states.
template <int64_t kWidth, class T, class C>
inline void gather_states(const S6Inputs<T>& in, const TokenView<const T>& view, const Run& run,
                          int64_t offset, int64_t count, C* to) {
  for (int64_t t = 0; t < run.count; ++t) {
    const T* from = view.row(run.batch, token_at(in, run.begin + t)) + offset;
    C* row = to + t * kWidth;
    constexpr int64_t kStep = HWY_MIN(kLanes<C>, kWidth);
    const hn::CappedTag<C, kStep> d;
    for (int64_t n = 0; n < kWidth; n += kStep) {
      const int64_t left = HWY_MAX(int64_t{0}, HWY_MIN(kStep, count - n));
      hn::Store(load_n(d, from + (left > 0 ? n : 0), static_cast<size_t>(left)), d, row + n);
    }
  }
}

/// One word of channels of a run's tokens. kPlain: tokens in order, a whole word, channel stride 1.
template <bool kPlain, class T>
class Rows {
 public:
  Rows(const TokenView<T>& view, const int32_t* order, const Run& run, const Lane& lane)
      : token_stride_(view.token_stride),
        channel_stride_(view.channel_stride),
        lanes_(lane.count),
        order_(order == nullptr ? nullptr : order + run.begin),
        base_(view ? &view.at(run.batch, order == nullptr ? run.begin : 0, lane.channel)
                   : nullptr) {}
  explicit operator bool() const { return base_ != nullptr; }

  template <class D>
  HWY_INLINE V<D> get(D d, int64_t t) const {
    if constexpr (kPlain) return load(d, row(t));
    return load_channels(d, row(t), channel_stride_, lanes_);
  }
  template <class D>
  HWY_INLINE void put(V<D> value, D d, int64_t t) const {
    if constexpr (kPlain) return store(value, d, row(t));
    store_channels(value, d, row(t), channel_stride_, lanes_);
  }

 private:
  HWY_INLINE T* row(int64_t t) const {
    return base_ + (kPlain || order_ == nullptr ? t : order_[t]) * token_stride_;
  }

  int64_t token_stride_;
  int64_t channel_stride_;
  int64_t lanes_;
  const int32_t* order_;
  T* base_;
};

/// May the views be read as plain rows (absent views may)?
template <class T, class... Views>
bool plain_rows(const S6Inputs<T>& in, const Lane& lane, const Views&... views) {
  return in.order == nullptr && lane.count == kLanes<accumulate_t<T>> &&
         ((!views || views.channel_stride == 1) && ...);
}

/// Limits of delta (math.md 0.4).
template <class C>
struct Limits {
  C low;
  C high;
  template <class D>
  HWY_INLINE V<D> clamp(D d, V<D> sp) const {
    // The value comes second: x86 returns the second operand when one is NaN.
    return hn::Min(hn::Set(d, high), hn::Max(hn::Set(d, low), sp));
  }
};

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

/// Rows that the next word or run will read, fetched while this one computes: the scan of a token
/// takes about as long as a cache line takes to arrive.
template <int kViews>
struct Ahead {
  const char* row[kViews];
  int64_t stride[kViews];  // bytes from token to token

  HWY_INLINE void fetch(int64_t t) const {
    for (int i = 0; i < kViews; ++i) hwy::Prefetch(row[i] + t * stride[i]);
  }
  template <class T>
  void aim(int i, const TokenView<T>& view, const Run& run, int64_t channel, const void* nothing) {
    const bool useful = view && run.count > 0;
    row[i] = static_cast<const char*>(
        useful ? static_cast<const void*>(&view.at(run.batch, run.begin, channel)) : nothing);
    stride[i] = useful ? view.token_stride * static_cast<int64_t>(sizeof(T)) : 0;
  }
};

/// What one word needs to scan a run.
template <class C>
struct ScanWord {
  const C* a2;        // (states, kLanes)
  C* h;               // (states, kLanes)
  ScanRow<C>* tokens;
  const C* B_rows;  // (count, kSlab), first state of the block at [0]
  const C* C_rows;  // (count, kSlab)
  int64_t count;
  const Ahead<4>* ahead;  // nullptr: nothing to fetch
};

/// kStates states over all tokens of the run, token by token, the states in registers.
/// kOutputs off: the state only (first pass of the parallel line).
template <int kStates, bool kOutputs, bool kAhead, class C>
HWY_NOINLINE void scan_block(const ScanWord<C>& word) {
  const Words<C> d;
  V<Words<C>> h[kStates];
#pragma GCC unroll 16
  for (int n = 0; n < kStates; ++n) h[n] = hn::Load(d, word.h + n * kLanes<C>);
  for (int64_t t = 0; t < word.count; ++t) {
    ScanRow<C>& token = word.tokens[t];
    const auto delta = hn::Load(d, token.delta);
    const auto du = hn::Load(d, token.du);
    if constexpr (kAhead) word.ahead->fetch(t);
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
  word.ahead = nullptr;
  return word;
}

/// Scans `states` (a multiple of kBlock, or of 4) in blocks; the first block fetches ahead.
template <int kBlock, bool kOutputs, class C>
void scan_states(ScanWord<C> word, int64_t states) {
  while (states > 0) {
    const int64_t block = states >= kBlock ? kBlock : s6::kStateBlock;
    const bool fetch = word.ahead != nullptr;
    if (block == kBlock) {
      fetch ? scan_block<kBlock, kOutputs, true>(word) : scan_block<kBlock, kOutputs, false>(word);
    } else {
      scan_block<s6::kStateBlock, kOutputs, false>(word);
    }
    word = advance(word, block);
    states -= block;
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

/// A log2(e) as words, zeros in the padding; the scale is applied once (math.md 0.5).
template <class C>
void scale_decay_rates(const S6Shape& shape, const s6::Cut& cut, const C* A, int threads, C* a2) {
  const Words<C> d;
  const int64_t states = s6::padded_states(shape.state);
  parallel_for(threads, cut.tiles(), [&](int64_t index) {
    const s6::Tile tile = cut.tile(index);
    for (int64_t w = 0; w < tile.words; ++w) {
      C* to = a2 + (tile.word + w) * states * kLanes<C>;
      const int64_t first = w * kLanes<C>;
      words_from_rows(state_row(A, shape, 0, tile.channel + first),
                      shape.state, HWY_MIN(kLanes<C>, tile.channels - first), shape.state, states,
                      to);
      for (int64_t i = 0; i < states * kLanes<C>; i += kLanes<C>) {
        hn::Store(hn::Mul(hn::Load(d, to + i), hn::Set(d, static_cast<C>(kLog2E))), d, to + i);
      }
    }
  });
}

/// Buffers of one work item, on its stack: they stay in the cache from item to item.
template <class C>
struct ForwardBuffers {
  HWY_ALIGN C B_rows[kS6Chunk * kSlab];
  HWY_ALIGN C C_rows[kS6Chunk * kSlab];
  // One word each while all states fit a slab; the whole tile otherwise.
  ScanRow<C> tokens[kS6Chunk * s6::kTileChannels / kLanes<C>];
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
               const Run& run, int64_t word, const void* nothing, Ahead<4>* ahead) {
  const bool next_run = word + 1 == tile.words;
  Run next = run;
  if (next_run) {
    next.begin += run.count;
    next.count = HWY_MIN(kS6Chunk, segment.end - next.begin);
  }
  const int64_t channel = lane_of<T>(tile, next_run ? 0 : word + 1).channel;
  ahead->aim(0, args.in.u, next, channel, nothing);
  ahead->aim(1, args.in.dt, next, channel, nothing);
  ahead->aim(2, args.in.z, next, channel, nothing);
  ahead->aim(3, args.y, next, channel, nothing);
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
  Ahead<4> ahead;
  const bool one_slab = job.states <= kSlab;
  for (int64_t step = segment.begin; step < segment.end; step += kS6Chunk) {
    const Run run{segment.batch, step, HWY_MIN(kS6Chunk, segment.end - step)};
    for (int64_t n = 0; n < job.states; n += kSlab) {
      const int64_t states = HWY_MIN(kSlab, job.states - n);
      const int64_t offset = tile.group * job.shape->state + n;
      gather_states<kSlab>(in, in.B, run, offset, job.shape->state - n, buffers.B_rows);
      if (kOutputs) gather_states<kSlab>(in, in.C, run, offset, job.shape->state - n, buffers.C_rows);
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
        if (n == 0) aim_ahead(*job.args, segment, tile, run, w, a2, &ahead);
        scan_states<Order::kBlock, kOutputs>(
            ScanWord<C>{a2, h + n * kLanes<C>, tokens, buffers.B_rows, buffers.C_rows, run.count,
                        n == 0 && in.order == nullptr ? &ahead : nullptr},
            states);
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
    rows_from_words(
        state + w * job.word_size(), job.shape->state, lane.count, job.shape->state,
        state_row(job.args->hT, *job.shape, slot_of(job.args->in, row), lane.channel));
  }
}

/// Every sequence from its first token to its last: the sequential and the chunked line.
template <class Order, class T>
void forward_whole_sequences(const S6Shape& shape, const S6Forward<T>& args, Exec exec) {
  using C = accumulate_t<T>;
  auto* segments = exec.carve<s6::Segment>(s6::max_segments(shape, s6::kWholeSequence));
  const int64_t count =
      s6::list_segments(shape, args.in.cu_seqlens, s6::kWholeSequence, segments);
  const int64_t bundles = HWY_MIN(count, s6::kMaxBundles);
  const int64_t plane = s6::padded_channels<C>(shape) * s6::padded_states(shape.state);
  const s6::Cut cut(shape, kLanes<C>);
  const ForwardJob<T> job{&shape, &args, cut, s6::padded_states(shape.state), exec.carve<C>(plane)};
  C* state = exec.carve<C>(bundles * plane);
  scale_decay_rates(shape, cut, args.in.A, exec.threads, job.a2);
  parallel_for(exec.threads, bundles * cut.tiles(), [&](int64_t item) {
    const FlushSubnormals flush;
    const int64_t bundle = item / cut.tiles();
    const s6::Tile tile = cut.tile(item % cut.tiles());
    C* own = state + bundle * plane + tile.word * job.word_size();
    const int64_t end = s6::first_of_bundle(bundle + 1, bundles, count);
    for (int64_t i = s6::first_of_bundle(bundle, bundles, count); i < end; ++i) {
      load_entering_state(shape, args.in, segments[i].row, tile, own);
      scan_segment<Order, true>(job, segments[i], tile, own, static_cast<C*>(nullptr));
      store_final_state(job, segments[i].row, tile, own);
    }
  });
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
