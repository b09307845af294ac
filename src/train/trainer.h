// One optimizer step over a language model, and the numbers that training carries from step to
// step. The loop around it is train/loop.h.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/buffer.h"
#include "core/context.h"
#include "formats/checkpoint.h"
#include "kernels/optim/optim.h"
#include "models/language_model.h"
#include "train/batch_source.h"
#include "train/train_config.h"

namespace adder {

struct StepReport {
  int64_t step = 0;      // from 1
  double loss = 0;       // mean over the valid tokens of the step, nats
  double grad_norm = 0;  // before clipping
  double learning_rate = 0;
  int64_t tokens = 0;    // of this step
  double seconds = 0;    // of this step
  bool skipped = false;  // loss or gradient was not finite: nothing was changed
};

/// Sequence: zero the gradients; forward and backward of every micro-batch with gradients scaled by
/// one over the valid tokens of the whole step; global norm; AdamW on every range of parameters;
/// derived weights. The bits depend on model, config and batches, not on the number of threads.
/// Not thread-safe.
class Trainer {
 public:
  /// Freezes what config.freeze names (Error for a pattern that matches nothing or when nothing is
  /// left to train) and enables training on `model`. Model, batches and context must outlive it;
  /// context.arena may be set until the first step and holds at least plan_step_bytes().
  Trainer(LanguageModel<float>& model, const TrainConfig& config, const BatchSource& batches,
          Context& context);

  int64_t plan_step_bytes() const;
  StepReport step();

  int64_t steps_done() const { return steps_done_; }
  int64_t skipped() const { return skipped_; }
  /// Parameters that are trained.
  int64_t trainable_count() const;
  LanguageModel<float>& model() const { return model_; }
  const TrainConfig& config() const { return config_; }
  Context& context() const { return context_; }

  /// Weights and moments under "weights.", "adam_m." and "adam_v." plus the parameter's name, and
  /// the counters; borrowed until the next step.
  std::vector<TensorSource> tensors() const;
  JsonValue counters() const;
  /// The inverse; every tensor must be there with its shape.
  void restore(const Checkpoint& checkpoint, const JsonValue& counters);
  void restore_weights(const Checkpoint& checkpoint);

 private:
  // Neighbouring parameters with the same constants: one optimizer call.
  struct Range {
    int64_t begin = 0;   // in the flat parameters
    int64_t count = 0;   // with the padding between, whose gradients are zero
    int64_t moment = 0;  // where its moments begin
    bool decay = false;
  };

  void plan_ranges();
  void freeze_parameters();
  double forward_backward(int64_t step);
  double gradient_norm();
  void apply(double learning_rate, double norm);
  AdamWArgs<float> adamw_args(const Range& range) const;
  // Where the moments of a trained parameter begin, -1 if it is frozen.
  int64_t moment_offset(int64_t parameter) const;

  LanguageModel<float>& model_;
  TrainConfig config_;
  const BatchSource& batches_;
  Context& context_;
  std::vector<Range> ranges_;
  Buffer m_, v_;
  int64_t moments_ = 0;
  std::vector<int32_t> ids_, targets_;  // (accumulation, batch, len)
  std::vector<double> row_loss_;        // (batch, len)
  StepValues values_;
  int64_t steps_done_ = 0;
  int64_t skipped_ = 0;
};

}  // namespace adder
