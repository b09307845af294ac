// A run keeps this beside weights and moments; here it goes into a checkpoint and back.
#pragma once

#include <optional>
#include <string>

#include "formats/checkpoint.h"
#include "formats/json.h"
#include "train/append_log.h"
#include "train/checkpoint_writer.h"
#include "train/loop.h"
#include "train/metrics.h"
#include "train/run_folder.h"

namespace adder {

struct RunState {
  int64_t tokens = 0;
  double seconds = 0;       // wall time of the run, over all sessions
  double step_seconds = 0;  // of which inside steps
  int64_t skipped_in_a_row = 0;
  double last_loss = 0;
  std::optional<int64_t> best_step;
  double best_loss = 0;                  // its compare_loss
  std::optional<Evaluation> final_eval;  // over all, after the last step
};

/// The paths and growing files of OUT.
class RunFiles {
 public:
  /// Makes the folders.
  RunFiles(const std::string& out, const LogConfig& log);

  std::string path(const std::string& name) const { return out_ + "/" + name; }
  std::string checkpoints() const { return checkpoint_folder(out_); }

  /// Opens the growing files, cut to what `sizes` (from sizes(), or null for a new run) says.
  void open_logs(const JsonValue& sizes);
  JsonValue sizes() const;
  void record(const MetricsRecord& record);
  void add_sample(const std::string& heading, const std::string& text);
  void sync();

 private:
  std::string out_;
  LogConfig log_;
  AppendLog metrics_;
  AppendLog samples_;
  EventLog events_;
};

/// The job that makes OUT/checkpoints/checkpoint-STEP.adder of the trainer's staged tensors, with
/// the logs as long as they are now. `files` must outlive the writing.
CheckpointJob checkpoint_job(const TrainRun& run, const Trainer& trainer, const RunState& state,
                             RunFiles& files);

/// Loads the newest valid checkpoint into trainer and state and returns the sizes of the logs when
/// it was saved. Nothing when there is no checkpoint. Error when recipe or data differ.
std::optional<JsonValue> resume_run(const TrainRun& run, Trainer& trainer, RunState& state,
                                    const RunFiles& files);

}  // namespace adder
