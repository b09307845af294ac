#include "train/loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "core/error.h"
#include "models/model_io.h"
#include "train/checkpoint_writer.h"
#include "train/plot.h"
#include "train/run_state.h"

namespace adder {
namespace {

constexpr int64_t kMostSkippedInARow = 50;

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point start, Clock::time_point end) {
  return std::chrono::duration<double>(end - start).count();
}

TrainObserver& silent_observer() {
  static TrainObserver observer;
  return observer;
}

// The run while it goes.
class Session {
 public:
  explicit Session(const TrainRun& run)
      : run_(run),
        observer_(run.observer != nullptr ? *run.observer : silent_observer()),
        files_(run.out, run.log),
        trainer_(*run.model, run.train, *run.batches, run.model->store().context()),
        scorer_(*run.model, trainer_.workspace(), "validation"),
        writer_(files_.checkpoints(), trainer_.staging_bytes(),
                scorer_.context().memory(MemoryKind::pinned)) {
    if (run_.validation != nullptr) scorer_.reserve_losses(eval_batch(), run_.validation->len());
  }

  TrainResult go();

 private:
  // Windows of a validation call: as many tokens as a micro-batch has.
  int64_t eval_batch() const {
    return std::max<int64_t>(run_.train.batch * run_.train.len / run_.validation->len(), 1);
  }

  // The result, when there is nothing left to do.
  std::optional<TrainResult> begin();
  std::optional<TrainResult> earlier_result() const;
  void train_step();
  /// Waits for the last step and takes its report: weights and counters are those after it.
  void settle();
  void account(const StepReport& report);
  bool validation_due(int64_t step) const;
  void validate(MetricsRecord& record);
  void checkpoint();
  bool checkpoint_due() const;
  /// Tells which checkpoints are written, and why others are not.
  void tell(const std::vector<CheckpointOutcome>& outcomes);
  /// Throws Error unless the last checkpoint is saved.
  void require_saved() const;
  bool stop_requested() const { return run_.stop_requested && run_.stop_requested(); }
  bool done() const { return trainer_.steps_done() >= run_.train.steps; }
  void add_sample(int64_t step, bool last, const std::string& heading);
  void draw();
  TrainResult result() const;
  TrainResult finish();
  bool load_weights(int64_t step);
  // Wall time of the run, over all sessions.
  double seconds() const { return seconds_before_ + seconds_between(session_start_, Clock::now()); }

  const TrainRun& run_;
  TrainObserver& observer_;
  RunFiles files_;
  Trainer trainer_;
  ModelRunner<float> scorer_;
  RunState state_;
  Clock::time_point session_start_ = Clock::now();
  Clock::time_point checkpoint_time_ = Clock::now();
  double seconds_before_ = 0;
  int64_t checkpointed_step_ = -1;  // handed to the writer, and not known to have failed
  std::string unsaved_;             // why the last checkpoint was not saved, or ""
  // The best validation when the newest checkpoint was staged, and when the newest file was.
  struct Best {
    std::optional<int64_t> step;
    double loss = 0;
  };
  Best staged_best_, saved_best_;
  int64_t logged_tokens_ = 0;  // tokens and seconds of steps since the last line of metrics
  double logged_seconds_ = 0;
  std::string plot_note_;
  CheckpointWriter writer_;  // last: it ends first, while the logs that it flushes are open
};

// The result of a run that is done already: nothing is touched then, not even its logs.
std::optional<TrainResult> Session::earlier_result() const {
  const std::string path = files_.path("result.json");
  if (!done() || !std::filesystem::exists(path)) return std::nullopt;
  const TrainResult result = train_result_from_json(read_json_file(path), path);
  if (result.step != trainer_.steps_done()) return std::nullopt;  // of fewer steps
  return result;
}

std::optional<TrainResult> Session::begin() {
  std::optional<JsonValue> logs;
  if (run_.resume) {
    logs = resume_run(run_, trainer_, state_, files_);
    if (!logs) observer_.on_note("no checkpoint to resume from: the run starts anew");
  } else {
    refuse_existing_run(run_.out);
  }
  if (logs) {
    checkpointed_step_ = trainer_.steps_done();
    saved_best_ = {state_.best_step, state_.best_loss};
    if (const auto result = earlier_result()) return result;
  } else {
    std::filesystem::remove(files_.path("result.json"));
  }
  files_.open_logs(logs.value_or(JsonValue::object()));
  if (run_.accepted) run_.accepted();
  seconds_before_ = state_.seconds;

  TrainStart start;
  start.first_step = trainer_.steps_done() + 1;
  start.steps = run_.train.steps;
  start.parameters = run_.model->params().parameter_count();
  start.trainable = trainer_.optimizer().trainable_count();
  start.memory_bytes = trainer_.optimizer().memory_bytes() + writer_.staging_bytes();
  const double per_epoch = run_.batches->steps_per_epoch();
  start.epochs = per_epoch > 0 ? static_cast<double>(run_.train.steps) / per_epoch : 0;
  start.threads = scorer_.context().threads;
  start.loss_unit = run_.loss_unit;
  observer_.on_start(start);
  return std::nullopt;
}

void Session::add_sample(int64_t step, bool last, const std::string& heading) {
  if (!run_.sample) return;
  const std::string text = run_.sample(step, last);
  files_.add_sample(heading, text);
  if (!last) observer_.on_sample(step, text);
}

void Session::validate(MetricsRecord& record) {
  EvalOptions options;
  options.batch = eval_batch();
  const int64_t len = run_.validation->len();
  if (run_.log.eval_tokens > 0) {
    options.compare_windows = std::max<int64_t>(run_.log.eval_tokens / len, 1);
    if (!done()) options.max_windows = options.compare_windows;
  }
  const Evaluation eval = evaluate(scorer_, *run_.validation, options);
  record.val_loss = eval.loss;
  record.bits_per_byte = eval.bits_per_byte;
  observer_.on_eval(record.step, eval);
  add_sample(record.step, false,
             fmt::format("step {}, validation loss {:.4f}", record.step, eval.loss));
  if (done()) state_.final_eval = eval;
  // The best so far counts once it is in a file: one that cannot be saved must not hide this one.
  if (state_.best_step && *state_.best_step == checkpointed_step_) tell(writer_.finish());
  const bool better = !state_.best_step || eval.compare_loss < state_.best_loss;
  if (std::isfinite(eval.compare_loss) && better) {
    state_.best_step = record.step;
    state_.best_loss = eval.compare_loss;
  }
}

bool Session::checkpoint_due() const {
  if (done()) return true;
  const int64_t every = run_.log.checkpoint_every;
  if (every > 0 && trainer_.steps_done() % every == 0) return true;
  return run_.log.checkpoint_seconds > 0 &&
         seconds_between(checkpoint_time_, Clock::now()) >= run_.log.checkpoint_seconds;
}

// Staged here; the writer's thread writes and verifies it while training goes on.
void Session::checkpoint() {
  settle();
  if (checkpointed_step_ == trainer_.steps_done()) return;
  StagedCheckpoint& staged = writer_.stage();
  tell(writer_.poll());  // before the state is staged: a save that failed changes which is the best
  state_.seconds = seconds();
  trainer_.stage(staged);
  writer_.start(checkpoint_job(run_, trainer_, state_, files_));
  staged_best_ = {state_.best_step, state_.best_loss};
  checkpointed_step_ = trainer_.steps_done();
  checkpoint_time_ = Clock::now();
}

void Session::tell(const std::vector<CheckpointOutcome>& outcomes) {
  for (const CheckpointOutcome& outcome : outcomes) {
    const bool told = !outcome.saved && unsaved_ == outcome.problem;
    unsaved_ = outcome.saved ? "" : outcome.problem;
    if (outcome.saved) {
      saved_best_ = staged_best_;
      observer_.on_checkpoint(outcome.step, outcome.path);
      if (!outcome.problem.empty()) observer_.on_note("warning: " + outcome.problem);
      continue;
    }
    if (checkpointed_step_ == outcome.step) checkpointed_step_ = -1;
    const bool in_memory = done() && outcome.step == trainer_.steps_done();
    if (state_.best_step == outcome.step && !in_memory) {  // gone: the best before it counts
      state_.best_step = saved_best_.step;
      state_.best_loss = saved_best_.loss;
    }
    if (told) continue;  // once for saves in a row that fail alike
    observer_.on_note(fmt::format("warning: checkpoint of step {} not saved: {}; the run goes on",
                                  outcome.step, outcome.problem));
  }
}

void Session::require_saved() const {
  if (!unsaved_.empty()) throw Error("the last checkpoint was not saved: " + unsaved_);
}

bool Session::validation_due(int64_t step) const {
  if (run_.validation == nullptr) return false;
  return step >= run_.train.steps || (run_.log.eval_every > 0 && step % run_.log.eval_every == 0);
}

void Session::account(const StepReport& report) {
  state_.tokens += report.tokens;
  state_.step_seconds += report.seconds;
  state_.last_loss = report.loss;
  logged_tokens_ += report.tokens;
  logged_seconds_ += report.seconds;
  state_.skipped_in_a_row = report.skipped ? state_.skipped_in_a_row + 1 : 0;
  if (report.skipped) {
    observer_.on_note(fmt::format("step {} skipped: loss {} or gradient norm {} is not finite",
                                  report.step, report.loss, report.grad_norm));
  }
  if (state_.skipped_in_a_row >= kMostSkippedInARow) {
    throw Error(
        fmt::format("{} steps in a row were not finite; a lower train.lr (now {}) or "
                    "train.clip (now {}) may help",
                    kMostSkippedInARow, run_.train.lr, run_.train.clip));
  }

  MetricsRecord record;
  record.step = report.step;
  record.tokens = state_.tokens;
  record.train_loss = report.loss;
  record.lr = report.learning_rate;
  record.grad_norm = report.grad_norm;
  record.skipped = trainer_.skipped();
  if (logged_seconds_ > 0) {
    record.tokens_per_s = static_cast<double>(logged_tokens_) / logged_seconds_;
  }
  const bool eval = validation_due(report.step);
  if (eval) validate(record);
  record.seconds = seconds();
  if (eval || report.step >= run_.train.steps || report.step % run_.log.every == 0) {
    files_.record(record);
    logged_tokens_ = 0;
    logged_seconds_ = 0;
  }
  observer_.on_step(record, report);
}

void Session::settle() {
  if (const auto report = trainer_.finish()) account(*report);
}

void Session::train_step() {
  if (const auto report = trainer_.step()) account(*report);
  if (validation_due(trainer_.steps_done()) || checkpoint_due()) {
    const std::optional<int64_t> best_before = state_.best_step;
    settle();
    if (state_.best_step != best_before || checkpoint_due()) checkpoint();
  }
  tell(writer_.poll());
}

void Session::draw() {
  plot_note_ = "not asked for";
  if (!run_.log.plot) return;
  LossPlot plot;
  plot.directory = run_.out;
  plot.title = run_.title;
  plot.loss_unit = run_.loss_unit;
  plot_note_ = draw_losses(read_metrics(files_.path("metrics.jsonl")), plot);
  if (!plot_note_.empty()) observer_.on_note(plot_note_);
}

TrainResult Session::result() const {
  TrainResult result;
  result.step = trainer_.steps_done();
  result.steps = run_.train.steps;
  result.tokens = state_.tokens;
  result.skipped = trainer_.skipped();
  result.seconds = seconds();
  if (state_.step_seconds > 0) {
    result.tokens_per_s = static_cast<double>(state_.tokens) / state_.step_seconds;
  }
  result.parameters = run_.model->params().parameter_count();
  result.best_step = result.step;
  result.train_loss = state_.last_loss;
  result.loss_unit = run_.loss_unit;
  result.plot_note = plot_note_;
  return result;
}

bool Session::load_weights(int64_t step) {
  const std::string path = files_.checkpoints() + "/" + checkpoint_name(step);
  try {
    trainer_.restore_weights(load_checkpoint(path));
    return true;
  } catch (const Error& error) {
    observer_.on_note(fmt::format("the best checkpoint cannot be used: {}", error.what()));
    return false;
  }
}

// After the last step: keeps the weights of the best validation, scored on every validation token.
TrainResult Session::finish() {
  tell(writer_.finish());
  TrainResult report = result();
  if (state_.final_eval) {
    Evaluation kept = *state_.final_eval;
    if (state_.best_step && *state_.best_step < report.step && load_weights(*state_.best_step)) {
      kept = evaluate(scorer_, *run_.validation, {eval_batch(), 0, 0});
      report.best_step = *state_.best_step;
    }
    report.val_loss = kept.loss;
    report.bits_per_byte = kept.bits_per_byte;
  }
  report.model_note = save_model(*run_.model, files_.path("model"));
  require_saved();  // after the model, which must not be lost with it
  add_sample(report.best_step, true,
             report.val_loss ? fmt::format("the saved model (step {}, validation loss {:.4f})",
                                           report.best_step, *report.val_loss)
                             : fmt::format("the saved model (step {})", report.best_step));
  draw();
  report.plot_note = plot_note_;
  report.finished = true;
  report.seconds = seconds();
  files_.sync();
  write_json_file(files_.path("result.json"), train_result_json(report));
  return report;
}

TrainResult Session::go() {
  if (const auto earlier = begin()) return *earlier;
  while (!done()) {
    if (stop_requested()) {
      checkpoint();
      tell(writer_.finish());
      require_saved();
      draw();
      return result();
    }
    train_step();
  }
  return finish();
}

}  // namespace

TrainResult run_training(const TrainRun& run) { return Session(run).go(); }

}  // namespace adder
