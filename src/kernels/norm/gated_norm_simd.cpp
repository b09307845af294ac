// Gated RMSNorm (math.md 6.4), group by group; a group is staged in accumulate_t<T> in a buffer
// that stays in cache, so that every sigmoid is computed once.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/norm/gated_norm_simd.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/norm/norm_words-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

// One group of one row: the rows' pointers moved to its first channel.
template <class T>
struct GatedGroup {
  using Acc = accumulate_t<T>;
  size_t count = 0;
  bool before_gate = false;
  const T* y = nullptr;
  const T* z = nullptr;
  const Acc* w = nullptr;
};

// v = y silu(z) (gate first) or y (norm first). The statistic is taken of v.
template <class T>
HWY_NOINLINE void stage_gated(const GatedGroup<T>& group, accumulate_t<T>* v) {
  const Words<accumulate_t<T>> d;
  const size_t lanes = hn::Lanes(d);
  for (size_t i = 0; i < group.count; i += lanes) {
    const size_t n = std::min(lanes, group.count - i);
    auto value = load_n(d, group.y + i, n);
    if (!group.before_gate) value = hn::Mul(value, silu_word(d, load_n(d, group.z + i, n)));
    hn::StoreU(value, d, v + i);
  }
}

template <class T>
HWY_NOINLINE void write_gated(const GatedGroup<T>& group, const accumulate_t<T>* v,
                              accumulate_t<T> rstd, T* out) {
  const Words<accumulate_t<T>> d;
  const size_t lanes = hn::Lanes(d);
  const auto scale = hn::Set(d, rstd);
  for (size_t i = 0; i < group.count; i += lanes) {
    const size_t n = std::min(lanes, group.count - i);
    auto value = hn::Mul(hn::Mul(hn::LoadU(d, v + i), scale), load_n(d, group.w + i, n));
    if (group.before_gate) value = hn::Mul(value, silu_word(d, load_n(d, group.z + i, n)));
    store_n(value, d, out + i, n);
  }
}

template <class T>
HWY_NOINLINE void gated_forward_block(const GatedNormShape& shape, const GatedNormForward<T>& args,
                                      int64_t first, int64_t last, accumulate_t<T>* v) {
  using Acc = accumulate_t<T>;
  const int64_t width = shape.group_width();
  const int64_t groups = shape.width / width;
  for (int64_t row = first; row < last; ++row) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t c = g * width;
      const GatedGroup<T> group{static_cast<size_t>(width), shape.norm_before_gate,
                                args.y + row * args.y_stride + c, args.z + row * args.z_stride + c,
                                args.w + c};
      stage_gated(group, v);
      const Acc rstd = reciprocal_rms(v, width, static_cast<Acc>(shape.eps));
      if (args.rstd != nullptr) args.rstd[row * groups + g] = rstd;
      write_gated(group, v, rstd, args.out + row * args.out_stride + c);
    }
  }
}

template <class T>
void gated_forward_all(const GatedNormShape& shape, const GatedNormForward<T>& args, Exec exec) {
  using Acc = accumulate_t<T>;
  const NormBlocks cut(shape.rows, shape.width);
  Acc* buffers = exec.carve<Acc>(cut.blocks * cut.padded * NormScratch::kGatedForward);
  const int threads = NormBlocks::threads(shape.rows, shape.width, exec.threads);
  parallel_for(threads, cut.blocks, [&](int64_t block) {
    const int64_t first = block * cut.rows;
    gated_forward_block(shape, args, first, std::min(first + cut.rows, shape.rows),
                        buffers + block * cut.padded);
  });
}

template <class C>
struct GatedBuffers {
  C* gate;   // silu(z)
  C* slope;  // silu'(z)
  C* xh;     // the normalized values
  C* p;      // the gradient of xh
};

// gate first: xh = y silu(z) rstd, p = gout w; norm first: xh = y rstd, p = gout silu(z) w.
// dw += (the gradient of xh w) xh.
template <class T>
HWY_NOINLINE void stage_gated_backward(const GatedGroup<T>& group, const T* gout,
                                       accumulate_t<T> rstd,
                                       const GatedBuffers<accumulate_t<T>>& to,
                                       accumulate_t<T>* dw) {
  const Words<accumulate_t<T>> d;
  const size_t lanes = hn::Lanes(d);
  const auto one = hn::Set(d, accumulate_t<T>(1));
  const auto scale = hn::Set(d, rstd);
  for (size_t i = 0; i < group.count; i += lanes) {
    const size_t n = std::min(lanes, group.count - i);
    const auto z = load_n(d, group.z + i, n);
    const auto parts = sigmoid_parts(d, z);
    const auto sigmoid_times = [&](V<Words<accumulate_t<T>>> factor) HWY_ATTR {
      return hn::Mul(hn::Mul(hn::Mul(factor, parts.root), parts.rest), parts.root);
    };
    const auto gate = sigmoid_times(z);
    auto u = load_n(d, group.y + i, n);
    auto g = load_n(d, gout + i, n);
    if (group.before_gate) {
      g = hn::Mul(g, gate);
    } else {
      u = hn::Mul(u, gate);
    }
    const auto xh = hn::Mul(u, scale);
    hn::StoreU(gate, d, to.gate + i);
    hn::StoreU(sigmoid_times(hn::MulAdd(z, parts.other, one)), d, to.slope + i);
    hn::StoreU(xh, d, to.xh + i);
    hn::StoreU(hn::Mul(g, load_n(d, group.w + i, n)), d, to.p + i);
    if (dw != nullptr) {
      store_n(hn::MulAdd(g, xh, load_n(d, dw + i, n)), d, dw + i, n);
    }
  }
}

// du = rstd (p - xh mean(p xh)); gate first: dy = du silu(z), dz = du y silu'(z); norm first:
// dy = du, dz = gout xh w silu'(z).
template <class T>
HWY_NOINLINE void write_gated_gradient(const GatedGroup<T>& group, const T* gout,
                                       accumulate_t<T> rstd,
                                       const GatedBuffers<accumulate_t<T>>& from, T* dy, T* dz) {
  using Acc = accumulate_t<T>;
  const Words<Acc> d;
  const size_t lanes = hn::Lanes(d);
  const auto count = static_cast<int64_t>(group.count);
  const auto scale = hn::Set(d, rstd);
  const auto slope =
      hn::Set(d, scaled_dot(from.p, from.xh, count, Acc(1)) / static_cast<Acc>(count));
  for (size_t i = 0; i < group.count; i += lanes) {
    const size_t n = std::min(lanes, group.count - i);
    const auto gate_slope = hn::LoadU(d, from.slope + i);
    const auto xh = hn::LoadU(d, from.xh + i);
    const auto du = hn::Mul(scale, hn::NegMulAdd(xh, slope, hn::LoadU(d, from.p + i)));
    if (group.before_gate) {
      const auto normalized = hn::Mul(xh, load_n(d, group.w + i, n));
      const auto g = hn::Mul(load_n(d, gout + i, n), normalized);
      store_n(du, d, dy + i, n);
      store_n(hn::Mul(g, gate_slope), d, dz + i, n);
    } else {
      const auto y = load_n(d, group.y + i, n);
      store_n(hn::Mul(du, hn::LoadU(d, from.gate + i)), d, dy + i, n);
      store_n(hn::Mul(hn::Mul(du, y), gate_slope), d, dz + i, n);
    }
  }
}

template <class T>
HWY_NOINLINE void gated_backward_block(const GatedNormShape& shape,
                                       const GatedNormBackward<T>& args, int64_t first,
                                       int64_t last, const GatedBuffers<accumulate_t<T>>& buffers,
                                       accumulate_t<T>* dw) {
  const int64_t width = shape.group_width();
  const int64_t groups = shape.width / width;
  if (dw != nullptr) std::fill(dw, dw + shape.width, accumulate_t<T>(0));
  for (int64_t row = first; row < last; ++row) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t c = g * width;
      const GatedGroup<T> group{static_cast<size_t>(width), shape.norm_before_gate,
                                args.y + row * args.y_stride + c, args.z + row * args.z_stride + c,
                                args.w + c};
      const T* gout = args.gout + row * args.gout_stride + c;
      const accumulate_t<T> rstd = args.rstd[row * groups + g];
      stage_gated_backward(group, gout, rstd, buffers, dw != nullptr ? dw + c : nullptr);
      write_gated_gradient(group, gout, rstd, buffers, args.dy + row * args.dy_stride + c,
                           args.dz + row * args.dz_stride + c);
    }
  }
}

template <class T>
void gated_backward_all(const GatedNormShape& shape, const GatedNormBackward<T>& args, Exec exec) {
  using Acc = accumulate_t<T>;
  const NormBlocks cut(shape.rows, shape.width);
  const int64_t stride = NormScratch::kGatedBackwardRows * cut.padded;
  Acc* buffers = exec.carve<Acc>(cut.blocks * stride);
  Acc* sums = exec.carve<Acc>(cut.blocks * NormScratch::kGatedBackwardSums * cut.padded);
  const int threads = NormBlocks::threads(shape.rows, shape.width, exec.threads);
  parallel_for(threads, cut.blocks, [&](int64_t block) {
    const int64_t first = block * cut.rows;
    Acc* row = buffers + block * stride;
    gated_backward_block(shape, args, first, std::min(first + cut.rows, shape.rows),
                         {row, row + cut.padded, row + 2 * cut.padded, row + 3 * cut.padded},
                         args.dw != nullptr ? sums + block * cut.padded : nullptr);
  });
  if (args.dw != nullptr) {
    reduce_all(threads, sums, cut.padded, cut.blocks, shape.width, args.accumulate, args.dw);
  }
}

ADDER_SIMD_FUNCTIONS(gated_norm_forward, GatedNormShape, GatedNormForward, gated_forward_all)
ADDER_SIMD_FUNCTIONS(gated_norm_backward, GatedNormShape, GatedNormBackward, gated_backward_all)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

ADDER_SIMD_DISPATCH(gated_norm_forward, GatedNormShape, GatedNormForward, gated_norm_rows_forward)
ADDER_SIMD_DISPATCH(gated_norm_backward, GatedNormShape, GatedNormBackward,
                    gated_norm_rows_backward)

}  // namespace adder
#endif
