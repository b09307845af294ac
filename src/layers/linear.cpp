#include "layers/linear.h"

#include "core/error.h"
#include "kernels/gemm/gemm.h"
#include "kernels/pointwise/pointwise.h"

namespace adder {
namespace {

template <class T, class P>
void product_with_weight(Context& context, GemmShape shape, Rows<const T> a, const Matrix& w,
                         const accumulate_t<T>* bias, Rows<T> c) {
  GemmArgs<T, P, T> args;
  args.a = a.data;
  args.lda = a.stride;
  args.b = w.as<P>();
  args.ldb = w.stride;
  args.c = c.data;
  args.ldc = c.stride;
  args.bias = bias;
  gemm(context, shape, args);
}

template <class T>
void dispatch_weight(Context& context, const GemmShape& shape, Rows<const T> a, const Matrix& w,
                     const accumulate_t<T>* bias, Rows<T> c) {
  if (w.type == dtype_of<T>) return product_with_weight<T, T>(context, shape, a, w, bias, c);
  if constexpr (std::is_same_v<T, float>) {
    if (w.type == Dtype::bf16) return product_with_weight<T, Bf16>(context, shape, a, w, bias, c);
  }
  throw Error({"no product of activations with a weight of this type", "linear",
               std::string(dtype_name(dtype_of<T>)), std::string(dtype_name(w.type))});
}

// x down^T of the adapter, (rows, rank), in the arena.
template <class T>
Rows<T> through_down(Context& context, int64_t rows, Rows<const T> x, const Matrix& w) {
  const Matrix& down = w.adapter->down;
  const Rows<T> low = {context.arena->take<T>(rows * down.rows), down.rows};
  GemmShape shape;
  shape.m = rows;
  shape.n = down.rows;
  shape.k = down.cols;
  shape.transpose_b = true;
  dispatch_weight<T>(context, shape, x, down, nullptr, low);
  return low;
}

// gy up of the adapter, (rows, rank), in the arena.
template <class T>
Rows<T> back_through_up(Context& context, int64_t rows, Rows<const T> gy, const Matrix& w) {
  const Matrix& up = w.adapter->up;
  const Rows<T> dlow = {context.arena->take<T>(rows * up.cols), up.cols};
  GemmShape shape;
  shape.m = rows;
  shape.n = up.cols;
  shape.k = up.rows;
  dispatch_weight<T>(context, shape, gy, up, nullptr, dlow);
  return dlow;
}

// out (m, n) += a^T b over the rows.
template <class T>
void add_outer(Context& context, int64_t rows, Rows<const T> a, int64_t m, Rows<const T> b,
               int64_t n, accumulate_t<T>* out) {
  GemmShape shape;
  shape.m = m;
  shape.n = n;
  shape.k = rows;
  shape.transpose_a = true;
  shape.accumulate = true;
  GemmArgs<T, T, accumulate_t<T>> args;
  args.a = a.data;
  args.lda = a.stride;
  args.b = b.data;
  args.ldb = b.stride;
  args.c = out;
  args.ldc = n;
  gemm(context, shape, args);
}

}  // namespace

template <class T>
void linear_forward(Context& context, int64_t rows, Rows<const T> x, const Matrix& w,
                    const accumulate_t<T>* bias, Rows<T> y) {
  Arena::Scope scope(*context.arena);
  GemmShape shape;
  shape.m = rows;
  shape.n = w.rows;
  shape.k = w.cols;
  shape.transpose_b = true;
  shape.bias = bias != nullptr;
  dispatch_weight<T>(context, shape, x, w, bias, y);
  if (w.adapter == nullptr) return;
  const Rows<T> low = through_down<T>(context, rows, x, w);
  shape.k = low.stride;
  shape.bias = false;
  shape.accumulate = true;
  dispatch_weight<T>(context, shape, low, w.adapter->up, nullptr, y);
}

template <class T>
void linear_backward_input(Context& context, int64_t rows, Rows<const T> gy, const Matrix& w,
                           Rows<T> dx, bool accumulate) {
  Arena::Scope scope(*context.arena);
  GemmShape shape;
  shape.m = rows;
  shape.n = w.cols;
  shape.k = w.rows;
  shape.accumulate = accumulate;
  dispatch_weight<T>(context, shape, gy, w, nullptr, dx);
  if (w.adapter == nullptr) return;
  const Rows<T> dlow = back_through_up<T>(context, rows, gy, w);
  shape.k = dlow.stride;
  shape.accumulate = true;
  dispatch_weight<T>(context, shape, dlow, w.adapter->down, nullptr, dx);
}

template <class T>
void linear_backward_weight(Context& context, int64_t rows, Rows<const T> gy, Rows<const T> x,
                            const Matrix& w, const MatrixGrad<accumulate_t<T>>& dw,
                            accumulate_t<T>* dbias) {
  Arena::Scope scope(*context.arena);
  if (dw.data != nullptr) add_outer<T>(context, rows, gy, w.rows, x, w.cols, dw.data);
  if (dw.up != nullptr) {
    const Rows<T> low = through_down<T>(context, rows, x, w);
    add_outer<T>(context, rows, gy, w.rows, low, low.stride, dw.up);
  }
  if (dw.down != nullptr) {
    const Rows<T> dlow = back_through_up<T>(context, rows, gy, w);
    add_outer<T>(context, rows, dlow, dlow.stride, x, w.cols, dw.down);
  }
  if (dbias != nullptr) column_sum<T>(context, {rows, w.rows}, {gy.data, gy.stride, dbias, true});
}

template <class T>
void Linear<T>::visit(ParamVisitor<Acc>& visitor, const std::string& name, int64_t outputs,
                      int64_t inputs, const InitSpec& init, bool bias) {
  ParamInfo info = matrix_param(name + ".weight", outputs, inputs, 0);
  info.init = init;
  visitor.matrix(weight_, grad_, info);
  if (!bias) return;
  visitor.vector(bias_, dbias_, vector_param(name + ".bias", {outputs}, {InitSpec::Kind::zeros}));
}

#define ADDER_LINEAR(T)                                                                            \
  template class Linear<T>;                                                                        \
  template void linear_forward<T>(Context&, int64_t, Rows<const T>, const Matrix&,                 \
                                  const accumulate_t<T>*, Rows<T>);                                \
  template void linear_backward_input<T>(Context&, int64_t, Rows<const T>, const Matrix&, Rows<T>, \
                                         bool);                                                    \
  template void linear_backward_weight<T>(Context&, int64_t, Rows<const T>, Rows<const T>,         \
                                          const Matrix&, const MatrixGrad<accumulate_t<T>>&,       \
                                          accumulate_t<T>*);
ADDER_LINEAR(double)
ADDER_LINEAR(float)
ADDER_LINEAR(Bf16)
#undef ADDER_LINEAR

}  // namespace adder
