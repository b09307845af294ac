// The two passes of sampling that touch the whole vocabulary.
#pragma once

#include <cstdint>

namespace adder {

/// The largest logit, NaN left out; -inf when there is none.
float largest_logit(const float* logits, int64_t count);

/// weight[i] = e^((logit[i] - most) / temperature), in double; NaN weighs 0.
void softmax_weights(const float* logits, int64_t count, float most, double temperature,
                     double* weight);

}  // namespace adder
