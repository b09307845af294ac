// Kernel family `optim`: AdamW (PyTorch order) and the global gradient norm (math.md 8.2).
//
// optim.h, .cpp    doors and tables
// fused.h, .cpp    AdamW in one pass, sum of squares, the decision between them
//
// Values that change from step to step are read from memory (StepState), so that a step only
// enqueues. Thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "core/kernel_table.h"
#include "core/step_state.h"

namespace adder {

struct OptimShape {
  int64_t count = 0;
  void check() const;
  Cost cost(Dtype dtype) const;
  std::string describe() const;
};

struct AdamWConstants {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  // 0 for parameters that are not decayed
};

/// One contiguous range of parameters with the same constants. Acc: float or double.
template <class Acc>
struct AdamWArgs {
  AdamWConstants constants;
  const StepState* state = nullptr;  // learning_rate, clip, skip, updates (t, this step included)
  const Acc* g = nullptr;            // (count)
  Acc* p = nullptr;                  // (count) master parameters
  Bf16* rounded = nullptr;           // (count) p rounded to nearest even; may be absent
  Acc* m = nullptr;                  // (count)
  Acc* v = nullptr;                  // (count)
};

template <class Acc>
using AdamWLine = Line<OptimShape, OneWay<OptimShape, AdamWArgs<Acc>>>;
template <class Acc>
std::span<const AdamWLine<Acc>> adamw_lines();
/// Leaves everything as it is where state->skip is set.
template <class Acc>
void adamw_step(Context& context, const OptimShape& shape, const AdamWArgs<Acc>& args,
                const Choice& choice = {});

/// *sum (+)= the squares of g, in double, in an order fixed by the count. Non-finite input gives a
/// non-finite sum.
template <class Acc>
struct SquaresArgs {
  const Acc* g = nullptr;  // (count)
  double* sum = nullptr;   // one
  bool accumulate = false;
};
template <class Acc>
using SquaresLine = Line<OptimShape, OneWay<OptimShape, SquaresArgs<Acc>>>;
template <class Acc>
std::span<const SquaresLine<Acc>> squares_lines();
template <class Acc>
void sum_of_squares(Context& context, const OptimShape& shape, const SquaresArgs<Acc>& args,
                    const Choice& choice = {});

/// Between the gradients and AdamW, on one StepState: grad_norm = sqrt(squares); skip where the norm
/// or loss_sum is not finite, and skipped counts it; else clip = min(1, clip_norm / (grad_norm +
/// 1e-6)) as PyTorch's clip_grad_norm_ (1 where clip_norm is 0) and updates counts one more.
struct DecisionArgs {
  StepState* state = nullptr;
  double clip_norm = 0;  // 0: no clipping
};
using DecisionLine = Line<OptimShape, OneWay<OptimShape, DecisionArgs>>;
std::span<const DecisionLine> decision_lines();
void decide_step(Context& context, const DecisionArgs& args, const Choice& choice = {});

}  // namespace adder
