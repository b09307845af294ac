// Private to the room: the line of the table, a row of logits at a time on one thread, and its two
// passes over the whole vocabulary.
#pragma once

#include "kernels/sample/sample.h"

namespace adder {

void sample_rows(const SampleShape& shape, const SampleArgs& args, Exec exec);
int64_t sample_rows_scratch(const Caps&, const SampleShape& shape, Direction);

/// The largest logit, NaN left out; -inf when there is none.
float largest_logit(const float* logits, int64_t count);

/// weight[i] = e^((logit[i] - most) / temperature), in double; NaN weighs 0.
void softmax_weights(const float* logits, int64_t count, float most, double temperature,
                     double* weight);

}  // namespace adder
