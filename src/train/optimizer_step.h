// One optimizer step over a language model: forward and backward of every micro-batch, the global
// norm, AdamW. A step only enqueues work; what it reports is read one step later, so that a device
// never waits for the host.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/step_state.h"
#include "core/workspace.h"
#include "kernels/optim/optim.h"
#include "models/model_runner.h"

namespace adder {

struct StepOptions {
  AdamWConstants adamw;  // weight_decay of matrices and embeddings; vectors have none
  double clip = 0;       // largest global gradient norm; 0: no clipping
  LossOptions loss;
};

/// The tokens of one step, in host memory: `accumulation` micro-batches of `batch` rows of `len`.
struct StepTokens {
  int64_t accumulation = 1;
  int64_t batch = 1;
  int64_t len = 0;
  std::span<const int32_t> ids;      // (accumulation, batch, len)
  std::span<const int32_t> targets;  // the id that follows, or kIgnoreIndex
};

struct StepReport {
  int64_t step = 0;      // from 1
  double loss = 0;       // mean over the valid targets of the step, nats
  double grad_norm = 0;  // before clipping
  double learning_rate = 0;
  int64_t tokens = 0;    // of this step
  double seconds = 0;    // between the ends of this step and of the one before, or of its own work
  bool skipped = false;  // loss or gradient was not finite: nothing was changed
};

/// The bits depend on model, options and tokens, not on the number of threads. Not thread-safe.
class OptimizerStep {
 public:
  /// A tensor of the optimizer's, in the memory of the device.
  struct Moment {
    int64_t parameter = 0;  // index in the model's table
    float* m = nullptr;     // (count) first and second moments of AdamW
    float* v = nullptr;
  };

  /// Enables training on `model`, which must outlive it. Throws Error when every parameter is
  /// frozen.
  OptimizerStep(LanguageModel<float>& model, const StepOptions& options, const Context& context);
  OptimizerStep(const OptimizerStep&) = delete;
  OptimizerStep& operator=(const OptimizerStep&) = delete;

  /// Plans and takes the memory of steps of this shape, so that enqueue() allocates nothing.
  void reserve(int64_t accumulation, int64_t batch, int64_t len);
  /// Enqueues a step and gives the report of the one before, unless that was given already. Throws
  /// Error on ids or targets out of range before anything has changed.
  std::optional<StepReport> enqueue(const StepTokens& tokens, double learning_rate);
  /// Waits for the last step; its report, unless it was given already.
  std::optional<StepReport> finish();

  /// Steps enqueued so far, and those known to have been skipped (all, after finish()).
  int64_t steps() const { return steps_; }
  int64_t skipped() const { return skipped_; }
  /// Goes on from counters and moments that a checkpoint holds. No step may be under way.
  void restore_counters(int64_t steps, int64_t skipped);
  std::vector<Moment> moments() const;

  /// Parameters that are trained.
  int64_t trainable_count() const;
  /// Bytes of moments, working memory and the model's parameters and gradients.
  int64_t memory_bytes() const;
  LanguageModel<float>& model() const { return model_; }
  Workspace& workspace() { return workspace_; }

 private:
  // Neighbouring parameters with the same constants: one optimizer call.
  struct Range {
    int64_t begin = 0;   // in the flat parameters
    int64_t count = 0;   // with the padding between, whose gradients are zero
    int64_t moment = 0;  // where its moments begin
    bool decay = false;
  };
  struct Pending {
    StepReport report;
    double gradient_scale = 0;
    void* mark = nullptr;
  };

  void plan_ranges();
  void run(Context& context, const TokenBatch& all, int64_t accumulation, int64_t batch);
  void update(Context& context);
  StepReport read_report();
  const StepState* state() const { return state_.data(); }

  LanguageModel<float>& model_;
  StepOptions options_;
  Workspace workspace_;
  CallArrays arrays_;
  std::vector<Range> ranges_;
  int64_t moments_ = 0;
  Buffer m_, v_;
  DeviceArray<StepState> state_;    // one, on the device
  DeviceArray<double> row_loss_;    // (batch, len) of a micro-batch
  DeviceArray<StepInputs> inputs_;  // two, pinned: of the step under way and of the next one
  DeviceArray<StepState> reports_;  // two, pinned
  std::vector<Pending> pending_;    // at most two, oldest first
  int64_t steps_ = 0;
  int64_t skipped_ = 0;
};

}  // namespace adder
