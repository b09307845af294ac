#include "api/model_impl.h"
#include "api/text_generation.h"

namespace adder {
namespace {

Generation generation_of(const GenerateOptions& options, const ModelSpec& spec) {
  Generation request;
  request.max_tokens = options.max_tokens;
  request.sampling.temperature = options.temperature;
  request.sampling.top_k = options.top_k;
  request.sampling.top_p = options.top_p;
  request.sampling.min_p = options.min_p;
  request.sampling.repetition_penalty = options.repetition_penalty;
  request.sampling.seed = options.seed;
  request.end_ids = options.end_ids.value_or(spec.eos_token_ids);
  return request;
}

FinishReason finish_reason(StopReason reason) {
  switch (reason) {
    case StopReason::length:
      return FinishReason::length;
    case StopReason::end_token:
      return FinishReason::end_token;
    case StopReason::callback:
      break;
  }
  return FinishReason::callback;
}

EngineOptions one_slot(int threads) {
  EngineOptions options;
  options.threads = threads;
  return options;
}

}  // namespace

GeneratedTokens Model::generate(std::span<const int32_t> prompt, const GenerateOptions& options,
                                const std::function<bool(int32_t)>& on_token) const {
  Engine engine(impl_->model, one_slot(impl_->context.threads));
  GenerationResult result =
      engine.generate(0, prompt, generation_of(options, impl_->spec), on_token);
  return {std::move(result.ids), finish_reason(result.reason)};
}

GeneratedText Model::generate_text(std::string_view prompt, const GenerateOptions& options,
                                   const std::function<bool(std::string_view)>& on_text) const {
  const auto tokenizer = model_tokenizer(impl_->model->config());
  Engine engine(impl_->model, one_slot(impl_->context.threads));
  TextResult result =
      adder::generate_text(engine, *tokenizer, prompt_ids(*tokenizer, impl_->generation, prompt),
                           {generation_of(options, impl_->spec), options.stop}, on_text);
  const FinishReason reason =
      result.stop_string ? FinishReason::stop_string : finish_reason(result.tokens.reason);
  return {std::move(result.text), reason};
}

struct Session::Impl {
  Engine engine;
};

Session::Session(const Model& model)
    : impl_(new Impl{Engine(model.impl_->model, one_slot(model.impl_->context.threads))}) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

std::span<const float> Session::feed(std::span<const int32_t> ids) {
  return impl_->engine.prefill(0, ids);
}

void Session::reset() { impl_->engine.reset(0); }

int64_t Session::state_bytes() const { return impl_->engine.state_bytes(); }

}  // namespace adder
