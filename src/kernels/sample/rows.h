// Private to the room: the line of the table, a row of logits at a time on one thread.
#pragma once

#include "kernels/sample/sample.h"

namespace adder {

void sample_rows(const SampleShape& shape, const SampleArgs& args, Exec exec);
int64_t sample_rows_scratch(const Caps&, const SampleShape& shape, Direction);

}  // namespace adder
