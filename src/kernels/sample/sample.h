// Kernel family `sample`: from logits to a token id (formats.md 3.6). Order: repetition penalty
// (once per distinct previous id: x > 0 ? x / p : x p), greedy if temperature is 0 or top_k is 1;
// else top_k, temperature, softmax, top_p inside the kept set (the smallest set with mass >= p, at
// least one), min_p (keep p_i >= min_p max p), draw. Ties break to the smaller id. Thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

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

/// Draws one id. `previous`: ids so far (repetition penalty). `position` makes the draw: the same
/// (seed, sequence, position) gives the same uniform number whatever else runs.
/// NaN logits are never chosen; all NaN or -inf gives Error.
int32_t sample_token(const SamplingOptions& options, std::span<const float> logits,
                     std::span<const int32_t> previous, uint64_t sequence, uint64_t position);

/// The probabilities that sample_token draws from, for tests: (vocab), zeros outside the kept set.
std::vector<double> sampling_distribution(const SamplingOptions& options,
                                          std::span<const float> logits,
                                          std::span<const int32_t> previous);

}  // namespace adder
