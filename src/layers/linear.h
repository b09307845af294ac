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

}  // namespace adder
