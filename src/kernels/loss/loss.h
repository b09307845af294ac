// Kernel family `loss`: softmax cross-entropy over rows of logits, fused with its gradient
// (math.md 8.1). The caller runs head and loss in row slices. Thread-safe.
//
// loss.h, .cpp     doors and tables
// fused.h, .cpp    loss and gradient of a row in three passes, and the sum of the rows
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

/// L: type of the logits; D: of their gradient, which is that of the products that follow.
/// Instantiated for <double, double>, <float, float> and <float, Bf16>.
template <class L, class D>
struct LossForward {
  const L* logits = nullptr;  // (rows, columns), row stride logit_stride
  int64_t logit_stride = 0;
  const int32_t* targets = nullptr;  // (rows), in [0, vocab) or kIgnoreIndex
  double* row_loss = nullptr;        // (rows), 0 where ignored
  D* dlogits = nullptr;  // (rows, columns), may be logits where D is L; absent: no gradient
  int64_t dlogit_stride = 0;
  /// Factor of the gradient, normally 1 / (valid tokens of the whole step); absent: 1.
  const double* gradient_scale = nullptr;
};

template <class L, class D>
using LossLine = Line<LossShape, OneWay<LossShape, LossForward<L, D>>>;
template <class L, class D>
std::span<const LossLine<L, D>> loss_lines();
template <class L, class D>
void softmax_cross_entropy(Context& context, const LossShape& shape, const LossForward<L, D>& args,
                           const Choice& choice = {});

/// *sum (+)= row_loss[0] + row_loss[1] + ..., in that order.
struct LossSumArgs {
  const double* row_loss = nullptr;  // (rows)
  double* sum = nullptr;             // one
  bool accumulate = false;
};
struct LossSumShape {
  int64_t rows = 0;
  void check() const;
  Cost cost() const;
  std::string describe() const;
};
using LossSumLine = Line<LossSumShape, OneWay<LossSumShape, LossSumArgs>>;
std::span<const LossSumLine> loss_sum_lines();
void sum_losses(Context& context, const LossSumShape& shape, const LossSumArgs& args,
                const Choice& choice = {});

}  // namespace adder
