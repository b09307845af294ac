// The backward recurrence of some channels over a chunk, with its gradient of the state in
// registers (math.md 3.2 with one decay for all states). Once per SIMD target.
//
//   checkpoint  the states again, from the chunk's first token; kept where runs begin
//   replay      the states of one run, all of them kept
//   reverse     the run from its last token to its first

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_SSD_RECURRENT_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_SSD_RECURRENT_BACKWARD_INL_H_
#undef ADDER_SSD_RECURRENT_BACKWARD_INL_H_
#else
#define ADDER_SSD_RECURRENT_BACKWARD_INL_H_
#endif

#include <hwy/highway.h>

#include "kernels/ssd/ssd_recurrent-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE::recurrent {

/// Channels of a register block, and its widest pass: together half the registers.
inline constexpr int kSweepRows = 4;
inline constexpr int kSweepWords = kStateWords / kSweepRows;
template <class C>
inline constexpr int64_t kSweepBlock = kSweepRows * kSweepWords * kLanes<C>;

/// Some words of the states of some channels of one head over a chunk. Rows by token have
/// `channel_row` elements, states and rows of dB, dC `state_row`.
template <class C>
struct Sweep {
  int64_t count;  // tokens
  int64_t state_row;
  int64_t channel_row;
  const C* entering;  // (channels, state_row): state that enters the chunk
  C* mu;              // (channels, state_row): gradient of the state that leaves; then that enters
  const C* B;         // (count, width of the words)
  const C* weights;   // as B: C of the equations
  C* dB;              // (count, state_row), added to
  C* dC;
  const C* decay;  // (count)
  const C* dx;     // (count, channel_row): delta x
  const C* gy;     // (count, channel_row)
  C* v;            // (count, channel_row): lam B, added to
  C* y;            // (count, channel_row): C h, added to; or absent
  C* through;      // (count, kLanes): words of a lam h, added to
  C* checkpoints;  // (runs, kSweepBlock)

  Sweep next_rows(int64_t rows) const {
    Sweep next = *this;
    next.entering += rows * state_row;
    next.mu += rows * state_row;
    next.dx += rows;
    next.gy += rows;
    next.v += rows;
    if (y != nullptr) next.y += rows;
    return next;
  }
};

/// Buffers of one work item, on its stack.
template <class C>
struct SweepBuffers {
  HWY_ALIGN C
      states[(ssd::kSweepRun + 1) * kSweepBlock<C>];  // entering each token of a run; leaving
  HWY_ALIGN C sums[ssd::kSweepRun * kSweepRows * kLanes<C>];
};

template <int kWords, int kRows, class C>
HWY_NOINLINE void checkpoint(const Sweep<C>& sweep) {
  const Words<C> d;
  V<Words<C>> h[kRows][kWords];
#pragma GCC unroll 16
  for (int i = 0; i < kRows * kWords; ++i) {
    h[i / kWords][i % kWords] =
        hn::LoadU(d, sweep.entering + i / kWords * sweep.state_row + i % kWords * kLanes<C>);
  }
  const C* HWY_RESTRICT B = sweep.B;
  const C* HWY_RESTRICT dx = sweep.dx;
  C* HWY_RESTRICT to = sweep.checkpoints;
  for (int64_t t = 0; t < sweep.count; ++t) {
    if (t % ssd::kSweepRun == 0) {
#pragma GCC unroll 16
      for (int i = 0; i < kRows * kWords; ++i) {
        hn::Store(h[i / kWords][i % kWords], d, to + i * kLanes<C>);
      }
      to += kSweepBlock<C>;
      if (t + ssd::kSweepRun >= sweep.count) return;
    }
    const auto decay = hn::Set(d, sweep.decay[t]);
#pragma GCC unroll 16
    for (int w = 0; w < kWords; ++w) {
      const auto b = hn::Load(d, B + w * kLanes<C>);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        h[r][w] = hn::MulAdd(hn::Set(d, dx[r]), b, hn::Mul(decay, h[r][w]));
      }
    }
    B += kWords * kLanes<C>;
    dx += sweep.channel_row;
  }
}

/// Tokens [begin, begin + count) from the checkpoint of their run.
template <int kWords, int kRows, class C>
HWY_NOINLINE void replay(const Sweep<C>& sweep, int64_t begin, int64_t count,
                         SweepBuffers<C>& buffers) {
  const Words<C> d;
  V<Words<C>> h[kRows][kWords];
  const C* from = sweep.checkpoints + begin / ssd::kSweepRun * kSweepBlock<C>;
#pragma GCC unroll 16
  for (int i = 0; i < kRows * kWords; ++i) {
    h[i / kWords][i % kWords] = hn::Load(d, from + i * kLanes<C>);
    hn::Store(h[i / kWords][i % kWords], d, buffers.states + i * kLanes<C>);
  }
  const bool outputs = sweep.y != nullptr;
  const C* HWY_RESTRICT B = sweep.B + begin * kWords * kLanes<C>;
  const C* HWY_RESTRICT weights = sweep.weights + begin * kWords * kLanes<C>;
  const C* HWY_RESTRICT dx = sweep.dx + begin * sweep.channel_row;
  C* HWY_RESTRICT to = buffers.states;
  for (int64_t t = 0; t < count; ++t) {
    const auto decay = hn::Set(d, sweep.decay[begin + t]);
    to += kRows * kWords * kLanes<C>;
#pragma GCC unroll 16
    for (int w = 0; w < kWords; ++w) {
      const auto b = hn::Load(d, B + w * kLanes<C>);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        h[r][w] = hn::MulAdd(hn::Set(d, dx[r]), b, hn::Mul(decay, h[r][w]));
        hn::Store(h[r][w], d, to + (r * kWords + w) * kLanes<C>);
      }
    }
    B += kWords * kLanes<C>;
    dx += sweep.channel_row;
    if (!outputs) continue;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      auto sum = hn::Mul(hn::Load(d, weights), h[r][0]);
#pragma GCC unroll 16
      for (int w = 1; w < kWords; ++w) {
        sum = hn::MulAdd(hn::Load(d, weights + w * kLanes<C>), h[r][w], sum);
      }
      hn::Store(sum, d, buffers.sums + (t * kRows + r) * kLanes<C>);
    }
    weights += kWords * kLanes<C>;
  }
  if (outputs) {
    add_lane_sums(buffers.sums, false, count, kRows, sweep.channel_row,
                  sweep.y + begin * sweep.channel_row);
  }
}

template <int kWords, int kRows, class C>
HWY_NOINLINE void reverse(const Sweep<C>& sweep, int64_t begin, int64_t count,
                          SweepBuffers<C>& buffers) {
  const Words<C> d;
  constexpr int64_t kBlock = kRows * kWords * kLanes<C>;
  V<Words<C>> mu[kRows][kWords];
#pragma GCC unroll 16
  for (int i = 0; i < kRows * kWords; ++i) {
    mu[i / kWords][i % kWords] =
        hn::LoadU(d, sweep.mu + i / kWords * sweep.state_row + i % kWords * kLanes<C>);
  }
  for (int64_t t = count - 1; t >= 0; --t) {
    const auto decay = hn::Set(d, sweep.decay[begin + t]);
    const C* HWY_RESTRICT B = sweep.B + (begin + t) * kWords * kLanes<C>;
    const C* HWY_RESTRICT weights = sweep.weights + (begin + t) * kWords * kLanes<C>;
    const C* HWY_RESTRICT dx = sweep.dx + (begin + t) * sweep.channel_row;
    const C* HWY_RESTRICT gy = sweep.gy + (begin + t) * sweep.channel_row;
    const C* HWY_RESTRICT h = buffers.states + t * kBlock;
    C* HWY_RESTRICT dB = sweep.dB + (begin + t) * sweep.state_row;
    C* HWY_RESTRICT dC = sweep.dC + (begin + t) * sweep.state_row;
    V<Words<C>> v[kRows], through[kRows];  // a sum for each row: one would be a chain of waits
#pragma GCC unroll 16
    for (int w = 0; w < kWords; ++w) {
      const auto b = hn::Load(d, B + w * kLanes<C>);
      const auto weight = hn::Load(d, weights + w * kLanes<C>);
      auto b_sum = hn::Load(d, dB + w * kLanes<C>);
      auto c_sum = hn::Load(d, dC + w * kLanes<C>);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const C* at = h + (r * kWords + w) * kLanes<C>;
        const auto g = hn::Set(d, gy[r]);
        const auto lam = hn::MulAdd(weight, g, mu[r][w]);
        c_sum = hn::MulAdd(g, hn::Load(d, at + kBlock), c_sum);
        b_sum = hn::MulAdd(hn::Set(d, dx[r]), lam, b_sum);
        v[r] = w == 0 ? hn::Mul(b, lam) : hn::MulAdd(b, lam, v[r]);
        mu[r][w] = hn::Mul(decay, lam);
        through[r] = w == 0 ? hn::Mul(mu[r][w], hn::Load(d, at))
                            : hn::MulAdd(mu[r][w], hn::Load(d, at), through[r]);
      }
      hn::Store(b_sum, d, dB + w * kLanes<C>);
      hn::Store(c_sum, d, dC + w * kLanes<C>);
    }
    C* crossing = sweep.through + (begin + t) * kLanes<C>;
    auto sum = hn::Load(d, crossing);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sum = hn::Add(sum, through[r]);
    hn::Store(sum, d, crossing);
    store_sums<folds<C>(kRows, kRows), kRows>(v, buffers.sums + t * kRows * kLanes<C>);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows * kWords; ++i) {
    hn::StoreU(mu[i / kWords][i % kWords], d,
               sweep.mu + i / kWords * sweep.state_row + i % kWords * kLanes<C>);
  }
  add_lane_sums(buffers.sums, folds<C>(kRows, kRows), count, kRows, sweep.channel_row,
                sweep.v + begin * sweep.channel_row);
}

template <int kWords, int kRows, class C>
void sweep_block(const Sweep<C>& sweep, SweepBuffers<C>& buffers) {
  checkpoint<kWords, kRows>(sweep);
  for (int64_t begin = (sweep.count - 1) / ssd::kSweepRun * ssd::kSweepRun; begin >= 0;
       begin -= ssd::kSweepRun) {
    const int64_t count = HWY_MIN(ssd::kSweepRun, sweep.count - begin);
    replay<kWords, kRows>(sweep, begin, count, buffers);
    reverse<kWords, kRows>(sweep, begin, count, buffers);
  }
}

template <int kWords, class C>
void sweep_channels(Sweep<C> sweep, int64_t channels, SweepBuffers<C>& buffers) {
  for (; channels >= kSweepRows; channels -= kSweepRows) {
    sweep_block<kWords, kSweepRows>(sweep, buffers);
    sweep = sweep.next_rows(kSweepRows);
  }
  for (; channels > 0; --channels) {
    sweep_block<kWords, 1>(sweep, buffers);
    sweep = sweep.next_rows(1);
  }
}

/// All channels of a head, `words` a power of two up to kSweepWords.
template <class C>
void sweep_words(int words, const Sweep<C>& sweep, int64_t channels, SweepBuffers<C>& buffers) {
  switch (words) {
    case 4:
      if constexpr (kSweepWords == 4) return sweep_channels<4>(sweep, channels, buffers);
      break;
    case 2:
      return sweep_channels<2>(sweep, channels, buffers);
    default:
      return sweep_channels<1>(sweep, channels, buffers);
  }
}

}  // namespace adder::HWY_NAMESPACE::recurrent
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
