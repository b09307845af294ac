#include "models/model_runner.h"

namespace adder {
namespace {

enum Kind : int64_t { kLogits, kLosses, kGradients };

Workspace::Key key_of(Kind kind, const TokenBatch& batch) {
  return {kind, batch.layout.batch, batch.layout.len,
          batch.layout.sequences * 2 + (batch.wanted != nullptr ? 1 : 0)};
}

}  // namespace

template <class Acc>
ModelRunner<Acc>::ModelRunner(const LanguageModel<Acc>& model, const Context& context,
                              std::string where)
    : model_(model),
      workspace_(context),
      arrays_(context, model.config().vocab_size, std::move(where)),
      logits_(context.memory(MemoryKind::device)),
      row_loss_(context.memory(MemoryKind::device)),
      scale_(context.memory(MemoryKind::device)) {}

template <class Acc>
const Acc* ModelRunner<Acc>::enqueue_logits(const TokenBatch& batch, DecodeState* state) {
  Acc* out = logits_.hold(batch.logit_rows() * model_.padded_vocab());
  workspace_.run(key_of(kLogits, batch),
                 [&](Context& context) { model_.logits(context, batch, state, out); });
  return out;
}

template <class Acc>
std::span<const Acc> ModelRunner<Acc>::logits(const CallInput& input, DecodeState* state) {
  const TokenBatch batch = load(input, state != nullptr ? state->slots() : 0);
  const int64_t count = batch.logit_rows() * model_.padded_vocab();
  const Acc* out = enqueue_logits(batch, state);
  if (static_cast<int64_t>(host_logits_.size()) < count) {
    host_logits_.resize(static_cast<size_t>(count));
  }
  fetch(host_logits_.data(), out, count);
  return std::span<const Acc>(host_logits_).first(static_cast<size_t>(count));
}

template <class Acc>
std::span<const double> ModelRunner<Acc>::fetch_losses(int64_t rows) {
  host_losses_.resize(static_cast<size_t>(rows));
  fetch(host_losses_.data(), row_loss_.data(), rows);
  return host_losses_;
}

template <class Acc>
std::span<const double> ModelRunner<Acc>::losses(const CallInput& input,
                                                 const LossOptions& options) {
  const TokenBatch batch = load(input);
  double* row_loss = row_loss_.hold(input.rows());
  workspace_.run(key_of(kLosses, batch), [&](Context& context) {
    model_.evaluate(context, batch, options, row_loss);
  });
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
  workspace_.run(key_of(kGradients, batch), [&](Context& context) {
    model.train_batch(context, batch, options, device_scale, row_loss);
  });
  return fetch_losses(input.rows());
}

template class ModelRunner<float>;
template class ModelRunner<double>;

}  // namespace adder
