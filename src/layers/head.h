// The language-model head fused with its loss, in row slices, so that full logits never exist
// (math.md 8.1): per slice logits = hidden W^T, loss and dlogits in place, dhidden = dlogits W,
// dW += dlogits^T hidden. Slices are cut by shape and summed in order. Thread-safe.
#pragma once

#include "core/context.h"
#include "kernels/loss/loss.h"  // kIgnoreIndex
#include "layers/params.h"

namespace adder {

/// Rows of logits that exist at one time.
inline constexpr int64_t kHeadSliceRows = 512;

template <class T>
struct HeadLoss {
  using Acc = accumulate_t<T>;
  int64_t rows = 0;
  int64_t d_model = 0;
  int64_t vocab = 0;                 // ids below it take part; W may have more (padded) rows
  const T* hidden = nullptr;         // (rows, d_model), after the last norm
  Matrix weight;                     // (padded vocab, d_model)
  const int32_t* targets = nullptr;  // (rows): id or kIgnoreIndex
  double label_smoothing = 0;
  double z_loss = 0;
  double* row_loss = nullptr;  // (rows), written
  // For the gradient; all absent for evaluation.
  const double* gradient_scale = nullptr;  // one number, in the memory of the device
  T* dhidden = nullptr;                    // (rows, d_model), written
  MatrixGrad<Acc> dweight;                 // (padded vocab, d_model), added to; absent: frozen
};

template <class T>
void head_loss(Context& context, const HeadLoss<T>& args);

/// logits (rows, weight.rows) in full precision: for sampling and for those who ask for them.
template <class T>
void head_logits(Context& context, int64_t rows, const T* hidden, const Matrix& weight,
                 accumulate_t<T>* logits);

}  // namespace adder
