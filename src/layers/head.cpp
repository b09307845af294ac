#include "layers/head.h"

#include <algorithm>

#include "kernels/gemm/gemm.h"
#include "kernels/loss/loss.h"
#include "layers/linear.h"

namespace adder {
namespace {

template <class T>
void slice_loss(Context& context, const HeadLoss<T>& args, int64_t first, int64_t rows) {
  using Acc = accumulate_t<T>;
  Arena::Scope scope(*context.arena);
  const int64_t columns = args.weight.rows;
  const T* hidden = args.hidden + first * args.d_model;
  Acc* logits = context.arena->take<Acc>(rows * columns);
  head_logits(context, rows, hidden, args.weight, logits);

  LossShape shape;
  shape.rows = rows;
  shape.vocab = args.vocab;
  shape.columns = columns;
  shape.label_smoothing = args.label_smoothing;
  shape.z_loss = args.z_loss;
  LossForward<Acc, T> loss;
  loss.logits = logits;
  loss.logit_stride = columns;
  loss.targets = args.targets + first;
  loss.row_loss = args.row_loss + first;
  loss.gradient_scale = args.gradient_scale;
  if (args.dhidden != nullptr) {
    if constexpr (std::is_same_v<T, Acc>) {
      loss.dlogits = logits;
    } else {
      loss.dlogits = context.arena->take<T>(rows * columns);
    }
    loss.dlogit_stride = columns;
  }
  softmax_cross_entropy(context, shape, loss);
  if (args.dhidden == nullptr) return;

  const Rows<const T> dlogits = {loss.dlogits, columns};
  linear_backward_input<T>(context, rows, dlogits, args.weight,
                           {args.dhidden + first * args.d_model, args.d_model});
  linear_backward_weight<T>(context, rows, dlogits, {hidden, args.d_model}, args.weight,
                            args.dweight);
}

}  // namespace

template <class T>
void head_loss(Context& context, const HeadLoss<T>& args) {
  for (int64_t first = 0; first < args.rows; first += kHeadSliceRows) {
    slice_loss(context, args, first, std::min(kHeadSliceRows, args.rows - first));
  }
}

template <class T>
void head_logits(Context& context, int64_t rows, const T* hidden, const Matrix& weight,
                 accumulate_t<T>* logits) {
  GemmShape shape;
  shape.m = rows;
  shape.n = weight.rows;
  shape.k = weight.cols;
  shape.transpose_b = true;
  if (weight.type != dtype_of<T>) {
    if constexpr (std::is_same_v<T, float>) {
      return linear_forward<T>(context, rows, {hidden, weight.cols}, weight, nullptr,
                               {logits, weight.rows});
    }
    throw Error({"no head product for a weight of this type", "head",
                 std::string(dtype_name(dtype_of<T>)), std::string(dtype_name(weight.type))});
  }
  GemmArgs<T, T, accumulate_t<T>> args;
  args.a = hidden;
  args.lda = weight.cols;
  args.b = weight.as<T>();
  args.ldb = weight.stride;
  args.c = logits;
  args.ldc = weight.rows;
  gemm(context, shape, args);
}

#define ADDER_HEAD(T)                                       \
  template void head_loss<T>(Context&, const HeadLoss<T>&); \
  template void head_logits<T>(Context&, int64_t, const T*, const Matrix&, accumulate_t<T>*);
ADDER_HEAD(double)
ADDER_HEAD(float)
ADDER_HEAD(Bf16)
#undef ADDER_HEAD

}  // namespace adder
