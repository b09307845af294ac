#include <algorithm>
#include <cmath>

#include "api/model_impl.h"
#include "core/error.h"
#include "kernels/optim/optim.h"

namespace adder {

struct Trainer::Impl {
  std::shared_ptr<Model::Impl> model;
  TrainerOptions options;
  std::vector<float> m;  // first and second moments, laid out as the parameters
  std::vector<float> v;
  int64_t steps = 0;

  void update(double clip_coefficient);
};

namespace {

constexpr double kNormFloor = 1e-6;  // PyTorch's clip_grad_norm_

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

}  // namespace

Trainer::Trainer(Model& model, const TrainerOptions& options) : impl_(new Impl) {
  check_options(options);
  impl_->model = model.impl_;
  impl_->options = options;
  impl_->model->enable_training();
  const size_t total = static_cast<size_t>(impl_->model->model->params().total());
  impl_->m.assign(total, 0.0f);
  impl_->v.assign(total, 0.0f);
}
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer& Trainer::operator=(Trainer&&) noexcept = default;
Trainer::~Trainer() = default;

void Trainer::Impl::update(double clip_coefficient) {
  LanguageModel<float>& language_model = *model->model;
  const ParamTable& table = language_model.params();
  StepValues values;
  values.learning_rate = options.learning_rate;
  values.clip_coefficient = clip_coefficient;
  values.step = ++steps;
  run_planned(model->threads, [&](Context& context) {
    for (int64_t i = 0; i < table.size(); ++i) {
      const ParamInfo& info = table.info(i);
      if (!info.trainable || !info.alias_of.empty()) continue;
      OptimShape shape;
      shape.count = info.count();
      AdamWArgs<float> args;
      args.constants = {options.beta1, options.beta2, options.eps,
                        info.decay ? options.weight_decay : 0.0};
      args.values = &values;
      args.g = language_model.grad(i);
      args.p = language_model.value(i);
      args.m = m.data() + table.offset(i);
      args.v = v.data() + table.offset(i);
      adamw_step(context, shape, args);
    }
    language_model.refresh_weights(context);
  });
}

TrainStep Trainer::step(std::span<const int32_t> ids, std::span<const int32_t> targets,
                        int64_t batch) {
  Model::Impl& model = *impl_->model;
  TrainStep result;
  result.loss = model.loss_and_gradients(model.batch(ids, targets, batch));
  double squares = 0;
  run_planned(model.threads, [&](Context& context) {
    squares = sum_of_squares(context, model.model->params().total(), model.model->grads());
  });
  result.gradient_norm = std::sqrt(squares);
  result.skipped = !std::isfinite(result.loss) || !std::isfinite(result.gradient_norm);
  if (result.skipped) return result;
  const double clip = impl_->options.clip_norm;
  impl_->update(clip > 0 ? std::min(1.0, clip / (result.gradient_norm + kNormFloor)) : 1.0);
  return result;
}

void Trainer::set_learning_rate(double value) {
  check_option(value >= 0 && std::isfinite(value), "learning_rate", ">= 0", value);
  impl_->options.learning_rate = value;
}

int64_t Trainer::steps() const { return impl_->steps; }

}  // namespace adder
