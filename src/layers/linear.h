// Linear layers: y = x W^T + b (PyTorch orientation, W is (out, in)). The only place that looks at
// a Matrix's type and chooses the product. Thread-safe.
#pragma once

#include "core/context.h"
#include "core/dtype.h"
#include "layers/params.h"

namespace adder {

/// (rows, width) with a row stride: often a slice of a wider projection.
template <class T>
struct Rows {
  T* data = nullptr;
  int64_t stride = 0;
  operator Rows<const T>() const { return {data, stride}; }
};

/// y = x W^T (+ bias). x (rows, w.cols), y (rows, w.rows), bias (w.rows) or null.
template <class T>
void linear_forward(Context& context, int64_t rows, Rows<const T> x, const Matrix& w,
                    const accumulate_t<T>* bias, Rows<T> y);

/// dx = gy W, or dx += gy W.
template <class T>
void linear_backward_input(Context& context, int64_t rows, Rows<const T> gy, const Matrix& w,
                           Rows<T> dx, bool accumulate = false);

/// dw += gy^T x in full precision, and dbias += column sums of gy; absent parts are left out.
template <class T>
void linear_backward_weight(Context& context, int64_t rows, Rows<const T> gy, Rows<const T> x,
                            const Matrix& w, const MatrixGrad<accumulate_t<T>>& dw,
                            accumulate_t<T>* dbias = nullptr);

/// A linear layer with its parameters: those of a part of a mixer.
template <class T>
class Linear {
 public:
  using Acc = accumulate_t<T>;
  /// NAME.weight (outputs, inputs) and, with `bias`, NAME.bias (outputs), which starts at 0.
  void visit(ParamVisitor<Acc>& visitor, const std::string& name, int64_t outputs, int64_t inputs,
             const InitSpec& init, bool bias = false);
  void forward(Context& context, int64_t rows, Rows<const T> x, Rows<T> y) const {
    linear_forward(context, rows, x, weight_, bias_, y);
  }
  /// dx is written (or added to); gradients of the parameters are added to.
  void backward(Context& context, int64_t rows, Rows<const T> gy, Rows<const T> x, Rows<T> dx,
                bool accumulate = false) const {
    linear_backward_weight(context, rows, gy, x, weight_, grad_, dbias_);
    linear_backward_input(context, rows, gy, weight_, dx, accumulate);
  }

 private:
  Matrix weight_;
  MatrixGrad<Acc> grad_;
  const Acc* bias_ = nullptr;
  Acc* dbias_ = nullptr;
};

}  // namespace adder
