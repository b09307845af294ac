#include "layers/residual_norm.h"

#include "kernels/norm/norm.h"

namespace adder {
namespace {

NormShape shape_of(int64_t rows, int64_t width, bool rms, double eps) {
  NormShape shape;
  shape.rows = rows;
  shape.width = width;
  shape.kind = rms ? NormKind::rms : NormKind::layer;
  shape.eps = eps;
  return shape;
}

}  // namespace

template <class T>
void ResidualNorm<T>::visit(ParamVisitor<Acc>& visitor) {
  ParamInfo info;
  info.name = name_ + ".weight";
  info.shape = {width_};
  info.init = {InitSpec::Kind::ones};
  visitor.vector(w_, dw_, info);
  if (rms_) return;
  info.name = name_ + ".bias";
  info.init = {InitSpec::Kind::zeros};
  visitor.vector(b_, db_, info);
}

template <class T>
template <class R>
ResidualNormSaved<T, R> ResidualNorm<T>::carve_saved(Context& context, int64_t rows) const {
  ResidualNormSaved<T, R> saved;
  saved.r = context.arena->take<R>(rows * width_);
  saved.y = context.arena->take<T>(rows * width_);
  saved.rstd = context.arena->take<Acc>(rows);
  if (!rms_) saved.mean = context.arena->take<Acc>(rows);
  return saved;
}

template <class T>
template <class R>
void ResidualNorm<T>::forward(Context& context, int64_t rows, const T* x, const R* r_in,
                              const ResidualNormSaved<T, R>& saved) const {
  NormForward<T, R> args;
  args.x = x;
  args.x_stride = width_;
  args.residual_in = r_in;
  args.w = w_;
  args.b = b_;
  args.y = saved.y;
  args.residual_out = saved.r;
  args.rstd = saved.rstd;
  args.mean = saved.mean;
  norm_forward(context, shape_of(rows, width_, rms_, eps_), args);
}

template <class T>
template <class R>
void ResidualNorm<T>::backward(Context& context, int64_t rows, const ResidualNormSaved<T, R>& saved,
                               const ResidualNormGradient<T, R>& gradient) const {
  NormBackward<T, R> args;
  args.r = saved.r;
  args.rstd = saved.rstd;
  args.mean = saved.mean;
  args.w = w_;
  args.gy = gradient.gy;
  args.g_later = gradient.later ? gradient.dr : nullptr;
  args.dr = gradient.dr;
  args.dx = gradient.dx;
  args.dw = dw_;
  args.db = db_;
  args.accumulate = true;
  norm_backward(context, shape_of(rows, width_, rms_, eps_), args);
}

template class ResidualNorm<double>;
template class ResidualNorm<float>;
template class ResidualNorm<Bf16>;

#define ADDER_RESIDUAL_NORM(T, R)                                                               \
  template ResidualNormSaved<T, R> ResidualNorm<T>::carve_saved<R>(Context&, int64_t) const;    \
  template void ResidualNorm<T>::forward<R>(Context&, int64_t, const T*, const R*,              \
                                            const ResidualNormSaved<T, R>&) const;              \
  template void ResidualNorm<T>::backward<R>(Context&, int64_t, const ResidualNormSaved<T, R>&, \
                                             const ResidualNormGradient<T, R>&) const;
ADDER_RESIDUAL_NORM(double, double)
ADDER_RESIDUAL_NORM(float, float)
ADDER_RESIDUAL_NORM(Bf16, float)
ADDER_RESIDUAL_NORM(Bf16, Bf16)
#undef ADDER_RESIDUAL_NORM

}  // namespace adder
