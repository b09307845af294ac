// Both lines of the conv1d table (math.md section 2). An item walks panels of channels and pieces
// of tokens: inputs are gathered into the panel's columns (which also settles states, sequence
// boundaries, token order, strides and bf16) and the filter runs over each column. Sums over
// tokens: per item, then over items in index order.
#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv1d/conv1d_simd.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/threads.h"
#include "kernels/conv1d/conv1d_panel-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

// Calls body(panel) for every panel of the item's channels, with its taps loaded.
template <class D, class Body>
HWY_INLINE void each_panel(D d, const Conv1dTiles& tiles, const Conv1dItem& item,
                           const hn::TFromD<D>* w, int64_t width, hn::TFromD<D>* work,
                           const Body& body) {
  auto panel = carve_panel(d, tiles, width, work);
  const int64_t channels = std::max(panel.lanes, tiles.panel);
  for (int64_t c = item.channel; c < item.channel_end; c += channels) {
    panel.first = c;
    panel.channels = std::min(channels, item.channel_end - c);
    load_taps(d, w, width, panel);
    body(panel);
  }
}

// y_t = act(a_t) for the tokens of the span.
template <bool kUnit, class D, class T>
HWY_NOINLINE void write_outputs(D d, const Conv1dShape& shape, const Conv1dForward<T>& args,
                                const Conv1dSpan& span, const Panel<hn::TFromD<D>>& panel) {
  const int64_t stride = args.y.channel_stride;
  const auto* a = panel.g;
  for (int64_t t = span.first; t < span.last; ++t, a += panel.lanes) {
    T* row = token_row(args.y, args.in.order, span.b, t);
    panel.each([&](int64_t v, int64_t c, size_t used) HWY_ATTR {
      const auto sum = hn::LoadU(d, a + v * panel.g_stride);
      const auto y = shape.silu ? silu_word(d, sum) : sum;
      store_channels<kUnit>(y, d, row + c * stride, stride, used);
    });
  }
}

template <bool kUnit, class T>
HWY_NOINLINE void forward_item(const Conv1dShape& shape, const Conv1dForward<T>& args,
                               const Conv1dTiles& tiles, int64_t index, accumulate_t<T>* work) {
  using Acc = accumulate_t<T>;
  const Words<Acc> d;
  const Conv1dItem item(shape, tiles, index);
  each_panel(d, tiles, item, args.in.w, shape.width, work, [&](const Panel<Acc>& panel) HWY_ATTR {
    visit_spans(shape, args.in.cu_seqlens, item, tiles.piece, [&](const Conv1dSpan& span) HWY_ATTR {
      gather_inputs<kUnit>(d, shape, args.in, span, span.last, panel);
      filter_panel(d, shape.width, args.in.bias, panel, span.tokens());
      write_outputs<kUnit>(d, shape, args, span, panel);
    });
  });
}

// g: a_t -> ga_t = gy_t act'(a_t) for tokens [span.first, to), then 0 up to width - 1 tokens past
// the span.
template <bool kUnit, class D, class T>
HWY_NOINLINE void activation_gradient(D d, const Conv1dShape& shape, const Conv1dBackward<T>& args,
                                      const Conv1dSpan& span, int64_t to,
                                      const Panel<hn::TFromD<D>>& panel) {
  const int64_t stride = args.gy.channel_stride;
  auto* g = panel.g;
  int64_t t = span.first;
  for (; t < to; ++t, g += panel.lanes) {
    const T* row = token_row(args.gy, args.in.order, span.b, t);
    panel.each([&](int64_t v, int64_t c, size_t used) HWY_ATTR {
      auto* at = g + v * panel.g_stride;
      const auto gy = load_channels<kUnit>(d, row + c * stride, stride, used);
      const auto ga = shape.silu ? hn::Mul(gy, silu_slope_word(d, hn::LoadU(d, at))) : gy;
      hn::StoreU(ga, d, at);
    });
  }
  for (; t < span.last + shape.width - 1; ++t, g += panel.lanes) {
    panel.each([&](int64_t v, int64_t, size_t)
                   HWY_ATTR { hn::StoreU(hn::Zero(d), d, g + v * panel.g_stride); });
  }
}

// Adds sum_t ga_t x_{t+k} to row k of the partials, and sum_t ga_t to row `width`: one column.
template <class D, class C>
HWY_NOINLINE void accumulate_taps(D d, int64_t width, int64_t count, const C* g, const C* inputs,
                                  int64_t padded, C* partial) {
  const size_t lanes = hn::Lanes(d);
  const size_t end = static_cast<size_t>(count) * lanes;
  int64_t k = 0;
  for (; k + 4 <= width; k += 4) {
    const C* x = inputs + static_cast<size_t>(k) * lanes;
    C* to = partial + k * padded;
    auto sum0 = hn::LoadU(d, to), sum1 = hn::LoadU(d, to + padded);
    auto sum2 = hn::LoadU(d, to + 2 * padded), sum3 = hn::LoadU(d, to + 3 * padded);
    for (size_t i = 0; i < end; i += lanes) {
      const auto ga = hn::LoadU(d, g + i);
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
    const C* x = inputs + static_cast<size_t>(k) * lanes;
    C* to = partial + k * padded;
    auto sum = hn::LoadU(d, to);
    for (size_t i = 0; i < end; i += lanes) {
      const auto ga = hn::LoadU(d, g + i);
      sum = k < width ? hn::MulAdd(ga, hn::LoadU(d, x + i), sum) : hn::Add(sum, ga);
    }
    hn::StoreU(sum, d, to);
  }
}

// dx_t = sum_k w_k ga_{t+(width-1)-k} + the part of gsT that lands on x. Overwrites panel.x.
template <bool kUnit, class D, class T>
HWY_NOINLINE void input_gradient(D d, const Conv1dShape& shape, const Conv1dBackward<T>& args,
                                 const Conv1dSpan& span, const Panel<hn::TFromD<D>>& panel) {
  const int64_t halo = shape.width - 1;
  panel.each([&](int64_t v, int64_t, size_t) HWY_ATTR {
    filter_column(d, shape.width, panel.reversed + v * panel.w_stride, panel.g + v * panel.g_stride,
                  hn::Zero(d), span.tokens(), panel.x + v * panel.x_stride);
  });
  const int64_t stride = args.dx.channel_stride;
  const auto* from = panel.x;
  for (int64_t t = span.first; t < span.last; ++t, from += panel.lanes) {
    const int64_t j = t - (span.end - halo);
    const bool later = args.gsT != nullptr && j >= 0;
    const T* state = later ? args.gsT + (span.r * halo + j) * shape.channels : nullptr;
    T* row = token_row(args.dx, args.in.order, span.b, t);
    panel.each([&](int64_t v, int64_t c, size_t used) HWY_ATTR {
      auto sum = hn::LoadU(d, from + v * panel.x_stride);
      if (later) sum = hn::Add(sum, load_n(d, state + c, used));
      store_channels<kUnit>(sum, d, row + c * stride, stride, used);
    });
  }
}

// ds0_i = sum_{t <= min(i, tokens - 1)} w_{i-t} ga_t + the part of gsT that passes through: the
// span starts its sequence, and panel.g holds the width - 1 tokens that reach the state.
template <class D, class T>
HWY_NOINLINE void state_gradient(D d, const Conv1dShape& shape, const Conv1dBackward<T>& args,
                                 const Conv1dSpan& span, const Panel<hn::TFromD<D>>& panel) {
  const int64_t halo = shape.width - 1;
  const int64_t count = span.end - span.begin;
  panel.each([&](int64_t v, int64_t c, size_t used) HWY_ATTR {
    const auto* w = panel.w + v * panel.w_stride;
    const auto* g = panel.g + v * panel.g_stride;
    for (int64_t i = 0; i < halo; ++i) {
      auto sum = hn::Zero(d);
      for (int64_t t = 0; t <= std::min(i, count - 1); ++t) {
        sum = hn::MulAdd(hn::LoadU(d, w + (i - t) * panel.lanes), hn::LoadU(d, g + t * panel.lanes),
                         sum);
      }
      if (args.gsT != nullptr && i >= count) {
        const T* later = args.gsT + (span.r * halo + i - count) * shape.channels + c;
        sum = hn::Add(sum, load_n(d, later, used));
      }
      store_n(sum, d, args.ds0 + (span.r * halo + i) * shape.channels + c, used);
    }
  });
}

template <bool kUnit, class T>
HWY_NOINLINE void backward_span(const Conv1dShape& shape, const Conv1dBackward<T>& args,
                                const Conv1dSpan& span, int64_t padded,
                                const Panel<accumulate_t<T>>& panel, accumulate_t<T>* partial) {
  const Words<accumulate_t<T>> d;
  // Gradients reach width - 1 tokens back, so the tokens after the span are recomputed.
  const int64_t to = std::min(span.last + shape.width - 1, span.end);
  gather_inputs<kUnit>(d, shape, args.in, span, to, panel);
  if (shape.silu) filter_panel(d, shape.width, args.in.bias, panel, to - span.first);
  activation_gradient<kUnit>(d, shape, args, span, to, panel);
  panel.each([&](int64_t v, int64_t c, size_t) HWY_ATTR {
    accumulate_taps(d, shape.width, span.tokens(), panel.g + v * panel.g_stride,
                    panel.x + v * panel.x_stride, padded, partial + c);
  });
  if (args.ds0 != nullptr && span.first == span.begin) {
    state_gradient(d, shape, args, span, panel);
  }
  input_gradient<kUnit>(d, shape, args, span, panel);
}

template <bool kUnit, class T>
HWY_NOINLINE void backward_item(const Conv1dShape& shape, const Conv1dBackward<T>& args,
                                const Conv1dTiles& tiles, int64_t index, accumulate_t<T>* work,
                                accumulate_t<T>* partials) {
  using Acc = accumulate_t<T>;
  const Conv1dItem item(shape, tiles, index);
  Acc* partial = partials + item.time_tile * (shape.width + 1) * tiles.padded;
  const int64_t padded_end = (item.channel_end + 15) / 16 * 16;
  for (int64_t k = 0; k <= shape.width; ++k) {
    std::fill(partial + k * tiles.padded + item.channel, partial + k * tiles.padded + padded_end,
              Acc(0));
  }
  each_panel(Words<Acc>(), tiles, item, args.in.w, shape.width, work,
             [&](const Panel<Acc>& panel) HWY_ATTR {
               visit_spans(shape, args.in.cu_seqlens, item, tiles.piece,
                           [&](const Conv1dSpan& span) HWY_ATTR {
                             backward_span<kUnit>(shape, args, span, tiles.padded, panel, partial);
                           });
             });
}

// dw, dbias (+)= the partials of all time tiles, added in index order, for one channel tile.
template <class T>
HWY_NOINLINE void reduce_taps(const Conv1dShape& shape, const Conv1dBackward<T>& args,
                              const Conv1dTiles& tiles, const accumulate_t<T>* partials,
                              int64_t channel_tile) {
  using C = accumulate_t<T>;
  const Words<C> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t first = channel_tile * Conv1dTiles::kChannels;
  const int64_t last = std::min(first + Conv1dTiles::kChannels, shape.channels);
  const int64_t stride = (shape.width + 1) * tiles.padded;
  for (int64_t k = args.dw != nullptr ? 0 : shape.width; k <= shape.width; ++k) {
    if (k == shape.width && args.dbias == nullptr) break;
    for (int64_t c = first; c < last; c += lanes) {
      auto sum = hn::Zero(d);
      const C* from = partials + k * tiles.padded + c;
      for (int64_t i = 0; i < shape.batch * tiles.time_tiles; ++i) {
        sum = hn::Add(sum, hn::LoadU(d, from + i * stride));
      }
      const int64_t n = std::min(lanes, last - c);
      if (k == shape.width) {
        C* to = args.dbias + c;
        const auto used = static_cast<size_t>(n);
        if (args.accumulate) sum = hn::Add(load_n(d, to, used), sum);
        store_n(sum, d, to, used);
        continue;
      }
      HWY_ALIGN C values[HWY_MAX_BYTES / sizeof(C)];
      hn::StoreU(sum, d, values);
      for (int64_t i = 0; i < n; ++i) {
        C& to = args.dw[(c + i) * shape.width + k];
        to = args.accumulate ? to + values[i] : values[i];
      }
    }
  }
}

// The work arrays of one item: on the stack, or its own block of scratch for wide filters.
template <class C, class Body>
void with_work(const Conv1dShape& shape, const Conv1dTiles& tiles, std::byte* wide, int64_t index,
               const Body& body) {
  constexpr int64_t kRows = Conv1dTiles::work_rows(Conv1dTiles::kPiece, Conv1dTiles::kStackWidth);
  if (shape.width <= Conv1dTiles::kStackWidth) {
    HWY_ALIGN C work[kRows * Conv1dTiles::kPanel];
    body(work);
  } else {
    const int64_t rows = Conv1dTiles::work_rows(tiles.piece, shape.width);
    body(reinterpret_cast<C*>(wide + index * rows * Conv1dTiles::kRowBytes));
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
    reduce_taps(shape, args, tiles, partials, channel_tile);
  });
}

ADDER_SIMD_FUNCTIONS(tiled_forward, Conv1dShape, Conv1dForward, forward_all<true>)
ADDER_SIMD_FUNCTIONS(tiled_backward, Conv1dShape, Conv1dBackward, backward_all<true>)
ADDER_SIMD_FUNCTIONS(direct_forward, Conv1dShape, Conv1dForward, forward_all<false>)
ADDER_SIMD_FUNCTIONS(direct_backward, Conv1dShape, Conv1dBackward, backward_all<false>)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

ADDER_SIMD_DISPATCH(tiled_forward, Conv1dShape, Conv1dForward, conv1d_tiled_forward)
ADDER_SIMD_DISPATCH(tiled_backward, Conv1dShape, Conv1dBackward, conv1d_tiled_backward)
ADDER_SIMD_DISPATCH(direct_forward, Conv1dShape, Conv1dForward, conv1d_direct_forward)
ADDER_SIMD_DISPATCH(direct_backward, Conv1dShape, Conv1dBackward, conv1d_direct_backward)

}  // namespace adder
#endif
