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

}  // namespace

template <class T>
void linear_forward(Context& context, int64_t rows, Rows<const T> x, const Matrix& w,
                    const accumulate_t<T>* bias, Rows<T> y) {
  GemmShape shape;
  shape.m = rows;
  shape.n = w.rows;
  shape.k = w.cols;
  shape.transpose_b = true;
  shape.bias = bias != nullptr;
  dispatch_weight<T>(context, shape, x, w, bias, y);
}

template <class T>
void linear_backward_input(Context& context, int64_t rows, Rows<const T> gy, const Matrix& w,
                           Rows<T> dx, bool accumulate) {
  GemmShape shape;
  shape.m = rows;
  shape.n = w.cols;
  shape.k = w.rows;
  shape.accumulate = accumulate;
  dispatch_weight<T>(context, shape, gy, w, nullptr, dx);
}

template <class T>
void linear_backward_weight(Context& context, int64_t rows, Rows<const T> gy, Rows<const T> x,
                            const Matrix& w, accumulate_t<T>* dw, accumulate_t<T>* dbias) {
  if (dw != nullptr) {
    GemmShape shape;
    shape.m = w.rows;
    shape.n = w.cols;
    shape.k = rows;
    shape.transpose_a = true;
    shape.accumulate = true;
    GemmArgs<T, T, accumulate_t<T>> args;
    args.a = gy.data;
    args.lda = gy.stride;
    args.b = x.data;
    args.ldb = x.stride;
    args.c = dw;
    args.ldc = w.cols;
    gemm(context, shape, args);
  }
  if (dbias != nullptr) {
    PointwiseShape shape;
    shape.rows = rows;
    shape.width = w.rows;
    column_sum(context, shape, gy.data, gy.stride, dbias, true);
  }
}

template <class T>
void round_weights(Context& context, int64_t count, const accumulate_t<T>* master, T* out) {
  convert(context, count, master, out);
}
template <class T>
void widen_activations(Context& context, int64_t count, const T* x, accumulate_t<T>* out) {
  convert(context, count, x, out);
}
template void widen_activations<Bf16>(Context&, int64_t, const Bf16*, float*);
template void round_weights<Bf16>(Context&, int64_t, const float*, Bf16*);

#define ADDER_LINEAR(T)                                                                            \
  template void linear_forward<T>(Context&, int64_t, Rows<const T>, const Matrix&,                 \
                                  const accumulate_t<T>*, Rows<T>);                                \
  template void linear_backward_input<T>(Context&, int64_t, Rows<const T>, const Matrix&, Rows<T>, \
                                         bool);                                                    \
  template void linear_backward_weight<T>(Context&, int64_t, Rows<const T>, Rows<const T>,         \
                                          const Matrix&, accumulate_t<T>*, accumulate_t<T>*);
ADDER_LINEAR(double)
ADDER_LINEAR(float)
ADDER_LINEAR(Bf16)
#undef ADDER_LINEAR

}  // namespace adder
