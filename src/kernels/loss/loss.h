// Kernel family `loss`: softmax cross-entropy over rows of logits, fused with its gradient
// (math.md 8.1). The caller runs head and loss in row slices. Thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "core/kernel_table.h"

namespace adder {

inline constexpr int32_t kIgnoreIndex = -100;

struct LossShape {
  int64_t rows = 0;
  int64_t vocab = 0;    // columns that take part
  int64_t columns = 0;  // columns of a row (>= vocab): the padded ones get gradient 0
  double label_smoothing = 0;
  double z_loss = 0;  // zeta, weight of lse^2

  void check() const;
  Cost cost(Direction direction, Dtype dtype) const;
  std::string describe() const;
};

template <class T>
struct LossForward {
  using Acc = accumulate_t<T>;
  const T* logits = nullptr;  // (rows, columns), row stride logit_stride
  int64_t logit_stride = 0;
  const int32_t* targets = nullptr;  // (rows), in [0, vocab) or kIgnoreIndex
  double* row_loss = nullptr;        // (rows), 0 where ignored: the caller sums them in order
  T* dlogits = nullptr;              // (rows, columns), may be logits; absent: no gradient
  int64_t dlogit_stride = 0;
  /// Factor of the gradient, normally 1 / (valid tokens of the whole step).
  double gradient_scale = 1;
};

template <class T>
struct LossFunctions {
  void (*forward)(const LossShape&, const LossForward<T>&, Exec);
};
template <class T>
using LossLine = Line<LossShape, LossFunctions<T>>;
template <class T>
std::span<const LossLine<T>> loss_lines();
/// The door: also checks that every target is in range (Error names the row and the id).
template <class T>
void softmax_cross_entropy(Context& context, const LossShape& shape, const LossForward<T>& args,
                           const Choice& choice = {});

}  // namespace adder
