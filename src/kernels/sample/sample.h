// Kernel family `sample`: from logits to a token id (formats.md 3.6). Thread-safe.
//
// sample.h, .cpp     door, table, the range of each option
// rows.h, .cpp       the algorithm, a row at a time
// weights.cpp        its two passes over the whole vocabulary
//
// Order: repetition penalty (once per distinct previous id: x > 0 ? x / p : x p), greedy if
// temperature is 0 or top_k is 1; else top_k, temperature, softmax, top_p inside the kept set (the
// smallest set with mass >= p, at least one), min_p (keep p_i >= min_p max p), draw. Ties break to
// the smaller id. NaN logits are never chosen.
#pragma once

#include <cstdint>
#include <string>

#include "core/kernel_table.h"

namespace adder {

struct SamplingOptions {
  double temperature = 1.0;         // 0: greedy
  int64_t top_k = 0;                // 0: off
  double top_p = 1.0;               // 1: off
  double min_p = 0.0;               // 0: off
  double repetition_penalty = 1.0;  // 1: off
  uint64_t seed = 0;

  void check() const;  // throws Error naming the option out of range
};

/// One row of a call. Plain data: it is copied to the device.
struct SampleRow {
  SamplingOptions options;
  uint64_t sequence = 0;  // with position and options.seed it names the uniform number of the draw,
  uint64_t position = 0;  // whatever else runs
  // The ids so far, for the repetition penalty: previous[previous_begin] and those after it.
  int64_t previous_begin = 0;
  int64_t previous_count = 0;
};

struct SampleShape {
  int64_t rows = 0;
  int64_t vocab = 0;

  void check() const;
  Cost cost() const;
  std::string describe() const;
};

/// Draws one id a row.
struct SampleArgs {
  const float* logits = nullptr;  // (rows, vocab), row stride logit_stride
  int64_t logit_stride = 0;
  const SampleRow* options = nullptr;  // (rows), each checked where it entered
  const int32_t* previous = nullptr;   // every row's ids so far, in [0, vocab); absent: none
  int32_t* ids = nullptr;              // (rows); kNoToken where all logits are NaN or -inf
  double* probability = nullptr;  // (rows, vocab) drawn from, 0 outside the kept set; for tests
};
inline constexpr int32_t kNoToken = -1;

using SampleLine = Line<SampleShape, OneWay<SampleShape, SampleArgs>>;
std::span<const SampleLine> sample_lines();
void sample_tokens(Context& context, const SampleShape& shape, const SampleArgs& args,
                   const Choice& choice = {});

}  // namespace adder
