#include "train/optimizer_step.h"

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "kernels/loss/loss.h"

namespace adder {
namespace {

using Clock = std::chrono::steady_clock;

template <class Field>
Field* field_of(StepState* state, Field StepState::* field) {
  // An address in the memory of the device: worked out, not read.
  return &(state->*field);
}

}  // namespace

OptimizerStep::OptimizerStep(LanguageModel<float>& model, const StepOptions& options,
                             const Context& context)
    : model_(model),
      options_(options),
      workspace_(context),
      arrays_(context, model.config().vocab_size, "training"),
      state_(context.memory(MemoryKind::device)),
      row_loss_(context.memory(MemoryKind::device)),
      inputs_(context.memory(MemoryKind::pinned)),
      reports_(context.memory(MemoryKind::pinned)) {
  model_.enable_training();
  plan_ranges();
  const Memory device = context.memory(MemoryKind::device);
  m_ = Buffer(moments_ * int64_t{sizeof(float)}, device);
  v_ = Buffer(moments_ * int64_t{sizeof(float)}, device);
  m_.fill(0);
  v_.fill(0);
  inputs_.hold(2);
  reports_.hold(2);
  restore_counters(0, 0);
}

void OptimizerStep::plan_ranges() {
  const ParamTable& table = model_.params();
  for (int64_t i = 0; i < table.size(); ++i) {
    const ParamInfo& info = table.info(i);
    if (!info.trainable || !info.alias_of.empty()) continue;
    const int64_t begin = table.offset(i);
    const int64_t count = padded_count(info.count());
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

std::vector<OptimizerStep::Moment> OptimizerStep::moments() const {
  std::vector<Moment> all;
  const ParamTable& table = model_.params();
  for (int64_t i = 0; i < table.size(); ++i) {
    const ParamInfo& info = table.info(i);
    if (!info.trainable || !info.alias_of.empty()) continue;
    for (const Range& range : ranges_) {
      const int64_t into = table.offset(i) - range.begin;
      if (into < 0 || into >= range.count) continue;
      all.push_back(
          {i, m_.as<float>() + range.moment + into, v_.as<float>() + range.moment + into});
    }
  }
  return all;
}

int64_t OptimizerStep::trainable_count() const {
  int64_t sum = 0;
  for (const ParamInfo& info : model_.params().infos()) {
    if (info.trainable && info.alias_of.empty()) sum += info.count();
  }
  return sum;
}

int64_t OptimizerStep::memory_bytes() const {
  return model_.store().bytes() + m_.bytes() + v_.bytes() + workspace_.capacity();
}

void OptimizerStep::restore_counters(int64_t steps, int64_t skipped) {
  ADDER_CHECK(pending_.empty());
  steps_ = steps;
  skipped_ = skipped;
  StepState state;
  state.updates = steps - skipped;
  state.skipped = static_cast<int32_t>(skipped);
  copy_elements(workspace_.context(), state_.hold(1), &state, 1);
  workspace_.context().backend().synchronize(workspace_.context().stream);
}

void OptimizerStep::update(Context& context) {
  ParamStore<float>& store = model_.store();
  StepState* state = state_.data();
  for (size_t r = 0; r < ranges_.size(); ++r) {
    sum_of_squares<float>(
        context, {ranges_[r].count},
        {store.gradients() + ranges_[r].begin, field_of(state, &StepState::squares), r > 0});
  }
  decide_step(context, {state, options_.clip});
  for (const Range& range : ranges_) {
    AdamWArgs<float> args;
    args.constants = options_.adamw;
    if (!range.decay) args.constants.weight_decay = 0;
    args.state = state;
    args.g = store.gradients() + range.begin;
    args.p = store.values() + range.begin;
    args.m = m_.as<float>() + range.moment;
    args.v = v_.as<float>() + range.moment;
    if (store.rounded() != nullptr) args.rounded = store.rounded() + range.begin;
    adamw_step<float>(context, {range.count}, args);
  }
  store.refresh_decays(context);
}

void OptimizerStep::run(Context& context, const TokenBatch& all, int64_t accumulation,
                        int64_t batch) {
  model_.store().zero_gradients(context);
  StepState* state = state_.data();
  for (int64_t micro = 0; micro < accumulation; ++micro) {
    const TokenBatch part = all.part(micro * batch, batch);
    model_.train_batch(context, part, options_.loss, field_of(state, &StepState::gradient_scale),
                       row_loss_.data());
    sum_losses(context, {part.layout.rows()},
               {row_loss_.data(), field_of(state, &StepState::loss_sum), micro > 0});
  }
  update(context);
}

void OptimizerStep::reserve(int64_t accumulation, int64_t batch, int64_t len) {
  const std::vector<int32_t> zeros(static_cast<size_t>(accumulation * batch * len));
  CallInput input{.batch = accumulation * batch, .len = len, .ids = zeros, .targets = zeros};
  const TokenBatch all = arrays_.load(input);
  row_loss_.hold(batch * len);
  workspace_.reserve([&](Context& context) { run(context, all, accumulation, batch); });
}

std::optional<StepReport> OptimizerStep::enqueue(const StepTokens& tokens, double learning_rate) {
  const auto start = Clock::now();
  const auto valid = std::count_if(tokens.targets.begin(), tokens.targets.end(),
                                   [](int32_t target) { return target != kIgnoreIndex; });
  CallInput input;
  input.batch = tokens.accumulation * tokens.batch;
  input.len = tokens.len;
  input.ids = tokens.ids;
  input.targets = tokens.targets;
  const TokenBatch all = arrays_.load(input);

  Pending pending;
  pending.report.step = ++steps_;
  pending.report.learning_rate = learning_rate;
  pending.report.tokens = input.rows();
  pending.gradient_scale = valid > 0 ? 1.0 / static_cast<double>(valid) : 0.0;
  const Context& context = workspace_.context();
  StepInputs* inputs = inputs_.data() + steps_ % 2;
  *inputs = {learning_rate, pending.gradient_scale};
  copy_elements(context, reinterpret_cast<StepInputs*>(state_.data()), inputs, 1);
  row_loss_.hold(tokens.batch * tokens.len);
  workspace_.run(Workspace::Key{static_cast<int64_t>(CallKind::step), tokens.accumulation,
                                tokens.batch, tokens.len},
                 [&](Context& running) { run(running, all, tokens.accumulation, tokens.batch); });
  copy_elements(context, reports_.data() + steps_ % 2, state(), 1);
  pending.mark = context.backend().mark(context.stream);
  pending_.push_back(pending);

  std::optional<StepReport> report;
  if (pending_.size() > 1) report = read_report();
  pending_.back().report.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return report;
}

StepReport OptimizerStep::read_report() {
  Pending oldest = pending_.front();
  pending_.erase(pending_.begin());
  workspace_.context().backend().wait(oldest.mark);
  const StepState& state = reports_.data()[oldest.report.step % 2];
  oldest.report.loss = state.loss_sum * oldest.gradient_scale;
  oldest.report.grad_norm = state.grad_norm;
  oldest.report.skipped = state.skip != 0;
  skipped_ = state.skipped;
  return oldest.report;
}

std::optional<StepReport> OptimizerStep::finish() {
  if (pending_.empty()) return std::nullopt;
  const auto start = Clock::now();
  StepReport report = read_report();
  report.seconds += std::chrono::duration<double>(Clock::now() - start).count();
  return report;
}

}  // namespace adder
