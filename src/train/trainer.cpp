#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "kernels/loss/loss.h"
#include "train/schedule.h"

namespace adder {
namespace {

constexpr double kNormFloor = 1e-6;  // PyTorch's clip_grad_norm_
constexpr const char* kWeights = "weights.";
constexpr const char* kFirst = "adam_m.";
constexpr const char* kSecond = "adam_v.";

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Trainer::Trainer(LanguageModel<float>& model, const TrainConfig& config, const BatchSource& batches,
                 Context& context)
    : model_(model), config_(config), batches_(batches), context_(context) {
  freeze_parameters();
  model_.enable_training();
  plan_ranges();
  m_ = Buffer(moments_ * static_cast<int64_t>(sizeof(float)));
  v_ = Buffer(moments_ * static_cast<int64_t>(sizeof(float)));
  std::memset(m_.data(), 0, static_cast<size_t>(m_.bytes()));
  std::memset(v_.data(), 0, static_cast<size_t>(v_.bytes()));
  ids_.resize(static_cast<size_t>(config_.step_tokens()));
  targets_.resize(static_cast<size_t>(config_.step_tokens()));
  row_loss_.resize(static_cast<size_t>(config_.batch * config_.len));
}

void Trainer::freeze_parameters() {
  for (const std::string& pattern : config_.freeze) {
    if (model_.freeze(pattern) == 0) {
      throw Error({"no parameter has a name like '" + pattern + "'", "train.freeze",
                   "a pattern such as 'backbone.embeddings.*'", ""});
    }
  }
}

void Trainer::plan_ranges() {
  const ParamTable& table = model_.params();
  for (int64_t i = 0; i < table.size(); ++i) {
    const ParamInfo& info = table.info(i);
    if (!info.trainable || !info.alias_of.empty()) continue;
    const int64_t begin = table.offset(i);
    const int64_t unit = kAlignment / static_cast<int64_t>(sizeof(float));
    const int64_t count = (info.count() + unit - 1) / unit * unit;
    const bool joins = !ranges_.empty() && ranges_.back().decay == info.decay &&
                       ranges_.back().begin + ranges_.back().count == begin;
    if (joins) {
      ranges_.back().count += count;
    } else {
      ranges_.push_back({begin, count, moments_, info.decay});
    }
    moments_ += count;
  }
  if (ranges_.empty()) throw Error({"every parameter is frozen", "train.freeze", "", ""});
}

int64_t Trainer::moment_offset(int64_t parameter) const {
  const ParamInfo& info = model_.params().info(parameter);
  if (!info.trainable || !info.alias_of.empty()) return -1;
  const int64_t begin = model_.params().offset(parameter);
  for (const Range& range : ranges_) {
    if (begin >= range.begin && begin < range.begin + range.count) {
      return range.moment + (begin - range.begin);
    }
  }
  return -1;
}

int64_t Trainer::trainable_count() const {
  int64_t sum = 0;
  for (const ParamInfo& info : model_.params().infos()) {
    if (info.trainable && info.alias_of.empty()) sum += info.count();
  }
  return sum;
}

int64_t Trainer::plan_step_bytes() const {
  return plan_bytes(context_, [&](Context& context) {
    TokenBatch batch;
    batch.layout.batch = config_.batch;
    batch.layout.len = config_.len;
    batch.ids = ids_.data();
    batch.targets = targets_.data();
    std::vector<double> row_loss(row_loss_.size());
    {
      const Arena::Scope scope(*context.arena);
      model_.train_batch(context, batch, {config_.label_smoothing, config_.z_loss}, 1.0,
                         row_loss.data());
    }
    for (const Range& range : ranges_) {
      const Arena::Scope scope(*context.arena);
      sum_of_squares(context, range.count, model_.grads() + range.begin);
      adamw_step<float>(context, {range.count}, adamw_args(range));
    }
    const Arena::Scope scope(*context.arena);
    model_.refresh_weights(context);
  });
}

double Trainer::forward_backward(int64_t step) {
  const int64_t micro_tokens = config_.batch * config_.len;
  for (int64_t micro = 0; micro < config_.accumulation; ++micro) {
    batches_.fill(step, micro, ids_.data() + micro * micro_tokens,
                  targets_.data() + micro * micro_tokens);
  }
  const auto valid = std::count_if(targets_.begin(), targets_.end(),
                                   [](int32_t target) { return target != kIgnoreIndex; });
  const double scale = valid > 0 ? 1.0 / static_cast<double>(valid) : 0.0;

  model_.zero_grads();
  double sum = 0;
  for (int64_t micro = 0; micro < config_.accumulation; ++micro) {
    const Arena::Scope scope(*context_.arena);
    TokenBatch batch;
    batch.layout.batch = config_.batch;
    batch.layout.len = config_.len;
    batch.ids = ids_.data() + micro * micro_tokens;
    batch.targets = targets_.data() + micro * micro_tokens;
    model_.train_batch(context_, batch, {config_.label_smoothing, config_.z_loss}, scale,
                       row_loss_.data());
    for (const double loss : row_loss_) sum += loss;
  }
  return sum * scale;
}

double Trainer::gradient_norm() {
  double sum = 0;
  for (const Range& range : ranges_) {
    const Arena::Scope scope(*context_.arena);
    sum += sum_of_squares(context_, range.count, model_.grads() + range.begin);
  }
  return std::sqrt(sum);
}

AdamWArgs<float> Trainer::adamw_args(const Range& range) const {
  AdamWArgs<float> args;
  args.constants = {config_.beta1, config_.beta2, config_.eps,
                    range.decay ? config_.weight_decay : 0.0};
  args.values = &values_;
  args.g = model_.grads() + range.begin;
  args.p = model_.values() + range.begin;
  args.m = m_.as<float>() + range.moment;
  args.v = v_.as<float>() + range.moment;
  return args;
}

void Trainer::apply(double learning_rate, double norm) {
  values_.learning_rate = learning_rate;
  values_.clip_coefficient =
      config_.clip > 0 ? std::min(1.0, config_.clip / (norm + kNormFloor)) : 1.0;
  values_.step = steps_done_ + 1 - skipped_;
  values_.skip = 0;
  for (const Range& range : ranges_) {
    const Arena::Scope scope(*context_.arena);
    adamw_step<float>(context_, {range.count}, adamw_args(range));
  }
  const Arena::Scope scope(*context_.arena);
  model_.refresh_weights(context_);
}

StepReport Trainer::step() {
  const auto start = Clock::now();
  StepReport report;
  report.step = steps_done_ + 1;
  report.tokens = config_.step_tokens();
  report.learning_rate = learning_rate(config_, report.step);
  report.loss = forward_backward(report.step);
  report.grad_norm = gradient_norm();
  report.skipped = !std::isfinite(report.loss) || !std::isfinite(report.grad_norm);
  if (report.skipped) {
    ++skipped_;
  } else {
    apply(report.learning_rate, report.grad_norm);
  }
  ++steps_done_;
  report.seconds = seconds_since(start);
  return report;
}

std::vector<TensorSource> Trainer::tensors() const {
  std::vector<TensorSource> sources;
  const ParamTable& table = model_.params();
  for (int64_t i = 0; i < table.size(); ++i) {
    const ParamInfo& info = table.info(i);
    if (!info.alias_of.empty()) continue;
    sources.push_back(tensor_source<float>(kWeights + info.name, info.shape, model_.value(i)));
    const int64_t moment = moment_offset(i);
    if (moment < 0) continue;
    sources.push_back(
        tensor_source<float>(kFirst + info.name, info.shape, m_.as<float>() + moment));
    sources.push_back(
        tensor_source<float>(kSecond + info.name, info.shape, v_.as<float>() + moment));
  }
  return sources;
}

JsonValue Trainer::counters() const {
  JsonValue counters;
  counters.set("step", steps_done_);
  counters.set("skipped", skipped_);
  return counters;
}

void Trainer::restore(const Checkpoint& checkpoint, const JsonValue& counters) {
  const ParamTable& table = model_.params();
  for (int64_t i = 0; i < table.size(); ++i) {
    const ParamInfo& info = table.info(i);
    if (!info.alias_of.empty()) continue;
    const int64_t moment = moment_offset(i);
    if (moment < 0) continue;
    checkpoint.read_as<float>(kFirst + info.name, m_.as<float>() + moment, info.shape);
    checkpoint.read_as<float>(kSecond + info.name, v_.as<float>() + moment, info.shape);
  }
  JsonFields fields(counters, checkpoint.path() + ": trainer");
  steps_done_ = fields.get_int("step");
  skipped_ = fields.get_int("skipped");
  restore_weights(checkpoint);
}

void Trainer::restore_weights(const Checkpoint& checkpoint) {
  const ParamTable& table = model_.params();
  for (int64_t i = 0; i < table.size(); ++i) {
    const ParamInfo& info = table.info(i);
    if (!info.alias_of.empty()) continue;
    checkpoint.read_as<float>(kWeights + info.name, model_.value(i), info.shape);
  }
  const Arena::Scope scope(*context_.arena);
  model_.refresh_weights(context_);
}

}  // namespace adder
