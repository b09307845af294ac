#include "train/trainer.h"

#include "core/error.h"
#include "train/schedule.h"

namespace adder {
namespace {

constexpr const char* kWeights = "weights.";
constexpr const char* kFirst = "adam_m.";
constexpr const char* kSecond = "adam_v.";

StepOptions step_options(const TrainConfig& config) {
  StepOptions options;
  options.adamw = {config.beta1, config.beta2, config.eps, config.weight_decay};
  options.clip = config.clip;
  options.loss = {config.label_smoothing, config.z_loss};
  return options;
}

}  // namespace

LanguageModel<float>& Trainer::freeze(LanguageModel<float>& model, const TrainConfig& config) {
  for (const std::string& pattern : config.freeze) {
    if (model.freeze(pattern) == 0) {
      throw Error({"no parameter has a name like '" + pattern + "'", "train.freeze",
                   "a pattern such as 'backbone.embeddings.*'", ""});
    }
  }
  return model;
}

Trainer::Trainer(LanguageModel<float>& model, const TrainConfig& config, const BatchSource& batches,
                 const Context& context)
    : config_(config),
      batches_(batches),
      step_(freeze(model, config), step_options(config), context),
      ids_(static_cast<size_t>(config.step_tokens())),
      targets_(static_cast<size_t>(config.step_tokens())) {
  step_.reserve(config.accumulation, config.batch, config.len);
}

std::optional<StepReport> Trainer::step() {
  const int64_t step = steps_done() + 1;
  const int64_t micro_tokens = config_.batch * config_.len;
  for (int64_t micro = 0; micro < config_.accumulation; ++micro) {
    batches_.fill(step, micro, ids_.data() + micro * micro_tokens,
                  targets_.data() + micro * micro_tokens);
  }
  return step_.enqueue({config_.accumulation, config_.batch, config_.len, ids_, targets_},
                       learning_rate(config_, step));
}

void Trainer::stage(StagedCheckpoint& staged) const {
  const ParamStore<float>& store = model().store();
  const auto moments = step_.moments();
  const auto add = [&](const char* prefix, const ParamInfo& info) {
    return reinterpret_cast<float*>(staged.add(prefix + info.name, Dtype::f32, info.shape));
  };
  auto moment = moments.begin();
  for (int64_t i = 0; i < store.table().size(); ++i) {
    const ParamInfo& info = store.table().info(i);
    if (!info.alias_of.empty()) continue;
    store.read(i, 0, info.count(), add(kWeights, info));
    if (moment == moments.end() || moment->parameter != i) continue;
    fetch_elements(store.context(), add(kFirst, info), moment->m, info.count());
    fetch_elements(store.context(), add(kSecond, info), moment->v, info.count());
    ++moment;
  }
}

int64_t Trainer::staging_bytes() const {
  const ParamTable& table = model().params();
  const auto room = [&](int64_t parameter) {
    return StagedCheckpoint::room(table.info(parameter).count() * int64_t{sizeof(float)});
  };
  int64_t bytes = 0;
  for (int64_t i = 0; i < table.size(); ++i) {
    if (table.info(i).alias_of.empty()) bytes += room(i);
  }
  for (const OptimizerStep::Moment& moment : step_.moments()) bytes += 2 * room(moment.parameter);
  return bytes;
}

JsonValue Trainer::counters() const {
  JsonValue counters;
  counters.set("step", step_.steps());
  counters.set("skipped", step_.skipped());
  return counters;
}

void Trainer::restore(const Checkpoint& checkpoint, const JsonValue& counters) {
  const ParamStore<float>& store = model().store();
  std::vector<float> values;
  const auto copy = [&](const std::string& name, const ParamInfo& info, float* to) {
    values.resize(static_cast<size_t>(info.count()));
    checkpoint.read_as<float>(name, values.data(), info.shape);
    copy_elements(store.context(), to, values.data(), info.count());
    store.context().backend().synchronize(store.context().stream);
  };
  for (const OptimizerStep::Moment& moment : step_.moments()) {
    const ParamInfo& info = store.table().info(moment.parameter);
    copy(kFirst + info.name, info, moment.m);
    copy(kSecond + info.name, info, moment.v);
  }
  JsonFields fields(counters, checkpoint.path() + ": trainer");
  const int64_t steps = fields.get_int("step");
  step_.restore_counters(steps, fields.get_int("skipped"));
  restore_weights(checkpoint);
}

void Trainer::restore_weights(const Checkpoint& checkpoint) {
  ParamStore<float>& store = model().store();
  std::vector<float> values;
  for (int64_t i = 0; i < store.table().size(); ++i) {
    const ParamInfo& info = store.table().info(i);
    if (!info.alias_of.empty()) continue;
    values.resize(static_cast<size_t>(info.count()));
    checkpoint.read_as<float>(kWeights + info.name, values.data(), info.shape);
    store.write(i, 0, info.count(), values.data());
  }
}

}  // namespace adder
