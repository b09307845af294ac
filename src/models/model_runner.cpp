#include "models/model_runner.h"

namespace adder {

template <class Acc>
ModelRunner<Acc>::ModelRunner(const LanguageModel<Acc>& model, std::unique_ptr<Workspace> own,
                              Workspace* shared, std::string where)
    : model_(model),
      own_(std::move(own)),
      workspace_(shared != nullptr ? *shared : *own_),
      arrays_(context(), model.config().vocab_size, std::move(where)),
      logits_(context().memory(MemoryKind::device)),
      row_loss_(context().memory(MemoryKind::device)),
      scale_(context().memory(MemoryKind::device)) {}

template <class Acc>
template <class Call>
void ModelRunner<Acc>::run(CallKind kind, const TokenBatch& batch, const Call& call) {
  workspace_.run(Workspace::Key{static_cast<int64_t>(kind), batch.layout.batch, batch.layout.len,
                                batch.layout.sequences * 2 + (batch.wanted != nullptr ? 1 : 0)},
                 call);
}

template <class Acc>
const Acc* ModelRunner<Acc>::enqueue_logits(const TokenBatch& batch, DecodeState* state) {
  Acc* out = logits_.hold(batch.logit_rows() * model_.padded_vocab());
  run(CallKind::logits, batch,
      [&](Context& context) { model_.logits(context, batch, state, out); });
  return out;
}

template <class Acc>
std::span<const Acc> ModelRunner<Acc>::fetch_logits(const Acc* logits, int64_t rows) {
  const auto count = static_cast<size_t>(rows * model_.padded_vocab());
  if (host_logits_.size() < count) host_logits_.resize(count);
  fetch(host_logits_.data(), logits, rows * model_.padded_vocab());
  return std::span<const Acc>(host_logits_).first(count);
}

template <class Acc>
std::span<const Acc> ModelRunner<Acc>::logits(const CallInput& input, DecodeState* state) {
  const TokenBatch batch = load(input, state != nullptr ? state->slots() : 0);
  return fetch_logits(enqueue_logits(batch, state), batch.logit_rows());
}

template <class Acc>
std::span<const double> ModelRunner<Acc>::fetch_losses(int64_t rows) {
  host_losses_.resize(static_cast<size_t>(rows));
  fetch(host_losses_.data(), row_loss_.data(), rows);
  return host_losses_;
}

template <class Acc>
void ModelRunner<Acc>::reserve_losses(int64_t batch, int64_t len) {
  const std::vector<int32_t> zeros(static_cast<size_t>(batch * len));
  const TokenBatch call = load({.batch = batch, .len = len, .ids = zeros, .targets = zeros});
  double* row_loss = row_loss_.hold(batch * len);
  workspace_.reserve([&](Context& context) { model_.evaluate(context, call, {}, row_loss); });
}

template <class Acc>
std::span<const double> ModelRunner<Acc>::losses(const CallInput& input,
                                                 const LossOptions& options) {
  const TokenBatch batch = load(input);
  double* row_loss = row_loss_.hold(input.rows());
  run(CallKind::losses, batch,
      [&](Context& context) { model_.evaluate(context, batch, options, row_loss); });
  return fetch_losses(input.rows());
}

template <class Acc>
std::span<const double> ModelRunner<Acc>::losses_and_gradients(LanguageModel<Acc>& model,
                                                               const CallInput& input, double scale,
                                                               const LossOptions& options) {
  ADDER_CHECK(&model == &model_);
  const TokenBatch batch = load(input);
  double* row_loss = row_loss_.hold(input.rows());
  double* device_scale = scale_.hold(1);
  copy_elements(context(), device_scale, &scale, 1);
  run(CallKind::gradients, batch, [&](Context& context) {
    model.train_batch(context, batch, options, device_scale, row_loss);
  });
  return fetch_losses(input.rows());
}

template class ModelRunner<float>;
template class ModelRunner<double>;

}  // namespace adder
