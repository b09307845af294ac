// Training a Model one step at a time: forward, backward, global-norm clipping, AdamW.
#pragma once

#include "adder/model.h"

namespace adder {
inline namespace v0 {

/// AdamW as in PyTorch; weight decay on matrices only, not on norms, biases, A_log, D.
struct TrainerOptions {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1.0;  // of all gradients together; 0: no clipping
};

struct TrainStep {
  double loss = 0;           // mean cross-entropy in nats, before the update
  double gradient_norm = 0;  // before clipping
  bool skipped = false;      // loss or norm was not finite: nothing has changed
};

/// Holds the optimizer's moments and keeps the model's weights alive; every call counts as a
/// non-const call of the model.
class ADDER_API Trainer {
 public:
  explicit Trainer(Model& model, const TrainerOptions& options = {});
  Trainer(Trainer&&) noexcept;
  Trainer& operator=(Trainer&&) noexcept;
  ~Trainer();

  /// One update on `batch` rows; a target of -100 is left out. Throws as Model does, before
  /// anything has changed.
  TrainStep step(std::span<const int32_t> ids, std::span<const int32_t> targets, int64_t batch = 1);
  /// For the following steps: a schedule is the caller's.
  void set_learning_rate(double value);
  /// Updates made, skipped ones left out.
  int64_t steps() const;

 private:
  struct ADDER_HIDDEN Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace v0
}  // namespace adder
