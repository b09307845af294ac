// Both lines of the conv1d table (math.md section 2). An item walks the channel vectors of its tile;
// for each one the inputs of the whole time tile are gathered into a small column [token][lane]
// in cache (which also settles states, sequence boundaries, token order, strides and bf16), and
// the filter runs over that column. Sums over tokens: per item, then over items in index order.
#include <algorithm>

#include "core/threads.h"
#include "kernels/conv1d/conv1d_lines.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv1d/conv1d_simd.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/simd-inl.h"

#ifndef ADDER_CONV1D_ITEM
#define ADDER_CONV1D_ITEM
namespace adder {

// Tokens [first, last) of the sequence [begin, end) in batch row b; r is its state row.
struct Conv1dSpan {
  int64_t b, r, begin, end, first, last;
  int64_t tokens() const { return last - first; }
};

// One (row, time tile, channel tile).
struct Conv1dItem {
  int64_t index, b, time_tile, first, last, channel, channel_end;

  Conv1dItem(const Conv1dShape& shape, const Conv1dTiles& tiles, int64_t item) : index(item) {
    const int64_t channel_tile = item % tiles.channel_tiles;
    const int64_t rest = item / tiles.channel_tiles;
    time_tile = rest;
    b = rest / tiles.time_tiles;
    first = rest % tiles.time_tiles * tiles.tokens;
    last = std::min(first + tiles.tokens, shape.len);
    channel = channel_tile * Conv1dTiles::kChannels;
    channel_end = std::min(channel + Conv1dTiles::kChannels, shape.channels);
  }
};

// Calls visit(span) for every sequence that has tokens in the item.
template <class Visit>
void visit_spans(const Conv1dShape& shape, const int32_t* cu, const Conv1dItem& item,
                 const Visit& visit) {
  if (!shape.packed()) {
    visit(Conv1dSpan{item.b, item.b, 0, shape.len, item.first, item.last});
    return;
  }
  int64_t q =
      std::upper_bound(cu, cu + shape.sequences + 1, static_cast<int32_t>(item.first)) - cu - 1;
  for (; q < shape.sequences && cu[q] < item.last; ++q) {
    const int64_t begin = cu[q];
    const int64_t end = cu[q + 1];
    if (begin == end) continue;
    visit(Conv1dSpan{0, q, begin, end, std::max(begin, item.first), std::min(end, item.last)});
  }
}

template <class T>
int64_t state_slot(const Conv1dInputs<T>& in, int64_t r) {
  return in.state_index != nullptr ? in.state_index[r] : r;
}

template <class T>
T* token_row(const TokenView<T>& view, const int32_t* order, int64_t b, int64_t t) {
  return view.row(b, order != nullptr ? order[t] : t);
}

}  // namespace adder
#endif

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

template <bool kUnit, class D, class T>
HWY_INLINE V<D> load_channels(D d, const T* from, int64_t stride, size_t n) {
  if constexpr (kUnit) {
    return load_n(d, from, n);
  } else {
    HWY_ALIGN T lanes[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)] = {};
    for (size_t i = 0; i < n; ++i) lanes[i] = from[static_cast<int64_t>(i) * stride];
    return load(d, lanes);
  }
}

template <bool kUnit, class D, class T>
HWY_INLINE void store_channels(V<D> value, D d, T* to, int64_t stride, size_t n) {
  if constexpr (kUnit) {
    store_n(value, d, to, n);
  } else {
    HWY_ALIGN T lanes[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)] = {};
    store(value, d, lanes);
    for (size_t i = 0; i < n; ++i) to[static_cast<int64_t>(i) * stride] = lanes[i];
  }
}

// Everything about one channel vector: its channels [c, c + n) and its columns in cache.
template <class C>
struct Columns {
  int64_t c;
  size_t n;
  C* x;         // inputs, with the halo of width - 1 rows in front
  C* g;         // pre-activations, then their gradients
  C* w;         // (width), one vector a tap
  C* reversed;  // the same taps, last first
};

template <class D>
HWY_INLINE Columns<hn::TFromD<D>> carve_columns(D d, const Conv1dTiles& tiles, int64_t width,
                                                hn::TFromD<D>* work) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  Columns<hn::TFromD<D>> columns{};
  columns.w = work;
  columns.reversed = columns.w + width * lanes;
  columns.g = columns.reversed + width * lanes;
  columns.x = columns.g + (tiles.tokens + width - 1) * lanes;
  return columns;
}

// The taps of channels [c, c + n), both ways round; lanes past n are 0.
template <class D>
HWY_INLINE void load_taps(D d, const hn::TFromD<D>* w, int64_t width,
                          const Columns<hn::TFromD<D>>& columns) {
  const size_t lanes = hn::Lanes(d);
  const auto rows = static_cast<size_t>(width);
  const auto* from = w + columns.c * width;
  if (rows == 4 && columns.n == lanes) {
    V<D> taps[4];
    hn::LoadInterleaved4(d, from, taps[0], taps[1], taps[2], taps[3]);
    for (size_t k = 0; k < 4; ++k) {
      hn::StoreU(taps[k], d, columns.w + k * lanes);
      hn::StoreU(taps[k], d, columns.reversed + (3 - k) * lanes);
    }
    return;
  }
  for (size_t k = 0; k < rows; ++k) {
    for (size_t i = 0; i < lanes; ++i) {
      const auto tap = i < columns.n ? from[i * rows + k] : 0;
      columns.w[k * lanes + i] = tap;
      columns.reversed[(rows - 1 - k) * lanes + i] = tap;
    }
  }
}

// Rows from - (width - 1) .. to - 1 of the sequence, the state before its first token.
template <bool kUnit, class D, class T>
HWY_NOINLINE void gather_inputs(D d, const Conv1dShape& shape, const Conv1dInputs<T>& in,
                                const Conv1dSpan& span, int64_t to,
                                const Columns<hn::TFromD<D>>& columns) {
  const size_t lanes = hn::Lanes(d);
  const int64_t halo = shape.width - 1;
  auto* out = columns.x;
  int64_t t = span.first - halo;
  for (; t < span.begin; ++t, out += lanes) {
    auto row = hn::Zero(d);
    if (in.s0 != nullptr) {
      const int64_t state_row = state_slot(in, span.r) * halo + halo + (t - span.begin);
      row = load_n(d, in.s0 + state_row * shape.channels + columns.c, columns.n);
    }
    hn::StoreU(row, d, out);
  }
  const int64_t stride = in.x.channel_stride;
  for (; t < to; ++t, out += lanes) {
    const T* from = token_row(in.x, in.order, span.b, t) + columns.c * stride;
    hn::StoreU(load_channels<kUnit>(d, from, stride, columns.n), d, out);
  }
}

// One block of 4 taps: out_t = (kFirst ? start : out_t) + sum_j w_j x_{t+j}, j ascending. The
// inputs slide through registers. out may be x.
template <bool kFirst, class D, class C>
HWY_INLINE void filter_4_taps(D d, const C* w, const C* x, V<D> start, int64_t count, C* out) {
  const size_t lanes = hn::Lanes(d);
  const auto w0 = hn::LoadU(d, w), w1 = hn::LoadU(d, w + lanes);
  const auto w2 = hn::LoadU(d, w + 2 * lanes), w3 = hn::LoadU(d, w + 3 * lanes);
  auto x0 = hn::LoadU(d, x), x1 = hn::LoadU(d, x + lanes), x2 = hn::LoadU(d, x + 2 * lanes);
  x += 3 * lanes;
  for (int64_t t = 0; t < count; ++t, x += lanes, out += lanes) {
    const auto x3 = hn::LoadU(d, x);
    auto sum = kFirst ? start : hn::LoadU(d, out);
    sum = hn::MulAdd(w0, x0, sum);
    sum = hn::MulAdd(w1, x1, sum);
    sum = hn::MulAdd(w2, x2, sum);
    sum = hn::MulAdd(w3, x3, sum);
    hn::StoreU(sum, d, out);
    x0 = x1;
    x1 = x2;
    x2 = x3;
  }
}

// out_t = start + sum_{k < width} w_k x_{t+k}, k ascending: the same bits for any split of t.
template <class D, class C>
HWY_NOINLINE void filter_column(D d, int64_t width, const C* w, const C* x, V<D> start,
                                int64_t count, C* out) {
  const size_t lanes = hn::Lanes(d);
  int64_t k = 0;
  if (width >= 4) {
    filter_4_taps<true>(d, w, x, start, count, out);
    for (k = 4; k + 4 <= width; k += 4) {
      const size_t skip = static_cast<size_t>(k) * lanes;
      filter_4_taps<false>(d, w + skip, x + skip, start, count, out);
    }
  }
  for (; k < width; ++k) {
    const size_t skip = static_cast<size_t>(k) * lanes;
    const auto tap = hn::LoadU(d, w + skip);
    for (size_t i = 0; i < static_cast<size_t>(count) * lanes; i += lanes) {
      const auto sum = k == 0 ? start : hn::LoadU(d, out + i);
      hn::StoreU(hn::MulAdd(tap, hn::LoadU(d, x + skip + i), sum), d, out + i);
    }
  }
}

template <bool kUnit, class T>
HWY_NOINLINE void forward_item(const Conv1dShape& shape, const Conv1dForward<T>& args,
                               const Conv1dTiles& tiles, int64_t index, accumulate_t<T>* work) {
  const Words<accumulate_t<T>> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const Conv1dItem item(shape, tiles, index);
  auto columns = carve_columns(d, tiles, shape.width, work);
  visit_spans(shape, args.in.cu_seqlens, item, [&](const Conv1dSpan& span) HWY_ATTR {
    for (int64_t c = item.channel; c < item.channel_end; c += lanes) {
      columns.c = c;
      columns.n = static_cast<size_t>(std::min(lanes, item.channel_end - c));
      load_taps(d, args.in.w, shape.width, columns);
      gather_inputs<kUnit>(d, shape, args.in, span, span.last, columns);
      const auto bias =
          args.in.bias != nullptr ? load_n(d, args.in.bias + c, columns.n) : hn::Zero(d);
      filter_column(d, shape.width, columns.w, columns.x, bias, span.tokens(), columns.g);
      const int64_t stride = args.y.channel_stride;
      const auto* a = columns.g;
      for (int64_t t = span.first; t < span.last; ++t, a += lanes) {
        const auto sum = hn::LoadU(d, a);
        const auto y = shape.silu ? silu_word(d, sum) : sum;
        T* to = token_row(args.y, args.in.order, span.b, t) + c * stride;
        store_channels<kUnit>(y, d, to, stride, columns.n);
      }
    }
  });
}

// ga_t = gy_t act'(a_t) over the column of a, for tokens [span.first, to).
template <bool kUnit, class D, class T>
HWY_NOINLINE void activation_gradient(D d, const Conv1dShape& shape, const Conv1dBackward<T>& args,
                                      const Conv1dSpan& span, int64_t to,
                                      const Columns<hn::TFromD<D>>& columns) {
  const int64_t stride = args.gy.channel_stride;
  auto* g = columns.g;
  for (int64_t t = span.first; t < to; ++t, g += hn::Lanes(d)) {
    const T* from = token_row(args.gy, args.in.order, span.b, t) + columns.c * stride;
    const auto gy = load_channels<kUnit>(d, from, stride, columns.n);
    const auto ga = shape.silu ? hn::Mul(gy, silu_slope_word(d, hn::LoadU(d, g))) : gy;
    hn::StoreU(ga, d, g);
  }
}

// Adds sum_t ga_t x_{t+k} to row k of the partials, and sum_t ga_t to row `width`.
template <class D, class C>
HWY_NOINLINE void accumulate_taps(D d, int64_t width, int64_t count, const Columns<C>& columns,
                                  int64_t padded, C* partial) {
  const size_t lanes = hn::Lanes(d);
  const size_t end = static_cast<size_t>(count) * lanes;
  int64_t k = 0;
  for (; k + 4 <= width; k += 4) {
    const C* x = columns.x + static_cast<size_t>(k) * lanes;
    C* to = partial + k * padded + columns.c;
    auto sum0 = hn::LoadU(d, to), sum1 = hn::LoadU(d, to + padded);
    auto sum2 = hn::LoadU(d, to + 2 * padded), sum3 = hn::LoadU(d, to + 3 * padded);
    for (size_t i = 0; i < end; i += lanes) {
      const auto ga = hn::LoadU(d, columns.g + i);
      sum0 = hn::MulAdd(ga, hn::LoadU(d, x + i), sum0);
      sum1 = hn::MulAdd(ga, hn::LoadU(d, x + lanes + i), sum1);
      sum2 = hn::MulAdd(ga, hn::LoadU(d, x + 2 * lanes + i), sum2);
      sum3 = hn::MulAdd(ga, hn::LoadU(d, x + 3 * lanes + i), sum3);
    }
    hn::StoreU(sum0, d, to);
    hn::StoreU(sum1, d, to + padded);
    hn::StoreU(sum2, d, to + 2 * padded);
    hn::StoreU(sum3, d, to + 3 * padded);
  }
  for (; k <= width; ++k) {
    const C* x = columns.x + static_cast<size_t>(k) * lanes;
    C* to = partial + k * padded + columns.c;
    auto sum = hn::LoadU(d, to);
    for (size_t i = 0; i < end; i += lanes) {
      const auto ga = hn::LoadU(d, columns.g + i);
      sum = k < width ? hn::MulAdd(ga, hn::LoadU(d, x + i), sum) : hn::Add(sum, ga);
    }
    hn::StoreU(sum, d, to);
  }
}

// dx_t = sum_k w_k ga_{t+(width-1)-k} + the part of gsT that lands on x.
template <bool kUnit, class D, class T>
HWY_NOINLINE void input_gradient(D d, const Conv1dShape& shape, const Conv1dBackward<T>& args,
                                 const Conv1dSpan& span, const Columns<hn::TFromD<D>>& columns) {
  const int64_t halo = shape.width - 1;
  filter_column(d, shape.width, columns.reversed, columns.g, hn::Zero(d), span.tokens(), columns.x);
  const int64_t stride = args.dx.channel_stride;
  const auto* from = columns.x;
  for (int64_t t = span.first; t < span.last; ++t, from += hn::Lanes(d)) {
    auto sum = hn::LoadU(d, from);
    const int64_t j = t - (span.end - halo);
    if (args.gsT != nullptr && j >= 0) {
      const T* later = args.gsT + (span.r * halo + j) * shape.channels + columns.c;
      sum = hn::Add(sum, load_n(d, later, columns.n));
    }
    T* to = token_row(args.dx, args.in.order, span.b, t) + columns.c * stride;
    store_channels<kUnit>(sum, d, to, stride, columns.n);
  }
}

// ds0_i = sum_{t <= min(i, tokens - 1)} w_{i-t} ga_t + the part of gsT that passes through.
template <class D, class T>
HWY_NOINLINE void state_gradient(D d, const Conv1dShape& shape, const Conv1dBackward<T>& args,
                                 const Conv1dSpan& span, const Columns<hn::TFromD<D>>& columns) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t halo = shape.width - 1;
  const int64_t count = span.end - span.begin;
  for (int64_t i = 0; i < halo; ++i) {
    auto sum = hn::Zero(d);
    for (int64_t t = 0; t <= std::min(i, count - 1); ++t) {
      sum = hn::MulAdd(hn::LoadU(d, columns.w + (i - t) * lanes),
                       hn::LoadU(d, columns.g + t * lanes), sum);
    }
    if (args.gsT != nullptr && i >= count) {
      const T* later = args.gsT + (span.r * halo + i - count) * shape.channels + columns.c;
      sum = hn::Add(sum, load_n(d, later, columns.n));
    }
    store_n(sum, d, args.ds0 + (span.r * halo + i) * shape.channels + columns.c, columns.n);
  }
}

template <bool kUnit, class T>
HWY_NOINLINE void backward_item(const Conv1dShape& shape, const Conv1dBackward<T>& args,
                                const Conv1dTiles& tiles, int64_t index, accumulate_t<T>* work,
                                accumulate_t<T>* partials) {
  const Words<accumulate_t<T>> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const Conv1dItem item(shape, tiles, index);
  auto columns = carve_columns(d, tiles, shape.width, work);
  auto* partial = partials + item.time_tile * (shape.width + 1) * tiles.padded;
  const int64_t padded_end = (item.channel_end + 15) / 16 * 16;
  for (int64_t k = 0; k <= shape.width; ++k) {
    std::fill(partial + k * tiles.padded + item.channel, partial + k * tiles.padded + padded_end,
              accumulate_t<T>(0));
  }
  visit_spans(shape, args.in.cu_seqlens, item, [&](const Conv1dSpan& span) HWY_ATTR {
    // Gradients reach width - 1 tokens back, so the tokens after the tile are recomputed.
    const int64_t to = std::min(span.last + shape.width - 1, span.end);
    for (int64_t c = item.channel; c < item.channel_end; c += lanes) {
      columns.c = c;
      columns.n = static_cast<size_t>(std::min(lanes, item.channel_end - c));
      load_taps(d, args.in.w, shape.width, columns);
      gather_inputs<kUnit>(d, shape, args.in, span, to, columns);
      if (shape.silu) {
        const auto bias =
            args.in.bias != nullptr ? load_n(d, args.in.bias + c, columns.n) : hn::Zero(d);
        filter_column(d, shape.width, columns.w, columns.x, bias, to - span.first, columns.g);
      }
      activation_gradient<kUnit>(d, shape, args, span, to, columns);
      const int64_t rows = span.tokens() + shape.width - 1;
      std::fill(columns.g + (to - span.first) * lanes, columns.g + rows * lanes,
                accumulate_t<T>(0));
      accumulate_taps(d, shape.width, span.tokens(), columns, tiles.padded, partial);
      if (args.ds0 != nullptr && span.first == span.begin) {
        state_gradient(d, shape, args, span, columns);
      }
      input_gradient<kUnit>(d, shape, args, span, columns);
    }
  });
}

// The partials of all time tiles, added in index order, for one channel tile.
template <class C>
HWY_NOINLINE void reduce_taps(const Conv1dShape& shape, const Conv1dTiles& tiles, const C* partials,
                              int64_t channel_tile, C* dw, C* dbias) {
  const Words<C> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t first = channel_tile * Conv1dTiles::kChannels;
  const int64_t last = std::min(first + Conv1dTiles::kChannels, shape.channels);
  const int64_t stride = (shape.width + 1) * tiles.padded;
  for (int64_t k = dw != nullptr ? 0 : shape.width; k <= shape.width; ++k) {
    if (k == shape.width && dbias == nullptr) break;
    for (int64_t c = first; c < last; c += lanes) {
      auto sum = hn::Zero(d);
      const C* from = partials + k * tiles.padded + c;
      for (int64_t i = 0; i < shape.batch * tiles.time_tiles; ++i) {
        sum = hn::Add(sum, hn::LoadU(d, from + i * stride));
      }
      const int64_t n = std::min(lanes, last - c);
      if (k == shape.width) {
        store_n(sum, d, dbias + c, static_cast<size_t>(n));
        continue;
      }
      HWY_ALIGN C values[HWY_MAX_BYTES / sizeof(C)];
      hn::StoreU(sum, d, values);
      for (int64_t i = 0; i < n; ++i) dw[(c + i) * shape.width + k] = values[i];
    }
  }
}

// The work rows of one item: on the stack, or its own block of scratch for wide filters.
template <class C, class Body>
void with_work(const Conv1dShape& shape, const Conv1dTiles& tiles, std::byte* wide, int64_t index,
               const Body& body) {
  constexpr int64_t kHalo = Conv1dTiles::kStackWidth - 1;
  constexpr int64_t kRows = 2 * Conv1dTiles::kMinTokens + 3 * kHalo + 2 * (kHalo + 1);
  if (shape.width <= Conv1dTiles::kStackWidth) {
    HWY_ALIGN C work[kRows * Conv1dTiles::kRowBytes / static_cast<int64_t>(sizeof(C))];
    body(work);
  } else {
    const int64_t bytes = tiles.work_rows(shape.width) * Conv1dTiles::kRowBytes;
    body(reinterpret_cast<C*>(wide + index * bytes));
  }
}

// sT = the last width - 1 rows of concat(s0, x). In place when sT is s0: rows only move down, and
// row j is written before any row above it is read.
template <class T>
void write_final_state(const Conv1dShape& shape, const Conv1dForward<T>& args, int64_t r) {
  const int64_t halo = shape.width - 1;
  const int64_t slot = state_slot(args.in, r) * halo;
  const int64_t begin = shape.packed() ? args.in.cu_seqlens[r] : 0;
  const int64_t count = shape.packed() ? args.in.cu_seqlens[r + 1] - begin : shape.len;
  const int64_t b = shape.packed() ? 0 : r;
  const int64_t stride = args.in.x.channel_stride;
  for (int64_t j = 0; j < halo; ++j) {
    T* to = args.sT + (slot + j) * shape.channels;
    if (count + j < halo) {
      const T* from = args.in.s0 + (slot + count + j) * shape.channels;
      if (args.in.s0 == nullptr) {
        std::fill(to, to + shape.channels, T{});
      } else if (from != to) {
        std::copy(from, from + shape.channels, to);
      }
      continue;
    }
    const T* from = token_row(args.in.x, args.in.order, b, begin + count + j - halo);
    if (stride == 1) {
      std::copy(from, from + shape.channels, to);
    } else {
      for (int64_t c = 0; c < shape.channels; ++c) to[c] = from[c * stride];
    }
  }
}

template <bool kUnit, class T>
void forward_all(const Conv1dShape& shape, const Conv1dForward<T>& args, Exec exec) {
  const Conv1dTiles tiles(shape);
  const int threads = Conv1dTiles::threads(shape, exec.threads);
  parallel_for(threads, tiles.items(shape), [&](int64_t index) {
    with_work<accumulate_t<T>>(shape, tiles, exec.scratch, index, [&](accumulate_t<T>* work) {
      forward_item<kUnit>(shape, args, tiles, index, work);
    });
  });
  // After every tile, because a tile may still read the s0 that sT overwrites.
  if (args.sT == nullptr || shape.width == 1) return;
  const int state_threads =
      shape.state_rows() * shape.channels < Conv1dTiles::kSerial ? 1 : threads;
  parallel_for(state_threads, shape.state_rows(),
               [&](int64_t r) { write_final_state(shape, args, r); });
}

// ds0 = gsT for sequences without tokens, which no item visits.
template <class T>
void empty_state_gradients(const Conv1dShape& shape, const Conv1dBackward<T>& args) {
  const int64_t count = (shape.width - 1) * shape.channels;
  for (int64_t r = 0; r < shape.state_rows(); ++r) {
    const bool empty =
        shape.packed() ? args.in.cu_seqlens[r] == args.in.cu_seqlens[r + 1] : shape.len == 0;
    if (!empty) continue;
    T* to = args.ds0 + r * count;
    if (args.gsT != nullptr) {
      std::copy(args.gsT + r * count, args.gsT + (r + 1) * count, to);
    } else {
      std::fill(to, to + count, T{});
    }
  }
}

template <bool kUnit, class T>
void backward_all(const Conv1dShape& shape, const Conv1dBackward<T>& args, Exec exec) {
  using Acc = accumulate_t<T>;
  const Conv1dTiles tiles(shape);
  const int threads = Conv1dTiles::threads(shape, exec.threads);
  Acc* partials =
      exec.carve<Acc>(shape.batch * tiles.time_tiles * (shape.width + 1) * tiles.padded);
  parallel_for(threads, tiles.items(shape), [&](int64_t index) {
    with_work<Acc>(shape, tiles, exec.scratch, index, [&](Acc* work) {
      backward_item<kUnit>(shape, args, tiles, index, work, partials);
    });
  });
  if (args.ds0 != nullptr) empty_state_gradients(shape, args);
  if (args.dw == nullptr && args.dbias == nullptr) return;
  parallel_for(threads, tiles.channel_tiles, [&](int64_t channel_tile) {
    reduce_taps(shape, tiles, partials, channel_tile, args.dw, args.dbias);
  });
}

#define ADDER_CONV1D_TARGET(T, suffix)                                                      \
  void tiled_forward_##suffix(const Conv1dShape& s, const Conv1dForward<T>& a, Exec e) {    \
    forward_all<true>(s, a, e);                                                             \
  }                                                                                         \
  void direct_forward_##suffix(const Conv1dShape& s, const Conv1dForward<T>& a, Exec e) {   \
    forward_all<false>(s, a, e);                                                            \
  }                                                                                         \
  void tiled_backward_##suffix(const Conv1dShape& s, const Conv1dBackward<T>& a, Exec e) {  \
    backward_all<true>(s, a, e);                                                            \
  }                                                                                         \
  void direct_backward_##suffix(const Conv1dShape& s, const Conv1dBackward<T>& a, Exec e) { \
    backward_all<false>(s, a, e);                                                           \
  }
ADDER_CONV1D_TARGET(double, f64)
ADDER_CONV1D_TARGET(float, f32)
ADDER_CONV1D_TARGET(Bf16, bf16)
#undef ADDER_CONV1D_TARGET

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

#define ADDER_CONV1D_LINE(line, T, suffix)                                                  \
  HWY_EXPORT(line##_forward_##suffix);                                                      \
  HWY_EXPORT(line##_backward_##suffix);                                                     \
  void conv1d_##line##_forward(const Conv1dShape& s, const Conv1dForward<T>& a, Exec e) {   \
    HWY_DYNAMIC_DISPATCH(line##_forward_##suffix)(s, a, e);                                 \
  }                                                                                         \
  void conv1d_##line##_backward(const Conv1dShape& s, const Conv1dBackward<T>& a, Exec e) { \
    HWY_DYNAMIC_DISPATCH(line##_backward_##suffix)(s, a, e);                                \
  }
ADDER_CONV1D_LINE(tiled, double, f64)
ADDER_CONV1D_LINE(tiled, float, f32)
ADDER_CONV1D_LINE(tiled, Bf16, bf16)
ADDER_CONV1D_LINE(direct, double, f64)
ADDER_CONV1D_LINE(direct, float, f32)
ADDER_CONV1D_LINE(direct, Bf16, bf16)
#undef ADDER_CONV1D_LINE

}  // namespace adder
#endif
