// The numbers that change from one training step to the next. They lie in the memory of the device
// and lines read them there, so that a step only enqueues work and can be captured and replayed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace adder {

struct StepState {
  // The host writes these before a step, in one copy of StepInputs.
  double learning_rate = 0;
  double gradient_scale = 1;  // 1 / (valid targets of the step)
  // Lines write these during the step.
  double loss_sum = 0;   // of all rows, nats
  double squares = 0;    // of all gradients
  double grad_norm = 0;  // before clipping
  double clip = 1;       // multiplies every gradient
  int32_t skip = 0;      // 1: loss or norm was not finite, so nothing changes
  int32_t skipped = 0;   // number of steps so far that changed nothing
  int64_t updates = 0;   // steps of the whole run that did change something: AdamW's t
};

/// The leading part of StepState that the host writes.
struct StepInputs {
  double learning_rate = 0;
  double gradient_scale = 1;
};
static_assert(offsetof(StepState, loss_sum) == sizeof(StepInputs));

}  // namespace adder
