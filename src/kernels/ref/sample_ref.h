// Reference of family `sample`: the distribution by full sorting, step by step as formats.md 3.6
// lists them.
#pragma once

#include "kernels/sample/sample.h"

namespace adder::ref {

std::vector<double> sampling_distribution(const SamplingOptions& options,
                                          std::span<const float> logits,
                                          std::span<const int32_t> previous);

}  // namespace adder::ref
