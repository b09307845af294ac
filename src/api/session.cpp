#include "api/model_impl.h"

namespace adder {

struct Session::Impl {
  Engine engine;
};

namespace {

EngineOptions one_slot(int threads) {
  EngineOptions options;
  options.threads = threads;
  return options;
}

}  // namespace

Session::Session(const Model& model)
    : impl_(new Impl{Engine(model.impl_->model, one_slot(model.impl_->threads))}) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

std::span<const float> Session::feed(std::span<const int32_t> ids) {
  return impl_->engine.prefill(0, ids);
}

void Session::reset() { impl_->engine.reset(0); }

int64_t Session::state_bytes() const { return impl_->engine.state_bytes(); }

}  // namespace adder
