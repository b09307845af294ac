#include "train/run_state.h"

#include "core/error.h"
#include "train/run_folder.h"

namespace adder {
namespace {

constexpr const char* kKind = "adder training run";
constexpr int64_t kVersion = 1;
constexpr const char* kMetrics = "metrics.jsonl";
constexpr const char* kSamples = "sample.txt";
constexpr const char* kEvents = "events.out.tfevents.adder";

JsonValue state_json(const RunState& state) {
  JsonValue json;
  json.set("tokens", state.tokens);
  json.set("seconds", state.seconds);
  json.set("step_seconds", state.step_seconds);
  json.set("skipped_in_a_row", state.skipped_in_a_row);
  json.set("last_loss", state.last_loss);
  if (state.best_step) {
    json.set("best_step", *state.best_step);
    json.set("best_loss", state.best_loss);
  }
  if (state.final_eval) {
    JsonValue eval;
    eval.set("loss", state.final_eval->loss);
    eval.set("tokens", state.final_eval->tokens);
    eval.set("bits_per_byte", state.final_eval->bits_per_byte);
    eval.set("compare_loss", state.final_eval->compare_loss);
    json.set("final_eval", std::move(eval));
  }
  return json;
}

RunState state_from_json(const JsonValue& json, const std::string& where) {
  JsonFields fields(json, where);
  RunState state;
  state.tokens = fields.get_int("tokens");
  state.seconds = fields.get_double("seconds");
  state.step_seconds = fields.get_double("step_seconds");
  state.skipped_in_a_row = fields.get_int("skipped_in_a_row");
  state.last_loss = fields.get_double("last_loss");
  if (fields.has("best_step")) {
    state.best_step = fields.get_int("best_step");
    state.best_loss = fields.get_double("best_loss");
  }
  if (const JsonValue* eval = fields.find("final_eval")) {
    JsonFields inner(*eval, where + ".final_eval");
    state.final_eval =
        Evaluation{inner.get_double("loss"), inner.get_int("tokens"),
                   inner.get_double("bits_per_byte"), inner.get_double("compare_loss")};
  }
  return state;
}

const JsonValue& member(const Checkpoint& checkpoint, std::string_view key) {
  const JsonValue* value = checkpoint.manifest().find(key);
  if (value == nullptr) {
    throw Error({"not a checkpoint of a training run", checkpoint.path(),
                 "a manifest with '" + std::string(key) + "'", ""});
  }
  return *value;
}

int64_t size_of(const JsonValue& sizes, std::string_view name) {
  const JsonValue* size = sizes.find(name);
  return size == nullptr ? 0 : size->as_int();
}

}  // namespace

RunFiles::RunFiles(const std::string& out, const LogConfig& log) : out_(out), log_(log) {
  make_folder(out_);
  make_folder(checkpoints());
}

void RunFiles::open_logs(const JsonValue& sizes) {
  metrics_ = AppendLog(path(kMetrics), size_of(sizes, kMetrics));
  if (log_.sample) samples_ = AppendLog(path(kSamples), size_of(sizes, kSamples));
  if (log_.tensorboard) events_ = EventLog(path(kEvents), size_of(sizes, kEvents));
}

JsonValue RunFiles::sizes() const {
  JsonValue sizes = JsonValue::object();
  sizes.set(kMetrics, metrics_.bytes());
  if (samples_.open()) sizes.set(kSamples, samples_.bytes());
  if (events_.open()) sizes.set(kEvents, events_.log().bytes());
  return sizes;
}

void RunFiles::record(const MetricsRecord& record) {
  metrics_.append(metrics_line(record));
  if (events_.open()) events_.append(record);
}

void RunFiles::add_sample(const std::string& heading, const std::string& text) {
  if (samples_.open()) samples_.append("=== " + heading + " ===\n" + text + "\n\n");
}

void RunFiles::sync() {
  metrics_.sync();
  samples_.sync();
  events_.log().sync();
}

CheckpointJob checkpoint_job(const TrainRun& run, const Trainer& trainer, const RunState& state,
                             RunFiles& files) {
  CheckpointJob job;
  job.step = trainer.steps_done();
  job.manifest.set("kind", kKind);
  job.manifest.set("version", kVersion);
  job.manifest.set("trainer", trainer.counters());
  job.manifest.set("run", state_json(state));
  job.manifest.set("recipe", run.recipe);
  job.manifest.set("data", run.data);
  job.manifest.set("logs", files.sizes());
  // The sizes of the logs in the checkpoint must be true after a power loss.
  job.flush_logs = [&files] { files.sync(); };
  job.keep = run.log.keep;
  job.best = state.best_step;
  return job;
}

std::optional<JsonValue> resume_run(const TrainRun& run, Trainer& trainer, RunState& state,
                                    const RunFiles& files) {
  const auto skipped = [&](const std::string& path, const std::string& reason) {
    if (run.observer != nullptr) {
      run.observer->on_note("warning: checkpoint left aside: " + path + ": " + reason);
    }
  };
  const std::optional<Checkpoint> checkpoint = open_newest_valid(files.checkpoints(), skipped);
  if (!checkpoint) return std::nullopt;
  const std::string& path = checkpoint->path();
  if (member(*checkpoint, "kind") != JsonValue(kKind) ||
      member(*checkpoint, "version") != JsonValue(kVersion)) {
    throw Error({"not a checkpoint that this version can resume", path, "", ""});
  }
  refuse_changed_recipe(member(*checkpoint, "recipe"), run.recipe, run.may_change, path);
  const JsonValue& data = member(*checkpoint, "data");
  if (data != run.data) {
    throw Error({"the data is not that of the run", path, write_json(data, {.indent = 0}),
                 write_json(run.data, {.indent = 0})});
  }
  trainer.restore(*checkpoint, member(*checkpoint, "trainer"));
  state = state_from_json(member(*checkpoint, "run"), path + ": run");
  return member(*checkpoint, "logs");
}

}  // namespace adder
