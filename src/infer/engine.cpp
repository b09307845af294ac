#include "infer/engine.h"

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "kernels/loss/loss.h"

namespace adder {
namespace {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

void EngineOptions::check() const {
  const auto require = [](const char* name, int64_t value, int64_t least) {
    if (value >= least) return;
    throw Error({"out of range", std::string("engine: ") + name, ">= " + std::to_string(least),
                 std::to_string(value)});
  };
  require("threads", threads, 0);
  require("slots", slots, 1);
  require("chunk", chunk, 1);
}

void check_token_ids(std::span<const int32_t> ids, int64_t vocab, int64_t first) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocab) continue;
    throw Error({"token id out of range",
                 "position " + std::to_string(first + static_cast<int64_t>(i)),
                 "[0, " + std::to_string(vocab) + ")", std::to_string(ids[i])});
  }
}

Engine::Engine(std::shared_ptr<const LanguageModel<float>> model, const EngineOptions& options)
    : model_(std::move(model)), options_(options) {
  options_.check();
  state_ = model_->make_state(options_.slots);
  context_.threads = options_.threads > 0 ? options_.threads : available_threads();
  context_.arena = &arena_;
}

void Engine::check_slot(int64_t slot) const {
  if (slot >= 0 && slot < state_->slots()) return;
  throw Error({"slot out of range", "engine", "[0, " + std::to_string(state_->slots()) + ")",
               std::to_string(slot)});
}

void Engine::reset(int64_t slot) {
  check_slot(slot);
  state_->reset(slot);
}

void Engine::run(const TokenLayout& layout, const int32_t* ids, bool last_only) {
  const int64_t rows = last_only ? layout.batch : layout.rows();
  const size_t needed = static_cast<size_t>(rows * logit_stride());
  if (logits_.size() < needed) logits_.resize(needed);
  const auto call = [&](Context& context) {
    model_->logits(context, layout, ids, state_.get(), last_only, logits_.data());
  };
  const auto key = std::make_tuple(layout.batch, layout.len, last_only);
  auto planned = planned_.find(key);
  if (planned == planned_.end()) {
    planned = planned_.emplace(key, plan_bytes(context_, call)).first;
  }
  if (planned->second > arena_.capacity()) arena_ = Arena(planned->second);
  call(context_);
}

std::span<const float> Engine::prefill(int64_t slot, std::span<const int32_t> ids) {
  check_slot(slot);
  if (ids.empty()) throw Error({"no tokens to prefill", "engine", "at least one", "none"});
  check_token_ids(ids, vocab());
  const int32_t index = static_cast<int32_t>(slot);
  TokenLayout layout;
  layout.state_index = &index;
  for (size_t first = 0; first < ids.size(); first += static_cast<size_t>(layout.len)) {
    layout.len = std::min(options_.chunk, static_cast<int64_t>(ids.size() - first));
    run(layout, ids.data() + first, true);
  }
  return std::span<const float>(logits_).first(static_cast<size_t>(vocab()));
}

std::span<const float> Engine::step(std::span<const int32_t> slots, std::span<const int32_t> ids) {
  if (slots.size() != ids.size() || slots.empty()) {
    throw Error({"one token for each slot", "engine: step", std::to_string(slots.size()),
                 std::to_string(ids.size())});
  }
  std::vector<int32_t> sorted(slots.begin(), slots.end());
  std::sort(sorted.begin(), sorted.end());
  check_slot(sorted.front());
  check_slot(sorted.back());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice != sorted.end()) {
    throw Error({"slot named twice", "engine: step", "", std::to_string(*twice)});
  }
  check_token_ids(ids, vocab());
  TokenLayout layout;
  layout.batch = static_cast<int64_t>(slots.size());
  layout.len = 1;
  layout.state_index = slots.data();
  run(layout, ids.data(), true);
  return std::span<const float>(logits_).first(slots.size() * static_cast<size_t>(logit_stride()));
}

void Engine::score(int64_t slot, std::span<const int32_t> ids, std::span<const int32_t> targets,
                   double* nats) {
  check_slot(slot);
  if (ids.size() != targets.size()) {
    throw Error({"one target for each id", "engine: score", std::to_string(ids.size()),
                 std::to_string(targets.size())});
  }
  check_token_ids(ids, vocab());
  check_token_ids(targets, vocab());
  const int32_t index = static_cast<int32_t>(slot);
  TokenLayout layout;
  layout.state_index = &index;
  for (size_t first = 0; first < ids.size(); first += static_cast<size_t>(layout.len)) {
    layout.len = std::min(options_.chunk, static_cast<int64_t>(ids.size() - first));
    run(layout, ids.data() + first, false);
    LossShape shape;
    shape.rows = layout.len;
    shape.vocab = vocab();
    shape.columns = logit_stride();
    LossForward<float> loss;
    loss.logits = logits_.data();
    loss.logit_stride = logit_stride();
    loss.targets = targets.data() + first;
    loss.row_loss = nats + first;
    const int64_t bytes = plan_bytes(
        context_, [&](Context& measuring) { softmax_cross_entropy(measuring, shape, loss); });
    if (bytes > arena_.capacity()) arena_ = Arena(bytes);
    softmax_cross_entropy(context_, shape, loss);
  }
}

std::vector<int32_t> Engine::start(std::span<const int32_t> prompt) const {
  if (!prompt.empty()) return {prompt.begin(), prompt.end()};
  const auto bos = model_->config().bos_token_id;
  if (!bos || *bos < 0 || *bos >= vocab()) {
    throw Error({"empty prompt", "generate",
                 "at least one token: this model has no start token of its own", "none"});
  }
  return {static_cast<int32_t>(*bos)};
}

GenerationResult Engine::generate(int64_t slot, std::span<const int32_t> prompt,
                                  const Generation& options,
                                  const std::function<bool(int32_t)>& on_token) {
  options.sampling.check();
  if (options.max_tokens < 0) {
    throw Error(
        {"out of range", "generate: number of tokens", ">= 0", std::to_string(options.max_tokens)});
  }
  std::vector<int32_t> history = start(prompt);
  GenerationResult result;
  result.prompt_tokens = static_cast<int64_t>(history.size());
  reset(slot);
  const Stopwatch prefill_watch;
  std::span<const float> logits = prefill(slot, history);
  result.prefill_seconds = prefill_watch.seconds();

  const int32_t index = static_cast<int32_t>(slot);
  const Stopwatch decode_watch;
  for (int64_t position = 0; position < options.max_tokens; ++position) {
    if (position > 0) {
      logits = step({&index, 1}, {&history.back(), 1}).first(static_cast<size_t>(vocab()));
      ++result.steps;
    }
    const int32_t id = sample_token(options.sampling, logits, history, options.sequence,
                                    static_cast<uint64_t>(position));
    if (std::find(options.end_ids.begin(), options.end_ids.end(), id) != options.end_ids.end()) {
      result.reason = StopReason::end_token;
      break;
    }
    history.push_back(id);
    result.ids.push_back(id);
    if (on_token && !on_token(id)) {
      result.reason = StopReason::callback;
      break;
    }
  }
  result.decode_seconds = decode_watch.seconds();
  return result;
}

}  // namespace adder
