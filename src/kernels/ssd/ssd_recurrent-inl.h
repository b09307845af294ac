// Forward and backward of the linear form share this, once per SIMD target: the steps of a run of
// tokens, rows of B and C, and the scan of a block of channels with its states in registers.
//
// Vectorized over the states, as h lies in memory: no transposition, and a single token reads and
// writes the state once. The products with C leave one word of partial sums for each (token,
// channel); four such words are summed over their lanes together.

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_SSD_RECURRENT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_SSD_RECURRENT_INL_H_
#undef ADDER_SSD_RECURRENT_INL_H_
#else
#define ADDER_SSD_RECURRENT_INL_H_
#endif

#include <hwy/highway.h>

#include "core/simd-inl.h"
#include "kernels/ssd/ssd_recurrent_plan.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE::recurrent {

/// Lanes of a word as a constant: every target here has fixed width.
template <class C>
inline constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(Words<C>()));

// Words of states that a block keeps in registers: half of them.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
inline constexpr int kStateWords = 16;
#else
inline constexpr int kStateWords = 8;
#endif
/// Channels of a register block whose rows are `words` wide.
constexpr int rows_of(int words) { return HWY_MIN(8, kStateWords / words); }
/// The states of a channel in passes of a power of two of words, at most half the registers.
template <class C>
class Pass {
 public:
  explicit Pass(const SsdShape& shape, int most = kStateWords / 2)
      : left_((shape.state + kLanes<C> - 1) / kLanes<C>), words_(most) {
    narrow();
  }
  explicit operator bool() const { return left_ > 0; }
  void next() {
    first_ += width();
    left_ -= words_;
    narrow();
  }
  int words() const { return words_; }
  int64_t first() const { return first_; }  // state
  int64_t width() const { return words_ * kLanes<C>; }

 private:
  void narrow() {
    while (words_ > left_ && words_ > 1) words_ /= 2;
  }
  int64_t left_;
  int words_;
  int64_t first_ = 0;
};

/// Up to kRun consecutive steps of one batch row, for one head.
struct Run {
  int64_t batch;
  int64_t begin;
  int64_t count;
  int64_t head;
  int64_t group;
};

template <class T>
inline int64_t token_at(const SsdInputs<T>& in, const Run& run, int64_t t) {
  return in.order == nullptr ? run.begin + t : in.order[run.begin + t];
}

// ---- steps -----------------------------------------------------------------------------------

/// Arrays of whole words: round_up(count) elements.
template <class C>
struct Steps {
  C* delta;
  C* decay;
  C* slope;  // d delta / d dt, or absent
};

/// math.md 0.4, and e^(delta A).
template <class T, class C = accumulate_t<T>>
void find_steps(const SsdShape& shape, const SsdInputs<T>& in, const Run& run,
                const Steps<C>& steps) {
  const Words<C> d;
  const auto bias = hn::Set(d, in.dt_bias != nullptr ? in.dt_bias[run.head] : C(0));
  const auto low = hn::Set(d, in.dt_min), high = hn::Set(d, in.dt_max);
  const auto rate = hn::Set(d, in.A[run.head]);
  for (int64_t t = 0; t < run.count; t += kLanes<C>) {
    HWY_ALIGN C raw[kLanes<C>] = {};
    for (int64_t i = 0; i < HWY_MIN(kLanes<C>, run.count - t); ++i) {
      raw[i] = static_cast<C>(in.dt.at(run.batch, token_at(in, run, t + i), run.head));
    }
    const auto pre = hn::Add(hn::Load(d, raw), bias);
    const auto value = shape.softplus ? softplus_word(d, pre) : pre;
    // The value comes second: x86 returns the second operand when one is NaN.
    const auto delta = hn::Min(high, hn::Max(low, value));
    hn::Store(delta, d, steps.delta + t);
    hn::Store(exp_word(d, hn::Mul(delta, rate)), d, steps.decay + t);
    if (steps.slope == nullptr) continue;
    const auto one = hn::Set(d, C(1));
    const auto soft = hn::IfThenElse(hn::Gt(pre, hn::Set(d, C(20))), one, sigmoid_word(d, pre));
    const auto outside = hn::Or(hn::Lt(value, low), hn::Gt(value, high));
    hn::Store(hn::IfThenZeroElse(outside, shape.softplus ? soft : one), d, steps.slope + t);
  }
}

// ---- rows --------------------------------------------------------------------------------------

/// States [first, first + width) of B or C for each token of the run, as aligned rows of `width`;
/// zeros past shape.state.
template <class T, class C = accumulate_t<T>>
void state_rows(const SsdShape& shape, const SsdInputs<T>& in, const TokenView<const T>& view,
                const Run& run, int64_t first, int64_t width, C* to) {
  const Words<C> d;
  const int64_t channel = run.group * shape.state + first;
  for (int64_t t = 0; t < run.count; ++t) {
    const T* from = view.row(run.batch, token_at(in, run, t)) + channel;
    for (int64_t n = 0; n < width; n += kLanes<C>) {
      const int64_t left = HWY_MAX(int64_t{0}, HWY_MIN(kLanes<C>, shape.state - first - n));
      hn::Store(load_n(d, from + (left > 0 ? n : 0), static_cast<size_t>(left)), d,
                to + t * width + n);
    }
  }
}

/// to[t][c] = scale[t] from[t][channel + c] for c < count, zeros to the end of the last word; `to`
/// has rows of `row` elements. Absent scale: 1.
template <class T, class C = accumulate_t<T>>
void channel_rows(const SsdInputs<T>& in, const TokenView<const T>& view, const Run& run,
                  int64_t channel, int64_t count, const C* scale, int64_t row, C* to) {
  const Words<C> d;
  for (int64_t t = 0; t < run.count; ++t) {
    const T* from = view.row(run.batch, token_at(in, run, t)) + channel;
    const auto factor = hn::Set(d, scale != nullptr ? scale[t] : C(1));
    for (int64_t c = 0; c < count; c += kLanes<C>) {
      const auto n = static_cast<size_t>(HWY_MIN(kLanes<C>, count - c));
      hn::Store(hn::Mul(factor, load_n(d, from + c, n)), d, to + t * row + c);
    }
  }
}

// ---- sums over lanes -------------------------------------------------------------------------

/// Four words of partial sums fold into one while they are still in registers: then its 128-bit
/// blocks are to be added. Elsewhere each word is summed by itself. The order is the same for any
/// count of rows.
template <class C>
inline constexpr bool kFolds = HWY_TARGET != HWY_SCALAR && sizeof(C) == 4;

#if HWY_TARGET != HWY_SCALAR
template <class D>
HWY_INLINE V<D> fold_words(D d, V<D> a, V<D> b, V<D> c, V<D> e) {
  const hn::Repartition<double, D> dd;
  const auto low = hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b));
  const auto high = hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e));
  const auto x = hn::BitCast(dd, low), y = hn::BitCast(dd, high);
  return hn::Add(hn::BitCast(d, hn::InterleaveLower(dd, x, y)),
                 hn::BitCast(d, hn::InterleaveUpper(dd, x, y)));
}
#endif

/// Folds four words in place where kFolds, so that the first holds all.
template <class C>
HWY_INLINE void fold_stored(C* words) {
  if constexpr (kFolds<C>) {
    const Words<C> d;
    hn::Store(fold_words(d, hn::Load(d, words), hn::Load(d, words + kLanes<C>),
                         hn::Load(d, words + 2 * kLanes<C>), hn::Load(d, words + 3 * kLanes<C>)),
              d, words);
  }
}

/// to[0..4) += the sums over the lanes of four words, folded where kFolds.
template <class C>
HWY_INLINE void add_folded(const C* words, C* to) {
  const Words<C> d;
  if constexpr (kFolds<C>) {
    const hn::CappedTag<C, 4> d4;
    auto sum = hn::Load(d4, words);
    for (int64_t i = 4; i < kLanes<C>; i += 4) sum = hn::Add(sum, hn::Load(d4, words + i));
    hn::StoreU(hn::Add(hn::LoadU(d4, to), sum), d4, to);
  } else {
    for (int64_t i = 0; i < 4; ++i) {
      to[i] += hn::GetLane(hn::SumOfLanes(d, hn::Load(d, words + i * kLanes<C>)));
    }
  }
}

/// Words of partial sums of a batch of `rows` channels: token t, channel r at word t * rows + r;
/// folded, four channels at word t * rows + r, r a multiple of 4.
template <bool kFolded, int kRows, class C>
HWY_INLINE void store_sums(const V<Words<C>>* sums, C* to) {
  const Words<C> d;
  if constexpr (kFolded) {
#if HWY_TARGET != HWY_SCALAR
#pragma GCC unroll 16
    for (int r = 0; r < kRows; r += 4) {
      hn::Store(fold_words(d, sums[r], sums[r + 1], sums[r + 2], sums[r + 3]), d,
                to + r * kLanes<C>);
    }
#endif
  } else {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) hn::Store(sums[r], d, to + r * kLanes<C>);
  }
}
/// May register blocks of `block` rows fold a batch of `rows`?
template <class C>
constexpr bool folds(int64_t rows, int64_t block) {
  return kFolds<C> && block % 4 == 0 && rows % block == 0;
}

/// to[t][r] += the sum over the lanes of channel r, token t; rows of `to` have `row` elements.
template <class C>
void add_lane_sums(C* words, bool folded, int64_t count, int64_t rows, int64_t row, C* to) {
  const Words<C> d;
  for (int64_t t = 0; t < count; ++t) {
    C* at = words + t * rows * kLanes<C>;
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
      if (!folded) fold_stored(at + r * kLanes<C>);
      add_folded(at + r * kLanes<C>, to + t * row + r);
    }
    if (r == rows) continue;
    HWY_ALIGN C last[4 * kLanes<C>] = {};
    C sums[4] = {};
    for (int64_t i = 0; i < rows - r; ++i) {
      hn::Store(hn::Load(d, at + (r + i) * kLanes<C>), d, last + i * kLanes<C>);
    }
    fold_stored(last);
    add_folded(last, sums);
    for (int64_t i = 0; i < rows - r; ++i) to[t * row + r + i] += sums[i];
  }
}

// ---- scan --------------------------------------------------------------------------------------

/// Some words of the states of some channels over a run.
template <class C>
struct Scan {
  const C* from;     // entering state, or nullptr: zeros
  int64_t from_row;  // elements from channel to channel
  C* to;             // leaving state
  int64_t to_row;
  const C* dx;  // (count, kChannels): delta x
  const C* decay;
  const C* B;        // (count, width of the words)
  const C* weights;  // as B: C of the equations
  int64_t count;
  C* sums;           // word t * sums_row + r: partial sums of C h over lanes
  int64_t sums_row;  // channels

  Scan next_rows(int64_t rows) const {
    Scan next = *this;
    if (from != nullptr) next.from += rows * from_row;
    next.to += rows * to_row;
    next.dx += rows;
    next.sums += rows * kLanes<C>;
    return next;
  }
};

template <int kWords, int kRows, bool kFolded, class C>
HWY_NOINLINE void scan_block(const Scan<C>& scan) {
  const Words<C> d;
  V<Words<C>> h[kRows][kWords];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int w = 0; w < kWords; ++w) {
      h[r][w] = scan.from != nullptr ? hn::LoadU(d, scan.from + r * scan.from_row + w * kLanes<C>)
                                     : hn::Zero(d);
    }
  }
  const C* HWY_RESTRICT B = scan.B;
  const C* HWY_RESTRICT weights = scan.weights;
  const C* HWY_RESTRICT dx = scan.dx;
  const C* HWY_RESTRICT decays = scan.decay;
  C* HWY_RESTRICT sums = scan.sums;
  const int64_t sums_row = scan.sums_row * kLanes<C>;
  for (int64_t t = scan.count; t > 0; --t) {
    const auto decay = hn::Set(d, *decays++);
    V<Words<C>> sum[kRows];
#pragma GCC unroll 16
    for (int w = 0; w < kWords; ++w) {
      const auto b = hn::Load(d, B + w * kLanes<C>);
      const auto weight = hn::Load(d, weights + w * kLanes<C>);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        h[r][w] = hn::MulAdd(hn::Set(d, dx[r]), b, hn::Mul(decay, h[r][w]));
        sum[r] = w == 0 ? hn::Mul(weight, h[r][w]) : hn::MulAdd(weight, h[r][w], sum[r]);
      }
    }
    store_sums<kFolded, kRows>(sum, sums);
    B += kWords * kLanes<C>;
    weights += kWords * kLanes<C>;
    dx += ssd::kChannels;
    sums += sums_row;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int w = 0; w < kWords; ++w) {
      hn::StoreU(h[r][w], d, scan.to + r * scan.to_row + w * kLanes<C>);
    }
  }
}

template <int kWords, class C>
void scan_rows(Scan<C> scan, int64_t rows) {
  constexpr int kRows = rows_of(kWords);
  if (folds<C>(rows, kRows)) {
    for (; rows > 0; rows -= kRows) {
      scan_block<kWords, kRows, folds<C>(kRows, kRows)>(scan);
      scan = scan.next_rows(kRows);
    }
    return;
  }
  for (; rows >= kRows; rows -= kRows) {
    scan_block<kWords, kRows, false>(scan);
    scan = scan.next_rows(kRows);
  }
  for (; rows > 0; --rows) {
    scan_block<kWords, 1, false>(scan);
    scan = scan.next_rows(1);
  }
}

/// `rows` channels over a run in batches whose partial sums fit their buffer; y[t][r] += C h.
template <int kWords, class C>
void scan_channels(Scan<C> scan, int64_t rows, C* y) {
  const int64_t batch = HWY_MIN(rows, ssd::kSums / scan.count);
  for (int64_t r = 0; r < rows; r += batch) {
    scan.sums_row = HWY_MIN(batch, rows - r);
    scan_rows<kWords>(scan, scan.sums_row);
    add_lane_sums(scan.sums, folds<C>(scan.sums_row, rows_of(kWords)), scan.count, scan.sums_row,
                  ssd::kChannels, y + r);
    const int64_t step = scan.sums_row;
    C* const sums = scan.sums;
    scan = scan.next_rows(step);
    scan.sums = sums;
  }
}

/// scan_channels with `words` a power of two up to kStateWords / 2.
template <class C>
void scan_words(int words, const Scan<C>& scan, int64_t rows, C* y) {
  switch (words) {
    case 8:
      if constexpr (kStateWords == 16) return scan_channels<8>(scan, rows, y);
      break;
    case 4:
      return scan_channels<4>(scan, rows, y);
    case 2:
      return scan_channels<2>(scan, rows, y);
    default:
      return scan_channels<1>(scan, rows, y);
  }
}

}  // namespace adder::HWY_NAMESPACE::recurrent
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
