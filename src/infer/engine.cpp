#include "infer/engine.h"

#include <algorithm>
#include <chrono>

#include "core/contents.h"
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

Engine::Engine(std::shared_ptr<const LanguageModel<float>> model, const EngineOptions& options)
    : model_(std::move(model)),
      options_((options.check(), options)),
      runner_(*model_, with_threads(model_->store().context(), options.threads), "engine"),
      state_(model_->make_state(options_.slots, runner_.context())),
      row_loss_(runner_.context().memory(MemoryKind::device)),
      sampling_(runner_.context().memory(MemoryKind::device)) {}

void Engine::check_slot(int64_t slot) const {
  if (slot >= 0 && slot < state_->slots()) return;
  throw Error({"slot out of range", "engine", "[0, " + std::to_string(state_->slots()) + ")",
               std::to_string(slot)});
}

void Engine::reset(int64_t slot) {
  check_slot(slot);
  state_->reset(runner_.context(), slot);
}

const float* Engine::advance(int64_t slot, std::span<const int32_t> ids) {
  check_slot(slot);
  if (ids.empty()) throw Error({"no tokens to prefill", "engine", "at least one", "none"});
  check_ids(ids, vocab(), "engine");  // all of them, before any state has changed
  const auto index = static_cast<int32_t>(slot);
  const float* logits = nullptr;
  CallInput input;
  input.slots = {&index, 1};
  input.last_only = true;
  for (size_t first = 0; first < ids.size(); first += input.ids.size()) {
    input.len = std::min(options_.chunk, static_cast<int64_t>(ids.size() - first));
    input.ids = ids.subspan(first, static_cast<size_t>(input.len));
    logits = runner_.enqueue_logits(runner_.load(input, state_->slots()), state_.get());
  }
  return logits;
}

std::span<const float> Engine::prefill(int64_t slot, std::span<const int32_t> ids) {
  return runner_.fetch_logits(advance(slot, ids), 1).first(static_cast<size_t>(vocab()));
}

std::span<const float> Engine::step(std::span<const int32_t> slots, std::span<const int32_t> ids) {
  if (slots.size() != ids.size() || slots.empty()) {
    throw Error({"one token for each slot", "engine: step", std::to_string(slots.size()),
                 std::to_string(ids.size())});
  }
  CallInput input;
  input.batch = static_cast<int64_t>(slots.size());
  input.len = 1;
  input.ids = ids;
  input.slots = slots;
  return runner_.logits(input, state_.get());
}

void Engine::score(int64_t slot, std::span<const int32_t> ids, std::span<const int32_t> targets,
                   double* nats) {
  check_slot(slot);
  if (ids.size() != targets.size()) {
    throw Error({"one target for each id", "engine: score", std::to_string(ids.size()),
                 std::to_string(targets.size())});
  }
  check_ids(ids, vocab(), "engine");
  check_ids(targets, vocab(), "engine: targets");
  const auto index = static_cast<int32_t>(slot);
  CallInput input;
  input.slots = {&index, 1};
  for (size_t first = 0; first < ids.size(); first += input.ids.size()) {
    input.len = std::min(options_.chunk, static_cast<int64_t>(ids.size() - first));
    input.ids = ids.subspan(first, static_cast<size_t>(input.len));
    input.targets = targets.subspan(first, static_cast<size_t>(input.len));
    const TokenBatch batch = runner_.load(input, state_->slots());
    LossShape shape;
    shape.rows = input.len;
    shape.vocab = vocab();
    shape.columns = logit_stride();
    LossForward<float, float> loss;
    loss.logits = runner_.enqueue_logits(batch, state_.get());
    loss.logit_stride = logit_stride();
    loss.targets = batch.targets;
    loss.row_loss = row_loss_.hold(input.len);
    runner_.workspace().run([&](Context& context) { softmax_cross_entropy(context, shape, loss); });
    runner_.fetch(nats + first, loss.row_loss, input.len);
  }
}

int32_t Engine::draw(const float* logits, const SampleRow& row, std::span<const int32_t> history) {
  const bool penalty = row.options.repetition_penalty != 1.0;
  const int64_t previous = penalty ? static_cast<int64_t>(history.size()) : 0;
  const int64_t history_at = align_up(int64_t{sizeof(SampleRow)});
  const int64_t id_at = history_at + align_up(previous * int64_t{sizeof(int32_t)});
  std::byte* memory = sampling_.hold(id_at + kAlignment);
  auto* device_row = reinterpret_cast<SampleRow*>(memory);
  auto* device_history = reinterpret_cast<int32_t*>(memory + history_at);
  SampleRow filled = row;
  filled.previous_count = previous;
  copy_elements(runner_.context(), device_row, &filled, 1);
  copy_elements(runner_.context(), device_history, history.data(), previous);
  SampleArgs args;
  args.logits = logits;
  args.logit_stride = logit_stride();
  args.options = device_row;
  args.previous = device_history;
  args.ids = reinterpret_cast<int32_t*>(memory + id_at);
  runner_.workspace().run([&](Context& context) { sample_tokens(context, {1, vocab()}, args); });
  int32_t id = kNoToken;
  runner_.fetch(&id, args.ids, 1);
  return id;
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
  const float* logits = advance(slot, history);
  runner_.context().backend().synchronize(runner_.context().stream);
  result.prefill_seconds = prefill_watch.seconds();

  SampleRow row;
  row.options = options.sampling;
  row.sequence = options.sequence;
  const Stopwatch decode_watch;
  for (int64_t position = 0; position < options.max_tokens; ++position) {
    if (position > 0) {
      logits = advance(slot, std::span<const int32_t>(history).last(1));
      ++result.steps;
    }
    row.position = static_cast<uint64_t>(position);
    const int32_t id = draw(logits, row, history);
    if (id == kNoToken) {
      throw Error({"no token can be drawn", "sampling", "a logit above -inf",
                   std::to_string(vocab()) + " logits, all -inf or NaN"});
    }
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
