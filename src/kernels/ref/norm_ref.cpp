#include "kernels/ref/norm_ref.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

namespace adder::ref {
namespace {

template <class Acc>
using Row = std::vector<Acc>;

// Sums of the double reference, which is the truth for the double kernels too, are wider still.
template <class Acc>
using Sum = std::conditional_t<std::is_same_v<Acc, double>, long double, Acc>;

template <class Acc>
Acc sigmoid(Acc x) {
  const Acc e = std::exp(-std::abs(x));
  return (x < 0 ? e : Acc(1)) / (1 + e);
}

// Relative condition of sigmoid(x): its exponential sees a rounded multiple of x.
template <class Acc>
Acc sigmoid_condition(Acc x, Acc s) {
  return 1 + std::abs(x) * (1 - s);
}

// to (+)= sum; absolute: on absolute values.
template <class Acc>
void write_sum(Acc* to, const Row<Acc>& sum, bool accumulate, bool absolute) {
  if (to == nullptr) return;
  for (size_t i = 0; i < sum.size(); ++i) {
    const Acc before = accumulate ? to[i] : Acc(0);
    to[i] = (absolute ? std::abs(before) : before) + sum[i];
  }
}

template <class Acc>
Acc mean_product(const Row<Acc>& a, const Row<Acc>& b) {
  Sum<Acc> sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return static_cast<Acc>(sum / static_cast<Acc>(a.size()));
}

// 1 / sqrt(mean(v^2) + eps), also where the mean square itself does not fit.
template <class Acc>
Acc reciprocal_rms(const Row<Acc>& v, Acc eps) {
  Acc largest = 0;
  for (const Acc value : v) largest = std::max(largest, std::abs(value));
  const Acc scale = largest > 1 ? std::ldexp(Acc(1), -std::ilogb(largest)) : Acc(1);
  Sum<Acc> sum = 0;
  for (const Acc value : v) sum += value * scale * (value * scale);
  const auto mean_square = static_cast<Acc>(sum / static_cast<Acc>(v.size()));
  return scale / std::sqrt(mean_square + eps * scale * scale);
}

template <class Acc>
Acc mean(const Row<Acc>& v) {
  Sum<Acc> sum = 0;
  for (const Acc value : v) sum += value / static_cast<Sum<Acc>>(v.size());
  return static_cast<Acc>(sum);
}

// What the errors of v, bounded by u * size, do to rstd, relative to u rstd: the rounding of rstd
// itself and rstd^2 mean(|v| size).
template <class Acc>
Acc statistic_condition(const Row<Acc>& v, const Row<Acc>& size, Acc rstd) {
  Acc sum = 0;
  for (size_t i = 0; i < v.size(); ++i) sum += std::abs(v[i] * rstd) * (size[i] * rstd);
  return 1 + sum / static_cast<Acc>(v.size());
}

template <class T, class R>
void forward_row(const NormShape& shape, const NormForward<T, R>& args, int64_t row,
                 bool absolute) {
  using Acc = accumulate_t<T>;
  Row<Acc> v, size;  // r and its absolute counterpart
  for (int64_t i = 0; i < shape.width; ++i) {
    const Acc in = args.residual_in ? static_cast<Acc>(args.residual_in[row * shape.width + i]) : 0;
    const Acc x = args.x ? static_cast<Acc>(args.x[row * args.x_stride + i]) : 0;
    const R stored = static_cast<R>(in + x);
    v.push_back(static_cast<Acc>(stored));
    size.push_back(std::abs(in) + std::abs(x));
  }
  for (int64_t i = 0; args.residual_out && i < shape.width; ++i) {
    const auto at = static_cast<size_t>(i);
    args.residual_out[row * shape.width + i] = static_cast<R>(absolute ? size[at] : v[at]);
  }
  if (shape.kind == NormKind::layer) {
    const Acc m = mean(v);
    const Acc m_size = mean(size);
    for (auto& value : v) value -= m;
    for (auto& value : size) value += m_size;
    if (args.mean) args.mean[row] = absolute ? m_size : m;
  }
  const Acc rstd = reciprocal_rms(v, static_cast<Acc>(shape.eps));
  const Acc condition = statistic_condition(v, size, rstd);
  if (args.rstd) args.rstd[row] = absolute ? rstd * condition : rstd;
  for (int64_t i = 0; i < shape.width; ++i) {
    const auto at = static_cast<size_t>(i);
    const Acc w = args.w ? args.w[i] : Acc(1);
    const Acc b = args.b ? args.b[i] : Acc(0);
    Acc y = v[at] * rstd * w + b;
    if (absolute) {
      y = (size[at] + std::abs(v[at]) * condition) * rstd * std::abs(w) + std::abs(b);
    }
    args.y[row * shape.width + i] = static_cast<T>(y);
  }
}

template <class T, class R>
void backward_row(const NormShape& shape, const NormBackward<T, R>& args, int64_t row,
                  bool absolute, Row<accumulate_t<T>>& dw, Row<accumulate_t<T>>& db) {
  using Acc = accumulate_t<T>;
  const bool layer = shape.kind == NormKind::layer;
  const Acc rstd = args.rstd[row];
  const Acc m = layer ? args.mean[row] : Acc(0);
  Row<Acc> xh, p;
  for (int64_t i = 0; i < shape.width; ++i) {
    const auto at = static_cast<size_t>(i);
    const Acc r = static_cast<Acc>(args.r[row * shape.width + i]);
    Acc g = static_cast<Acc>(args.gy[row * shape.width + i]);
    Acc w = args.w ? args.w[i] : Acc(1);
    Acc centered = r - m;
    if (absolute) {
      g = std::abs(g);
      w = std::abs(w);
      centered = std::abs(r) + std::abs(m);
    }
    xh.push_back(centered * rstd);
    p.push_back(g * w);
    dw[at] += g * xh.back();
    db[at] += g;
  }
  const Acc dot = mean_product(p, xh);
  const Acc shift = layer ? mean(p) : Acc(0);
  for (int64_t i = 0; i < shape.width; ++i) {
    const auto at = static_cast<size_t>(i);
    const Acc later = args.g_later ? static_cast<Acc>(args.g_later[row * shape.width + i]) : Acc(0);
    const Acc g = absolute ? rstd * (p[at] + shift + xh[at] * dot) + std::abs(later)
                           : rstd * (p[at] - shift - xh[at] * dot) + later;
    args.dr[row * shape.width + i] = static_cast<R>(g);
    if (args.dx) args.dx[row * shape.width + i] = static_cast<T>(g);
  }
}

template <class T>
void gated_backward_group(const GatedNormShape& shape, const GatedNormBackward<T>& args,
                          int64_t row, int64_t group, bool absolute, Row<accumulate_t<T>>& dw) {
  using Acc = accumulate_t<T>;
  const int64_t n = shape.group_width();
  const Acc rstd = args.rstd[row * (shape.width / n) + group];
  const auto of = [&](const T* data, int64_t stride, int64_t i) {
    const Acc value = static_cast<Acc>(data[row * stride + group * n + i]);
    return absolute ? std::abs(value) : value;
  };
  Row<Acc> xh, p, gates, slopes;
  for (int64_t i = 0; i < n; ++i) {
    const Acc z = static_cast<Acc>(args.z[row * args.z_stride + group * n + i]);
    const Acc s = sigmoid(z);
    const Acc size = absolute ? std::abs(z) : z;
    const Acc condition = absolute ? sigmoid_condition(z, s) : Acc(1);
    gates.push_back(size * s * condition);
    slopes.push_back(s * condition * (1 + size * (absolute ? 1 + s : 1 - s)));
    const Acc w = absolute ? std::abs(args.w[group * n + i]) : args.w[group * n + i];
    const Acc y = of(args.y, args.y_stride, i);
    const Acc gout = of(args.gout, args.gout_stride, i);
    xh.push_back(rstd * (shape.norm_before_gate ? y : y * gates.back()));
    const Acc g = shape.norm_before_gate ? gout * gates.back() : gout;
    p.push_back(g * w);
    dw[static_cast<size_t>(group * n + i)] += g * xh.back();
  }
  const Acc dot = mean_product(p, xh);
  for (int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<size_t>(i);
    const Acc w = absolute ? std::abs(args.w[group * n + i]) : args.w[group * n + i];
    const Acc du = rstd * (absolute ? p[at] + xh[at] * dot : p[at] - xh[at] * dot);
    const Acc y = of(args.y, args.y_stride, i);
    const Acc gout = of(args.gout, args.gout_stride, i);
    const Acc dy = shape.norm_before_gate ? du : du * gates[at];
    const Acc dz = (shape.norm_before_gate ? gout * xh[at] * w : du * y) * slopes[at];
    args.dy[row * args.dy_stride + group * n + i] = static_cast<T>(dy);
    args.dz[row * args.dz_stride + group * n + i] = static_cast<T>(dz);
  }
}

}  // namespace

template <class T, class R>
void norm_forward(const NormShape& shape, const NormForward<T, R>& args, bool absolute) {
  for (int64_t row = 0; row < shape.rows; ++row) forward_row(shape, args, row, absolute);
}

template <class T, class R>
void norm_backward(const NormShape& shape, const NormBackward<T, R>& args, bool absolute) {
  using Acc = accumulate_t<T>;
  Row<Acc> dw(static_cast<size_t>(shape.width), Acc(0)), db(dw);
  for (int64_t row = 0; row < shape.rows; ++row) backward_row(shape, args, row, absolute, dw, db);
  write_sum(args.dw, dw, args.accumulate, absolute);
  write_sum(args.db, db, args.accumulate, absolute);
}

template <class T>
void gated_norm_forward(const GatedNormShape& shape, const GatedNormForward<T>& args,
                        bool absolute) {
  using Acc = accumulate_t<T>;
  const int64_t n = shape.group_width();
  const int64_t groups = shape.width / n;
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t c = group * n;
      Row<Acc> v, size, gates, gate_sizes;
      for (int64_t i = c; i < c + n; ++i) {
        const Acc z = static_cast<Acc>(args.z[row * args.z_stride + i]);
        const Acc s = sigmoid(z);
        gates.push_back(z * s);
        gate_sizes.push_back(std::abs(z * s) * sigmoid_condition(z, s));
        const Acc y = static_cast<Acc>(args.y[row * args.y_stride + i]);
        v.push_back(shape.norm_before_gate ? y : y * gates.back());
        size.push_back(std::abs(y) * (shape.norm_before_gate ? Acc(1) : gate_sizes.back()));
      }
      const Acc rstd = reciprocal_rms(v, static_cast<Acc>(shape.eps));
      const Acc condition = statistic_condition(v, size, rstd);
      if (args.rstd) args.rstd[row * groups + group] = absolute ? rstd * condition : rstd;
      for (int64_t i = 0; i < n; ++i) {
        const auto at = static_cast<size_t>(i);
        Acc out = v[at] * rstd * args.w[c + i];
        if (absolute) {
          out = (size[at] + std::abs(v[at]) * condition) * rstd * std::abs(args.w[c + i]);
        }
        if (shape.norm_before_gate) out *= absolute ? gate_sizes[at] : gates[at];
        args.out[row * args.out_stride + c + i] = static_cast<T>(out);
      }
    }
  }
}

template <class T>
void gated_norm_backward(const GatedNormShape& shape, const GatedNormBackward<T>& args,
                         bool absolute) {
  using Acc = accumulate_t<T>;
  Row<Acc> dw(static_cast<size_t>(shape.width), Acc(0));
  const int64_t groups = shape.width / shape.group_width();
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      gated_backward_group(shape, args, row, group, absolute, dw);
    }
  }
  write_sum(args.dw, dw, args.accumulate, absolute);
}

#define ADDER_NORM_REF(T, R)                                                          \
  template void norm_forward<T, R>(const NormShape&, const NormForward<T, R>&, bool); \
  template void norm_backward<T, R>(const NormShape&, const NormBackward<T, R>&, bool);
ADDER_NORM_REF(double, double)
ADDER_NORM_REF(float, float)
ADDER_NORM_REF(Bf16, float)
ADDER_NORM_REF(Bf16, Bf16)
#undef ADDER_NORM_REF

#define ADDER_GATED_NORM_REF(T)                                                                 \
  template void gated_norm_forward<T>(const GatedNormShape&, const GatedNormForward<T>&, bool); \
  template void gated_norm_backward<T>(const GatedNormShape&, const GatedNormBackward<T>&, bool);
ADDER_GATED_NORM_REF(double)
ADDER_GATED_NORM_REF(float)
ADDER_GATED_NORM_REF(Bf16)
#undef ADDER_GATED_NORM_REF

}  // namespace adder::ref
