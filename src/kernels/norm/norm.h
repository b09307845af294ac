// Kernel family `norm`: RMSNorm and LayerNorm fused with the residual add (math.md 6.1 - 6.3), and
// the gated RMSNorm of Mamba-2 and Mamba-3 (6.4). Statistics in accumulate_t<T>. Thread-safe.
//
// norm.h, .cpp           doors and tables
// norm_lines.h           how rows are cut into blocks
// norm_words-inl.h       sums over a row, sums of partial rows
// norm_simd.cpp          RMSNorm and LayerNorm
// gated_norm_simd.cpp    the gated norm
//
// T: storage type of activations; R: of the residual stream. Instantiated for <double, double>,
// <float, float>, <Bf16, float> (residual in fp32) and <Bf16, Bf16>.
#pragma once

#include <cstdint>
#include <string>

#include "core/kernel_table.h"

namespace adder {

enum class NormKind : uint8_t { rms, layer };

struct NormShape {
  int64_t rows = 0;
  int64_t width = 0;
  NormKind kind = NormKind::rms;
  double eps = 1e-5;

  void check() const;
  Cost cost(Direction direction, Dtype dtype) const;
  std::string describe() const;
};

/// r = residual_in + x;  y = norm(r) * w + b.
template <class T, class R>
struct NormForward {
  using Acc = accumulate_t<T>;
  const T* x = nullptr;            // (rows, width), or absent: r = residual_in
  int64_t x_stride = 0;            // elements between rows
  const R* residual_in = nullptr;  // (rows, width) dense, or absent: r = x
  const Acc* w = nullptr;          // (width), or absent: 1
  const Acc* b = nullptr;          // (width), or absent: 0
  T* y = nullptr;                  // (rows, width) dense
  R* residual_out = nullptr;       // (rows, width) dense, may be residual_in; absent: not written
  Acc* rstd = nullptr;             // (rows), kept for backward; absent: not written
  Acc* mean = nullptr;             // (rows), LayerNorm only; absent: not written
};

/// g_r = d norm(gy) + g_later: the gradient of both residual_in and x.
template <class T, class R>
struct NormBackward {
  using Acc = accumulate_t<T>;
  const R* r = nullptr;        // (rows, width): residual_out of forward
  const Acc* rstd = nullptr;   // (rows)
  const Acc* mean = nullptr;   // (rows), LayerNorm only
  const Acc* w = nullptr;      // (width) or absent: 1
  const T* gy = nullptr;       // (rows, width) dense
  const R* g_later = nullptr;  // (rows, width) or absent: 0; may be dr
  R* dr = nullptr;             // (rows, width), written
  T* dx = nullptr;             // (rows, width), the same rounded to T; absent: not written
  Acc* dw = nullptr;           // (width); may be absent
  Acc* db = nullptr;           // (width); may be absent
  bool accumulate = false;     // dw and db are added to instead of written
};

template <class T, class R>
using NormLine = Line<NormShape, TwoWay<NormShape, NormForward<T, R>, NormBackward<T, R>>>;
template <class T, class R>
std::span<const NormLine<T, R>> norm_lines();
template <class T, class R>
void norm_forward(Context& context, const NormShape& shape, const NormForward<T, R>& args,
                  const Choice& choice = {});
template <class T, class R>
void norm_backward(Context& context, const NormShape& shape, const NormBackward<T, R>& args,
                   const Choice& choice = {});

/// Gated RMSNorm over groups of `group` channels.
struct GatedNormShape {
  int64_t rows = 0;
  int64_t width = 0;
  int64_t group = 0;              // channels that share one statistic; 0: all of width
  bool norm_before_gate = false;  // false: rms(y silu(z)) w;  true: rms(y) w silu(z)
  double eps = 1e-5;

  int64_t group_width() const { return group == 0 ? width : group; }
  void check() const;  // width % group_width() == 0
  Cost cost(Direction direction, Dtype dtype) const;
  std::string describe() const;
};

template <class T>
struct GatedNormForward {
  using Acc = accumulate_t<T>;
  const T* y = nullptr;  // (rows, width), row stride y_stride
  int64_t y_stride = 0;
  const T* z = nullptr;  // (rows, width), row stride z_stride
  int64_t z_stride = 0;
  const Acc* w = nullptr;  // (width)
  T* out = nullptr;        // (rows, width), row stride out_stride
  int64_t out_stride = 0;
  Acc* rstd = nullptr;  // (rows, width / group), kept for backward; absent: not written
};

template <class T>
struct GatedNormBackward {
  using Acc = accumulate_t<T>;
  const T* y = nullptr;
  int64_t y_stride = 0;
  const T* z = nullptr;
  int64_t z_stride = 0;
  const Acc* w = nullptr;
  const Acc* rstd = nullptr;
  const T* gout = nullptr;  // (rows, width), row stride gout_stride
  int64_t gout_stride = 0;
  T* dy = nullptr;  // (rows, width), row stride dy_stride, written
  int64_t dy_stride = 0;
  T* dz = nullptr;  // (rows, width), row stride dz_stride, written
  int64_t dz_stride = 0;
  Acc* dw = nullptr;        // (width); may be absent
  bool accumulate = false;  // dw is added to instead of written
};

template <class T>
using GatedNormLine =
    Line<GatedNormShape, TwoWay<GatedNormShape, GatedNormForward<T>, GatedNormBackward<T>>>;
template <class T>
std::span<const GatedNormLine<T>> gated_norm_lines();
template <class T>
void gated_norm_forward(Context& context, const GatedNormShape& shape,
                        const GatedNormForward<T>& args, const Choice& choice = {});
template <class T>
void gated_norm_backward(Context& context, const GatedNormShape& shape,
                         const GatedNormBackward<T>& args, const Choice& choice = {});

}  // namespace adder
