// RMSNorm and LayerNorm fused with the residual add (math.md 6.1 - 6.3). A row is staged once in
// accumulate_t<T> in a buffer that stays in cache; statistics take two passes over it.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/norm/norm_simd.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/norm/norm_words-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

// The value that storing to R and loading back gives.
template <class R, class D>
HWY_INLINE V<D> rounded(D d, V<D> value) {
  if constexpr (std::is_same_v<R, Bf16>) {
    const hn::RebindToUnsigned<D> du;
    const auto bits = hn::BitCast(du, value);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    const auto up = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7FFFu)));
    const auto near = hn::BitCast(d, hn::And(up, hn::Set(du, 0xFFFF0000u)));
    return hn::IfThenElse(hn::IsNaN(value), value, near);
  } else {
    return value;
  }
}

// v = r = residual_in + x as the residual stores it; residual_out = r.
template <class T, class R>
HWY_NOINLINE void stage_residual(const NormShape& shape, const NormForward<T, R>& args, int64_t row,
                                 accumulate_t<T>* v) {
  const Words<accumulate_t<T>> d;
  const auto width = static_cast<size_t>(shape.width);
  const size_t lanes = hn::Lanes(d);
  const T* x = args.x != nullptr ? args.x + row * args.x_stride : nullptr;
  const R* in = args.residual_in != nullptr ? args.residual_in + row * shape.width : nullptr;
  R* out = args.residual_out != nullptr ? args.residual_out + row * shape.width : nullptr;
  for (size_t i = 0; i < width; i += lanes) {
    const size_t n = std::min(lanes, width - i);
    auto r = in != nullptr ? load_n(d, in + i, n) : hn::Zero(d);
    if (x != nullptr) {
      const auto added = load_n(d, x + i, n);
      r = in != nullptr ? hn::Add(r, added) : added;
    }
    r = rounded<R>(d, r);
    if (out != nullptr) store_n(r, d, out + i, n);
    hn::StoreU(r, d, v + i);
  }
}

// v -= mean
template <class C>
HWY_NOINLINE void center(C* v, int64_t count, C mean) {
  const Words<C> d;
  const auto m = hn::Set(d, mean);
  for (int64_t i = 0; i < count; i += static_cast<int64_t>(hn::Lanes(d))) {
    hn::StoreU(hn::Sub(hn::LoadU(d, v + i), m), d, v + i);
  }
}

// y = v rstd w + b
template <class T, class R>
HWY_NOINLINE void write_normalized(const NormShape& shape, const NormForward<T, R>& args,
                                   int64_t row, const accumulate_t<T>* v, accumulate_t<T> rstd) {
  const Words<accumulate_t<T>> d;
  const auto width = static_cast<size_t>(shape.width);
  const size_t lanes = hn::Lanes(d);
  const auto scale = hn::Set(d, rstd);
  T* y = args.y + row * shape.width;
  for (size_t i = 0; i < width; i += lanes) {
    const size_t n = std::min(lanes, width - i);
    auto value = hn::Mul(hn::LoadU(d, v + i), scale);
    if (args.w != nullptr) value = hn::Mul(value, load_n(d, args.w + i, n));
    if (args.b != nullptr) value = hn::Add(value, load_n(d, args.b + i, n));
    store_n(value, d, y + i, n);
  }
}

template <class T, class R>
HWY_NOINLINE void forward_block(const NormShape& shape, const NormForward<T, R>& args,
                                int64_t first, int64_t last, accumulate_t<T>* v) {
  using Acc = accumulate_t<T>;
  const auto eps = static_cast<Acc>(shape.eps);
  for (int64_t row = first; row < last; ++row) {
    stage_residual(shape, args, row, v);
    if (shape.kind == NormKind::layer) {
      const Acc mean = mean_of(v, shape.width);
      center(v, shape.width, mean);
      if (args.mean != nullptr) args.mean[row] = mean;
    }
    const Acc rstd = reciprocal_rms(v, shape.width, eps);
    if (args.rstd != nullptr) args.rstd[row] = rstd;
    write_normalized(shape, args, row, v, rstd);
  }
}

template <class T, class R>
void forward_all(const NormShape& shape, const NormForward<T, R>& args, Exec exec) {
  using Acc = accumulate_t<T>;
  const NormBlocks cut(shape.rows, shape.width);
  Acc* buffers = exec.carve<Acc>(cut.blocks * cut.padded * NormScratch::kForward);
  const int threads = NormBlocks::threads(shape.rows, shape.width, exec.threads);
  parallel_for(threads, cut.blocks, [&](int64_t block) {
    const int64_t first = block * cut.rows;
    forward_block(shape, args, first, std::min(first + cut.rows, shape.rows),
                  buffers + block * cut.padded);
  });
}

// xh = (r - mean) rstd, p = gy w, and the partial sums dw += gy xh, db += gy.
template <class T, class R>
HWY_NOINLINE void stage_backward(const NormShape& shape, const NormBackward<T, R>& args,
                                 int64_t row, accumulate_t<T>* xh, accumulate_t<T>* p,
                                 accumulate_t<T>* dw, accumulate_t<T>* db) {
  using Acc = accumulate_t<T>;
  const Words<Acc> d;
  const auto width = static_cast<size_t>(shape.width);
  const size_t lanes = hn::Lanes(d);
  const auto scale = hn::Set(d, args.rstd[row]);
  const auto mean = hn::Set(d, shape.kind == NormKind::layer ? args.mean[row] : Acc(0));
  const R* r = args.r + row * shape.width;
  const T* gy = args.gy + row * shape.width;
  for (size_t i = 0; i < width; i += lanes) {
    const size_t n = std::min(lanes, width - i);
    const auto g = load_n(d, gy + i, n);
    const auto normalized = hn::Mul(hn::Sub(load_n(d, r + i, n), mean), scale);
    hn::StoreU(normalized, d, xh + i);
    hn::StoreU(args.w != nullptr ? hn::Mul(g, load_n(d, args.w + i, n)) : g, d, p + i);
    if (args.dw != nullptr) {
      hn::StoreU(hn::MulAdd(g, normalized, hn::LoadU(d, dw + i)), d, dw + i);
    }
    if (args.db != nullptr) hn::StoreU(hn::Add(g, hn::LoadU(d, db + i)), d, db + i);
  }
}

// g_r = rstd (p - mean(p) - xh mean(p xh)) + g_later; RMSNorm without mean(p).
template <class T, class R>
HWY_NOINLINE void write_gradient(const NormShape& shape, const NormBackward<T, R>& args,
                                 int64_t row, const accumulate_t<T>* xh, const accumulate_t<T>* p) {
  using Acc = accumulate_t<T>;
  const Words<Acc> d;
  const auto width = static_cast<size_t>(shape.width);
  const size_t lanes = hn::Lanes(d);
  const auto scale = hn::Set(d, args.rstd[row]);
  const Acc mean_p = shape.kind == NormKind::layer ? mean_of(p, shape.width) : Acc(0);
  const Acc mean_dot = scaled_dot(p, xh, shape.width, Acc(1)) / static_cast<Acc>(shape.width);
  const auto shift = hn::Set(d, mean_p);
  const auto slope = hn::Set(d, mean_dot);
  const int64_t at = row * shape.width;
  for (size_t i = 0; i < width; i += lanes) {
    const size_t n = std::min(lanes, width - i);
    auto g = hn::Sub(hn::LoadU(d, p + i), shift);
    g = hn::Mul(scale, hn::NegMulAdd(hn::LoadU(d, xh + i), slope, g));
    if (args.g_later != nullptr) g = hn::Add(g, load_n(d, args.g_later + at + i, n));
    store_n(g, d, args.dr + at + i, n);
    if (args.dx != nullptr) store_n(g, d, args.dx + at + i, n);
  }
}

template <class T, class R>
HWY_NOINLINE void backward_block(const NormShape& shape, const NormBackward<T, R>& args,
                                 int64_t first, int64_t last, int64_t padded,
                                 accumulate_t<T>* buffers, accumulate_t<T>* sums) {
  std::fill(sums, sums + NormScratch::kBackwardSums * padded, accumulate_t<T>(0));
  for (int64_t row = first; row < last; ++row) {
    stage_backward(shape, args, row, buffers, buffers + padded, sums, sums + padded);
    write_gradient(shape, args, row, buffers, buffers + padded);
  }
}

template <class T, class R>
void backward_all(const NormShape& shape, const NormBackward<T, R>& args, Exec exec) {
  using Acc = accumulate_t<T>;
  const NormBlocks cut(shape.rows, shape.width);
  const int64_t rows_stride = NormScratch::kBackwardRows * cut.padded;
  const int64_t sums_stride = NormScratch::kBackwardSums * cut.padded;
  Acc* buffers = exec.carve<Acc>(cut.blocks * rows_stride);
  Acc* sums = exec.carve<Acc>(cut.blocks * sums_stride);
  const int threads = NormBlocks::threads(shape.rows, shape.width, exec.threads);
  parallel_for(threads, cut.blocks, [&](int64_t block) {
    const int64_t first = block * cut.rows;
    backward_block(shape, args, first, std::min(first + cut.rows, shape.rows), cut.padded,
                   buffers + block * rows_stride, sums + block * sums_stride);
  });
  if (args.dw != nullptr) {
    reduce_all(threads, sums, sums_stride, cut.blocks, shape.width, args.accumulate, args.dw);
  }
  if (args.db != nullptr) {
    reduce_all(threads, sums + cut.padded, sums_stride, cut.blocks, shape.width, args.accumulate,
               args.db);
  }
}

#define ADDER_NORM_TARGET(T, R, suffix)                                                 \
  ADDER_SIMD_FUNCTION(norm_forward_##suffix, forward_all, NormShape, NormForward<T, R>) \
  ADDER_SIMD_FUNCTION(norm_backward_##suffix, backward_all, NormShape, NormBackward<T, R>)
ADDER_NORM_TARGET(double, double, f64)
ADDER_NORM_TARGET(float, float, f32)
ADDER_NORM_TARGET(Bf16, float, bf16_f32)
ADDER_NORM_TARGET(Bf16, Bf16, bf16)
#undef ADDER_NORM_TARGET

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

#define ADDER_NORM_LINE(T, R, suffix)                                                     \
  ADDER_SIMD_LINE(norm_forward_##suffix, norm_rows_forward, NormShape, NormForward<T, R>) \
  ADDER_SIMD_LINE(norm_backward_##suffix, norm_rows_backward, NormShape, NormBackward<T, R>)
ADDER_NORM_LINE(double, double, f64)
ADDER_NORM_LINE(float, float, f32)
ADDER_NORM_LINE(Bf16, float, bf16_f32)
ADDER_NORM_LINE(Bf16, Bf16, bf16)
#undef ADDER_NORM_LINE

}  // namespace adder
#endif
