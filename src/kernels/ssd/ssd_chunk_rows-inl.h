// The chunked lines read and write this besides products: rows of the views, steps and decays of a
// chunk. Once per SIMD target.

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_SSD_CHUNK_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_SSD_CHUNK_ROWS_INL_H_
#undef ADDER_SSD_CHUNK_ROWS_INL_H_
#else
#define ADDER_SSD_CHUNK_ROWS_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

#include "core/simd-inl.h"
#include "core/tile_product-inl.h"
#include "kernels/ssd/ssd_chunk_space.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

template <class C>
int64_t lanes_of() {
  return static_cast<int64_t>(hn::Lanes(Words<C>()));
}

/// One chunk of one block of heads.
struct ChunkPlace {
  ssd::Chunk chunk;
  int64_t group;
  int64_t first_head, heads;
  const int32_t* order;

  int64_t count() const { return chunk.count(); }
  /// Columns of a row of scores that are written.
  int64_t padded() const { return ssd::round_up(count(), ssd::kColumnBlock); }
  int64_t token(int64_t t) const {
    return order != nullptr ? order[chunk.begin + t] : chunk.begin + t;
  }
  template <class T>
  T* row(const TokenView<T>& view, int64_t t, int64_t channel) const {
    return view.row(chunk.batch, token(t)) + channel;
  }
};

/// The first word-multiple of `cols` values of `from`, times scale; zeros past cols. `to` has room
/// for whole words.
template <class C, class T>
HWY_INLINE void scale_row(const T* from, int64_t cols, C scale, C* to) {
  const Words<C> d;
  const int64_t lanes = lanes_of<C>();
  const auto factor = hn::Set(d, scale);
  int64_t c = 0;
  for (; c + lanes <= cols; c += lanes) hn::StoreU(hn::Mul(factor, load(d, from + c)), d, to + c);
  if (c < cols) {
    hn::StoreU(hn::Mul(factor, load_n(d, from + c, static_cast<size_t>(cols - c))), d, to + c);
  }
}

/// Asks for the cache lines of `cols` values that are read (or written) soon.
template <int kWrite, class T>
HWY_INLINE void prefetch_row(const T* from, int64_t cols) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t c = 0; c < cols; c += kLine) __builtin_prefetch(from + c, kWrite, 2);
}

/// Rows of a view into a scratch matrix, row t times scale[t] (absent: 1), zeros to the end of the
/// last word.
template <class C, class T>
void load_rows(const ChunkPlace& place, const TokenView<const T>& view, int64_t channel,
               int64_t cols, const C* scale, C* to, int64_t to_row) {
  for (int64_t t = 0; t < place.count(); ++t) {
    scale_row(place.row(view, t, channel), cols, scale != nullptr ? scale[t] : C(1),
              to + t * to_row);
  }
}

/// to[t][c] = scale[t] from[t][c], whole words.
template <class C>
void scale_rows(const C* from, int64_t rows, int64_t cols, int64_t row, const C* scale, C* to) {
  for (int64_t t = 0; t < rows; ++t) {
    scale_row(from + t * row, ssd::round_up(cols, lanes_of<C>()), scale[t], to + t * row);
  }
}

template <class C>
HWY_INLINE C dot_row(const C* a, const C* b, int64_t whole_cols) {
  const Words<C> d;
  auto sum = hn::Zero(d);
  for (int64_t c = 0; c < whole_cols; c += lanes_of<C>()) {
    sum = hn::MulAdd(hn::LoadU(d, a + c), hn::LoadU(d, b + c), sum);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

// ---- steps --------------------------------------------------------------------------------------

/// delta and its slope (math.md 0.4).
template <class C>
struct StepWord {
  V<Words<C>> delta, slope;
};
template <class T, class C = accumulate_t<T>>
HWY_INLINE StepWord<C> step_word(const SsdShape& shape, const SsdInputs<T>& in, V<Words<C>> raw,
                                 V<Words<C>> bias) {
  const Words<C> d;
  const auto one = hn::Set(d, C(1)), zero = hn::Zero(d);
  const auto pre = hn::Add(raw, bias);
  auto value = pre, slope = one;
  if (shape.softplus) {
    value = softplus_word(d, pre);
    slope = hn::IfThenElse(hn::Gt(pre, hn::Set(d, C(20))), one, sigmoid_word(d, pre));
  }
  const auto low = hn::Set(d, in.dt_min), high = hn::Set(d, in.dt_max);
  const auto below = hn::Lt(value, low), above = hn::Gt(value, high);
  return {hn::IfThenElse(above, high, hn::IfThenElse(below, low, value)),
          hn::IfThenElse(hn::Or(above, below), zero, slope)};
}

template <class T, class C = accumulate_t<T>>
void find_steps_of_word(const SsdShape& shape, const SsdInputs<T>& in, const ChunkPlace& place,
                        const ssd::ChunkSizes& sizes, int64_t word,
                        const ssd::ChunkSteps<C>& steps) {
  const Words<C> d;
  const int64_t head = place.first_head + word;
  const auto n = static_cast<size_t>(std::min(lanes_of<C>(), place.heads - word));
  const int64_t plane = sizes.tokens * sizes.head_row;
  const auto bias = in.dt_bias != nullptr ? load_n(d, in.dt_bias + head, n) : hn::Zero(d);
  const auto A = load_n(d, in.A + head, n);
  auto cs = hn::Zero(d), low = hn::Zero(d);
  for (int64_t t = 0; t < place.count(); ++t) {
    const auto step = step_word(shape, in, load_n(d, place.row(in.dt, t, head), n), bias);
    const auto term = hn::Mul(step.delta, A);
    const auto term_low = hn::MulSub(step.delta, A, term);
    const auto sum = hn::Add(cs, term);  // what rounding loses goes into low (two-sum)
    const auto back = hn::Sub(sum, cs);
    const auto lost = hn::Add(hn::Sub(cs, hn::Sub(sum, back)), hn::Sub(term, back));
    low = hn::Add(low, hn::Add(lost, term_low));
    cs = hn::Add(sum, low);
    low = hn::Sub(low, hn::Sub(cs, sum));
    C* to = steps.by_token + t * sizes.head_row + word;
    hn::StoreU(step.delta, d, to);
    hn::StoreU(cs, d, to + plane);
    hn::StoreU(low, d, to + 2 * plane);
    hn::StoreU(step.slope, d, to + 3 * plane);
  }
}

template <class T, class C = accumulate_t<T>>
void find_steps(const SsdShape& shape, const SsdInputs<T>& in, const ChunkPlace& place,
                const ssd::ChunkSizes& sizes, const ssd::ChunkSteps<C>& steps) {
  for (int64_t word = 0; word < place.heads; word += lanes_of<C>()) {
    find_steps_of_word(shape, in, place, sizes, word, steps);
  }
  C* const planes[] = {steps.delta, steps.cs, steps.cs_low};
  for (int64_t i = 0; i < 3; ++i) {
    transpose_tile(steps.by_token + i * sizes.tokens * sizes.head_row, sizes.head_row,
                   place.count(), place.heads, C(1), planes[i], sizes.tokens);
  }
}

// ---- decays -------------------------------------------------------------------------------------

/// Exponents are positive only where delta is negative (softplus off).
template <class D>
HWY_INLINE V<D> largest_exponent(D d) {
  return hn::Set(d, static_cast<hn::TFromD<D>>(sizeof(hn::TFromD<D>) == 4 ? 88 : 709));
}

/// e^((a + a_low) - (b + b_low)), a few ulp whatever the size of a and b.
template <class D>
HWY_INLINE V<D> exp_difference(D d, V<D> a, V<D> a_low, V<D> b, V<D> b_low) {
  const auto high = hn::Sub(a, b);
  const auto back = hn::Sub(high, a);
  const auto lost = hn::Sub(hn::Sub(a, hn::Sub(high, back)), hn::Add(b, back));
  const auto low = hn::Add(lost, hn::Sub(a_low, b_low));
  const auto x = hn::Add(high, low);
  const auto e = exp_word(d, hn::Min(x, largest_exponent(d)));
  return hn::MulAdd(e, hn::Sub(low, hn::Sub(x, high)), e);
}

/// Without a fused multiply-add exp_word loses |x| ulp: stay near 1.
constexpr double mild_range() { return HWY_TARGET == HWY_SCALAR ? 4 : ssd::kMildRange; }

/// |mid| and all |cs_t - mid| within mild_range(); false for NaN.
template <class C>
bool is_mild(const C* cs, int64_t count) {
  const Words<C> d;
  const int64_t lanes = lanes_of<C>();
  const auto limit = hn::Set(d, static_cast<C>(mild_range()));
  const auto mid = hn::Set(d, C(0.5) * cs[count - 1]);
  bool mild = hn::AllTrue(d, hn::Le(hn::Abs(mid), limit));
  for (int64_t t = 0; t < count; t += lanes) {
    const auto n = static_cast<size_t>(std::min(lanes, count - t));
    const auto far = hn::Abs(hn::Sub(load_n(d, cs + t, n), mid));  // zeros past the end are near
    mild = mild && hn::AllTrue(d, hn::Le(far, limit));
  }
  return mild;
}

template <class C>
void find_decays(const ssd::ChunkSteps<C>& steps, int64_t head_in_block, int64_t count,
                 const ssd::ChunkSizes& sizes, ssd::ChunkDecays<C>* out) {
  const Words<C> d;
  const int64_t lanes = lanes_of<C>();
  const int64_t at = head_in_block * sizes.tokens;
  out->delta = steps.delta + at;
  out->cs = steps.cs + at;
  out->cs_low = steps.cs_low + at;
  out->mild = is_mild(out->cs, count);
  const auto zero = hn::Zero(d), half = hn::Set(d, C(0.5));
  const auto last = hn::Set(d, out->cs[count - 1]), last_low = hn::Set(d, out->cs_low[count - 1]);
  const auto mid = hn::Mul(half, last), mid_low = hn::Mul(half, last_low);
  const auto base = out->mild ? mid : zero, base_low = out->mild ? mid_low : zero;
  const auto top = out->mild ? mid : last, top_low = out->mild ? mid_low : last_low;
  for (int64_t t = 0; t < count; t += lanes) {
    const auto n = static_cast<size_t>(std::min(lanes, count - t));
    const auto cs = load_n(d, out->cs + t, n), low = load_n(d, out->cs_low + t, n);
    const auto fall = exp_difference(d, top, top_low, cs, low);
    hn::StoreU(exp_difference(d, cs, low, base, base_low), d, out->rise + t);
    hn::StoreU(fall, d, out->fall + t);
    hn::StoreU(hn::Mul(fall, load_n(d, out->delta + t, n)), d, out->weight + t);
  }
  out->whole = hn::GetLane(exp_difference(d, last, last_low, zero, zero));
  out->entering = hn::GetLane(exp_difference(d, base, base_low, zero, zero));
  out->leaving = hn::GetLane(exp_difference(d, last, last_low, top, top_low));
}

/// e^(cs_i - cs_j) of one word of columns j, zero where j > i: the mask comes before the
/// exponential.
template <class C>
HWY_INLINE V<Words<C>> diagonal_word(const ssd::ChunkDecays<C>& decays, int64_t i, int64_t j) {
  const Words<C> d;
  const auto high = hn::Sub(hn::Set(d, decays.cs[i]), hn::LoadU(d, decays.cs + j));
  const auto low = hn::Sub(hn::Set(d, decays.cs_low[i]), hn::LoadU(d, decays.cs_low + j));
  const auto x = hn::Min(hn::Add(high, low), largest_exponent(d));
  const auto inside = hn::FirstN(d, static_cast<size_t>(i - j + 1));
  const auto none = hn::Set(d, static_cast<C>(-1e4));
  return hn::IfThenElseZero(inside, exp_word(d, hn::IfThenElse(inside, x, none)));
}

/// across[j] = e^(cs_{begin-1} - cs_j) for j < begin; inside[i - begin] = e^(cs_i - cs_{begin-1})
/// for the rows [begin, end), at most one word.
template <class C>
HWY_NOINLINE void split_decays(const ssd::ChunkDecays<C>& decays, int64_t begin, int64_t end,
                               C* inside) {
  const Words<C> d;
  const auto base = hn::Set(d, decays.cs[begin - 1]);
  const auto base_low = hn::Set(d, decays.cs_low[begin - 1]);
  for (int64_t j = 0; j < begin; j += lanes_of<C>()) {
    const auto e = exp_difference(d, base, base_low, hn::LoadU(d, decays.cs + j),
                                  hn::LoadU(d, decays.cs_low + j));
    hn::StoreU(e, d, decays.across + j);
  }
  const auto n = static_cast<size_t>(end - begin);
  hn::StoreU(exp_difference(d, load_n(d, decays.cs + begin, n), load_n(d, decays.cs_low + begin, n),
                            base, base_low),
             d, inside);
}

/// decay[i][j] = e^(cs_i - cs_j) for j <= i, else 0, and out[i][j] = scores[i][j] times that; decay
/// may be absent. Blocks of as many rows as a word has columns: before the block at b the decay is
/// e^(cs_i - cs_{b-1}) e^(cs_{b-1} - cs_j), both exponents <= 0, so that only the diagonal needs an
/// exponential for every pair.
template <class C>
void form_decays(const ssd::ChunkDecays<C>& decays, const ChunkPlace& place, const C* scores,
                 int64_t row, C* decay, C* out) {
  const Words<C> d;
  const int64_t lanes = lanes_of<C>(), count = place.count();
  HWY_ALIGN C inside[HWY_MAX_BYTES / sizeof(C)] = {};  // e^(cs_i - cs_{b-1})
  for (int64_t begin = 0; begin < count; begin += lanes) {
    const int64_t end = std::min(begin + lanes, count);
    if (begin > 0) split_decays(decays, begin, end, inside);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = i * row;
      const auto put = [&](V<Words<C>> e, int64_t j) HWY_ATTR {
        if (decay != nullptr) hn::StoreU(e, d, decay + at + j);
        hn::StoreU(hn::Mul(e, hn::LoadU(d, scores + at + j)), d, out + at + j);
      };
      const auto own = hn::Set(d, inside[i - begin]);
      for (int64_t j = 0; j < begin; j += lanes) {
        put(hn::Mul(own, hn::LoadU(d, decays.across + j)), j);
      }
      put(diagonal_word(decays, i, begin), begin);
      for (int64_t j = begin + lanes; j < place.padded(); j += lanes) put(hn::Zero(d), j);
    }
  }
}

/// Zeros above the diagonal.
template <class C>
void clear_above_diagonal(const ChunkPlace& place, C* scores, int64_t row) {
  for (int64_t i = 0; i < place.count(); ++i) {
    std::fill(scores + i * row + i + 1, scores + i * row + place.padded(), C(0));
  }
}

inline ChunkPlace place_of(const SsdShape& shape, const int32_t* order, const ssd::Chunk& chunk,
                           int64_t block) {
  const ssd::HeadBlocks blocks(shape);
  const int64_t group = block / blocks.per_group;
  const int64_t first = block % blocks.per_group * blocks.heads;
  return {chunk, group, group * blocks.group_heads + first,
          std::min(blocks.heads, blocks.group_heads - first), order};
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
