// Optimizer steps over a source of batches, and the numbers that training carries from step to
// step. The loop around it is train/loop.h.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "formats/checkpoint.h"
#include "train/batch_source.h"
#include "train/checkpoint_writer.h"
#include "train/optimizer_step.h"
#include "train/train_config.h"

namespace adder {

/// Not thread-safe.
class Trainer {
 public:
  /// Freezes what config.freeze names (Error for a pattern that matches nothing or when nothing is
  /// left to train) and takes all memory that steps need. Model and batches must outlive it.
  Trainer(LanguageModel<float>& model, const TrainConfig& config, const BatchSource& batches,
          const Context& context);

  /// Enqueues the next step; the report of the one before, unless it was given already.
  std::optional<StepReport> step();
  /// Waits for the last step; its report, unless it was given already.
  std::optional<StepReport> finish() { return step_.finish(); }

  int64_t steps_done() const { return step_.steps(); }
  int64_t skipped() const { return step_.skipped(); }
  const OptimizerStep& optimizer() const { return step_; }
  /// The memory that steps work in, for what runs between them.
  Workspace& workspace() { return step_.workspace(); }
  LanguageModel<float>& model() const { return step_.model(); }
  const TrainConfig& config() const { return config_; }

  /// Copies weights and moments into host memory, under "weights.", "adam_m." and "adam_v." plus
  /// the parameter's name. After finish() only, as counters().
  void stage(StagedCheckpoint& staged) const;
  /// Bytes of host memory that stage() takes.
  int64_t staging_bytes() const;
  JsonValue counters() const;
  /// The inverse; every tensor must be there with its shape.
  void restore(const Checkpoint& checkpoint, const JsonValue& counters);
  void restore_weights(const Checkpoint& checkpoint);

 private:
  static LanguageModel<float>& freeze(LanguageModel<float>& model, const TrainConfig& config);

  TrainConfig config_;
  const BatchSource& batches_;
  OptimizerStep step_;
  std::vector<int32_t> ids_, targets_;  // (accumulation, batch, len)
};

}  // namespace adder
