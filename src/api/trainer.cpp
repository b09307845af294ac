#include <cmath>

#include "api/model_impl.h"
#include "core/error.h"
#include "train/optimizer_step.h"

namespace adder {

namespace {

void check_option(bool good, const char* name, const char* expected, double value) {
  if (good) return;
  throw Error(
      {"out of range", std::string("TrainerOptions: ") + name, expected, std::to_string(value)});
}

void check_options(const TrainerOptions& o) {
  check_option(o.learning_rate >= 0 && std::isfinite(o.learning_rate), "learning_rate", ">= 0",
               o.learning_rate);
  check_option(o.beta1 >= 0 && o.beta1 < 1, "beta1", "[0, 1)", o.beta1);
  check_option(o.beta2 >= 0 && o.beta2 < 1, "beta2", "[0, 1)", o.beta2);
  check_option(o.eps > 0 && std::isfinite(o.eps), "eps", "> 0", o.eps);
  check_option(o.weight_decay >= 0 && std::isfinite(o.weight_decay), "weight_decay", ">= 0",
               o.weight_decay);
  check_option(o.clip_norm >= 0, "clip_norm", ">= 0", o.clip_norm);
}

StepOptions step_options(const TrainerOptions& o) {
  check_options(o);
  StepOptions options;
  options.adamw = {o.beta1, o.beta2, o.eps, o.weight_decay};
  options.clip = o.clip_norm;
  return options;
}

}  // namespace

struct Trainer::Impl {
  std::shared_ptr<Model::Impl> model;
  double learning_rate = 0;
  OptimizerStep optimizer;
};

Trainer::Trainer(Model& model, const TrainerOptions& options) {
  const StepOptions checked = step_options(options);
  Model::Impl& parts = *model.impl_;
  impl_.reset(new Impl{model.impl_, options.learning_rate, {*parts.model, checked, parts.context}});
}
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer& Trainer::operator=(Trainer&&) noexcept = default;
Trainer::~Trainer() = default;

TrainStep Trainer::step(std::span<const int32_t> ids, std::span<const int32_t> targets,
                        int64_t batch) {
  const CallInput input = impl_->model->input_with_targets(ids, targets, batch);
  StepTokens tokens;
  tokens.batch = batch;
  tokens.len = input.len;
  tokens.ids = ids;
  tokens.targets = targets;
  impl_->optimizer.enqueue(tokens, impl_->learning_rate);
  const StepReport report = *impl_->optimizer.finish();
  return {report.loss, report.grad_norm, report.skipped};
}

void Trainer::set_learning_rate(double value) {
  check_option(value >= 0 && std::isfinite(value), "learning_rate", ">= 0", value);
  impl_->learning_rate = value;
}

int64_t Trainer::steps() const { return impl_->optimizer.steps() - impl_->optimizer.skipped(); }

}  // namespace adder
