// A whole training run in a folder: steps, validation, metrics, checkpoints, resume, a clean stop.
//
//   OUT/config.toml                 the effective recipe (written by room tasks)
//   OUT/checkpoints/*.adder         the newest ones and the best by validation
//   OUT/metrics.jsonl  OUT/events.out.tfevents.adder  OUT/sample.txt
//   OUT/loss.svg  OUT/loss.png
//   OUT/model/                      the model of the best validation loss, when the run is done
//   OUT/result.json                 what it reached, written last
//
// A resumed run continues with the bits of one that never stopped: weights, moments, counters and
// logs come from the newest valid checkpoint, and batches depend on (seed, step) alone.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "formats/json.h"
#include "models/language_model.h"
#include "train/batch_source.h"
#include "train/evaluation.h"
#include "train/metrics.h"
#include "train/train_config.h"
#include "train/trainer.h"

namespace adder {

struct TrainStart {
  int64_t first_step = 1;  // > 1 when resumed
  int64_t steps = 0;
  int64_t parameters = 0;
  int64_t trainable = 0;
  int64_t memory_bytes = 0;  // weights, gradients, moments, arena
  double epochs = 0;         // that the run makes over its data
  int threads = 1;
  std::string loss_unit;  // "nats/byte", "nats/token"
};

struct TrainResult {
  bool finished = false;  // false: stopped on request, --resume goes on
  int64_t step = 0;
  int64_t steps = 0;
  int64_t tokens = 0;
  int64_t skipped = 0;
  double seconds = 0;       // over all sessions
  double tokens_per_s = 0;  // while stepping
  int64_t parameters = 0;
  int64_t best_step = 0;           // of the saved model
  std::optional<double> val_loss;  // of the saved model, over all validation tokens
  std::optional<double> bits_per_byte;
  std::string loss_unit;
  double train_loss = 0;   // of the last step
  std::string model_note;  // why the model is not in the Hugging Face layout, or ""
  std::string plot_note;   // why there is no plot, or ""
};

JsonValue train_result_json(const TrainResult& result);
TrainResult train_result_from_json(const JsonValue& json, const std::string& where);

/// Hears what happens, from the thread that trains. Every call does nothing unless overridden.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  virtual void on_start(const TrainStart&) {}
  virtual void on_step(const MetricsRecord&, const StepReport&) {}
  virtual void on_eval(int64_t /*step*/, const Evaluation&) {}
  /// The text of a validation; the one at the end is only in sample.txt.
  virtual void on_sample(int64_t /*step*/, const std::string& /*text*/) {}
  virtual void on_checkpoint(int64_t /*step*/, const std::string& /*path*/) {}
  /// Something worth knowing that is no failure: a skipped step, a checkpoint that did not verify.
  virtual void on_note(const std::string&) {}
};

struct TrainRun {
  /// With its start values; the run uses its device and threads.
  LanguageModel<float>* model = nullptr;
  const BatchSource* batches = nullptr;
  const EvalSource* validation = nullptr;  // may be absent: no validation
  TrainConfig train;
  LogConfig log;
  /// The effective recipe as {"section.key": value}. A resumed run must have the same, but for the
  /// sections and keys of may_change ("log.*", "train.steps").
  JsonValue recipe;
  std::vector<std::string> may_change;
  /// Tells data apart; a resumed run must have the same.
  JsonValue data;
  std::string out;
  std::string title;
  std::string loss_unit = "nats/byte";
  bool resume = false;
  /// Called once nothing can refuse the run any more, before its first step; may be empty.
  std::function<void()> accepted;
  /// The model's text at a step, `last` when the run is done; may be empty.
  std::function<std::string(int64_t step, bool last)> sample;
  std::function<bool()> stop_requested;  // may be empty
  TrainObserver* observer = nullptr;     // may be absent
};

/// Runs to the last step or until a stop is requested. The caller holds RunLock(run.out). Errors
/// (full disk, data gone, loss that stays not finite) leave the checkpoints that were there.
TrainResult run_training(const TrainRun& run);

/// Throws Error naming the first key in which two flat recipes differ, other than may_change.
void refuse_changed_recipe(const JsonValue& stored, const JsonValue& now,
                           const std::vector<std::string>& may_change, const std::string& where);

}  // namespace adder
