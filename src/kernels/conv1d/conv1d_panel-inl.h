// A panel: the columns [token][lane] of a few neighbouring channel vectors, in cache, and the
// filter over one column. Rows of tensors are walked panel by panel, so that memory is read in
// runs of kPanel channels; columns are walked token by token, so that inputs slide through
// registers. Include in a file that foreach_target.h compiles.

#if defined(ADDER_CONV1D_PANEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_CONV1D_PANEL_INL_H_
#undef ADDER_CONV1D_PANEL_INL_H_
#else
#define ADDER_CONV1D_PANEL_INL_H_
#endif

#include <algorithm>

#include "core/simd-inl.h"
#include "kernels/conv1d/conv1d_items.h"

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

// Channels [first, first + channels) as columns of one vector, each of its own stretch of every
// array.
template <class C>
struct Panel {
  int64_t first, channels, lanes;
  C* x;                                  // inputs, with the halo of width - 1 rows in front
  C* g;                                  // pre-activations, then their gradients
  C* w;                                  // (width), one vector a tap
  C* reversed;                           // the same taps, last first
  int64_t x_stride, g_stride, w_stride;  // elements from column to column

  // Calls body(v, channel, used lanes) for every column; all but the last use every lane, which
  // the compiler can see.
  template <class Body>
  HWY_INLINE void each(const Body& body) const {
    constexpr Words<C> d;
    const auto all = static_cast<int64_t>(hn::Lanes(d));
    const int64_t full = channels / all;
    for (int64_t v = 0; v < full; ++v) body(v, first + v * all, hn::Lanes(d));
    if (full * all < channels) {
      body(full, first + full * all, static_cast<size_t>(channels - full * all));
    }
  }
};

template <class D>
HWY_INLINE Panel<hn::TFromD<D>> carve_panel(D d, const Conv1dTiles& tiles, int64_t width,
                                            hn::TFromD<D>* work) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t vectors = std::max<int64_t>(1, tiles.panel / lanes);
  Panel<hn::TFromD<D>> panel{};
  panel.lanes = lanes;
  panel.w_stride = width * lanes;
  panel.g_stride = (tiles.piece + width - 1) * lanes;
  panel.x_stride = (tiles.piece + 2 * (width - 1)) * lanes;
  panel.w = work;
  panel.reversed = panel.w + vectors * panel.w_stride;
  panel.g = panel.reversed + vectors * panel.w_stride;
  panel.x = panel.g + vectors * panel.g_stride;
  return panel;
}

// The taps of the panel's channels, both ways round; lanes without a channel are 0.
template <class D>
HWY_NOINLINE void load_taps(D d, const hn::TFromD<D>* w, int64_t width,
                            const Panel<hn::TFromD<D>>& panel) {
  const size_t lanes = hn::Lanes(d);
  const auto rows = static_cast<size_t>(width);
  panel.each([&](int64_t v, int64_t c, size_t used) HWY_ATTR {
    const auto* from = w + c * width;
    auto* forward = panel.w + v * panel.w_stride;
    auto* reversed = panel.reversed + v * panel.w_stride;
    if (rows == 4 && used == lanes) {
      V<D> taps[4];
      hn::LoadInterleaved4(d, from, taps[0], taps[1], taps[2], taps[3]);
      for (size_t k = 0; k < 4; ++k) {
        hn::StoreU(taps[k], d, forward + k * lanes);
        hn::StoreU(taps[k], d, reversed + (3 - k) * lanes);
      }
      return;
    }
    for (size_t k = 0; k < rows; ++k) {
      for (size_t i = 0; i < lanes; ++i) {
        const auto tap = i < used ? from[i * rows + k] : 0;
        forward[k * lanes + i] = tap;
        reversed[(rows - 1 - k) * lanes + i] = tap;
      }
    }
  });
}

// Rows span.first - (width - 1) .. to - 1 of the sequence, the state before its first token.
template <bool kUnit, class D, class T>
HWY_NOINLINE void gather_inputs(D d, const Conv1dShape& shape, const Conv1dInputs<T>& in,
                                const Conv1dSpan& span, int64_t to,
                                const Panel<hn::TFromD<D>>& panel) {
  const int64_t halo = shape.width - 1;
  auto* out = panel.x;
  int64_t t = span.first - halo;
  for (; t < span.begin; ++t, out += panel.lanes) {
    const int64_t state_row = state_slot(in, span.r) * halo + halo + (t - span.begin);
    panel.each([&](int64_t v, int64_t c, size_t used) HWY_ATTR {
      const auto row =
          in.s0 != nullptr ? load_n(d, in.s0 + state_row * shape.channels + c, used) : hn::Zero(d);
      hn::StoreU(row, d, out + v * panel.x_stride);
    });
  }
  const int64_t stride = in.x.channel_stride;
  for (; t < to; ++t, out += panel.lanes) {
    const T* from = token_row(in.x, in.order, span.b, t);
    panel.each([&](int64_t v, int64_t c, size_t used) HWY_ATTR {
      hn::StoreU(load_channels<kUnit>(d, from + c * stride, stride, used), d,
                 out + v * panel.x_stride);
    });
  }
}

// One block of 4 taps: out_t = (kFirst ? start : out_t) + sum_j w_j x_{t+j}, j ascending. out may
// be x.
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

// g = bias + the filter over x, `count` rows.
template <class D, class C>
HWY_NOINLINE void filter_panel(D d, int64_t width, const C* bias, const Panel<C>& panel,
                               int64_t count) {
  panel.each([&](int64_t v, int64_t c, size_t used) HWY_ATTR {
    const auto start = bias != nullptr ? load_n(d, bias + c, used) : hn::Zero(d);
    filter_column(d, width, panel.w + v * panel.w_stride, panel.x + v * panel.x_stride, start,
                  count, panel.g + v * panel.g_stride);
  });
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
