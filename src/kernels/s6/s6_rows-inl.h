// What forward and backward share: which channels and tokens a word covers, strided rows as words,
// rows of B and C, the prescaled A, and what to fetch ahead.

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_KERNELS_S6_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_KERNELS_S6_ROWS_INL_H_
#undef ADDER_KERNELS_S6_ROWS_INL_H_
#else
#define ADDER_KERNELS_S6_ROWS_INL_H_
#endif

#include <hwy/highway.h>

#include "core/threads.h"
#include "kernels/s6/s6_plan.h"
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

/// One view's rows that the next word or run will touch, fetched while this one computes: the scan
/// of a token takes about as long as a cache line takes to arrive.
struct Ahead {
  const char* row;
  int64_t stride;  // bytes from token to token

  /// Into L2: rows whose stride is a large power of two would fill a few sets of L1.
  HWY_INLINE void fetch(int64_t t) const { __builtin_prefetch(row + t * stride, 0, 2); }
  /// `nothing` is fetched again and again where the view is absent.
  template <class T>
  static Ahead of(const TokenView<T>& view, const Run& run, int64_t channel, const void* nothing) {
    if (!view || run.count <= 0) return {static_cast<const char*>(nothing), 0};
    return {reinterpret_cast<const char*>(&view.at(run.batch, run.begin, channel)),
            view.token_stride * static_cast<int64_t>(sizeof(T))};
  }
};

/// A as words, zeros in the padding. The first word of each `rate_words` is multiplied by log2(e),
/// once for the whole call (math.md 0.5): 1 of 1 where A is real, the real parts, 1 of 2, where it is
/// complex.
template <class C>
void scale_decay_rates(const S6Shape& shape, const s6::Cut& cut, const C* A, int64_t rate_words,
                       int threads, C* a2) {
  const Words<C> d;
  const int64_t states = s6::padded_states(shape.state);
  parallel_for(threads, cut.tiles(), [&](int64_t index) {
    const s6::Tile tile = cut.tile(index);
    for (int64_t w = 0; w < tile.words; ++w) {
      C* to = a2 + (tile.word + w) * states * kLanes<C>;
      const int64_t first = w * kLanes<C>;
      words_from_rows(state_row(A, shape, 0, tile.channel + first), shape.state,
                      HWY_MIN(kLanes<C>, tile.channels - first), shape.state, states, to);
      for (int64_t i = 0; i < states * kLanes<C>; i += rate_words * kLanes<C>) {
        hn::Store(hn::Mul(hn::Load(d, to + i), hn::Set(d, static_cast<C>(kLog2E))), d, to + i);
      }
    }
  });
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
