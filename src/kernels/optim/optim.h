// Kernel family `optim`: AdamW (PyTorch order) and the global gradient norm (math.md 8.2).
// Values that change from step to step are read from memory (StepValues), so that a whole step
// can be captured in a CUDA graph later. Thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "core/kernel_table.h"

namespace adder {

struct OptimShape {
  int64_t count = 0;
  void check() const;
  Cost cost(Dtype dtype) const;
  std::string describe() const;
};

struct StepValues {
  double learning_rate = 0;
  double clip_coefficient = 1;  // multiplies every gradient
  int64_t step = 1;             // t, from 1
  int32_t skip = 0;             // 1: leave everything as it is (non-finite norm)
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
  const StepValues* values = nullptr;
  const Acc* g = nullptr;  // (count)
  Acc* p = nullptr;        // (count) master parameters
  Acc* m = nullptr;        // (count)
  Acc* v = nullptr;        // (count)
};

template <class Acc>
struct OptimFunctions {
  void (*adamw)(const OptimShape&, const AdamWArgs<Acc>&, Exec);
};
template <class Acc>
using OptimLine = Line<OptimShape, OptimFunctions<Acc>>;
template <class Acc>
std::span<const OptimLine<Acc>> optim_lines();
template <class Acc>
void adamw_step(Context& context, const OptimShape& shape, const AdamWArgs<Acc>& args,
                const Choice& choice = {});

/// Sum of squares in double, in an order fixed by the count. Non-finite input gives a non-finite
/// sum.
template <class Acc>
double sum_of_squares(Context& context, int64_t count, const Acc* g);

}  // namespace adder
