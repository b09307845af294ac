// `adder bench decode`: one-token steps of random 130M-class models (24 layers, width 768,
// vocabulary 50280 or, for Mamba-2 with its 24 heads of 64 channels and 128 states, 50288), as
// llama-bench times them. The floor of a step is what targets.md counts: every weight read once,
// the state read and written, at the rates of reading and of copying measured in the same run.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "apps/bench.h"
#include "core/simd_targets.h"
#include "infer/engine.h"
#include "kernels/ssd/ssd.h"
#include "measure/timing.h"

namespace adder::apps {
namespace {

constexpr int64_t kPrefillTokens = 512;

std::shared_ptr<LanguageModel<float>> random_model(const std::string& arch) {
  ModelConfig config = default_model_config(arch);
  config.vocab_size = config.is_mamba2() ? 50288 : 50280;
  config.pad_vocab_size_multiple = 8;
  config.d_model = 768;
  config.n_layer = 24;
  std::shared_ptr<LanguageModel<float>> model = make_model<float>(config, ModelBuild{});
  model->initialize(1);
  return model;
}

measure::BenchRow row_of(const ModelConfig& config, const char* direction, const std::string& shape,
                         int threads, const measure::Timing& timing, int64_t tokens,
                         const Cost& cost) {
  measure::BenchRow row;
  row.family = "decode";
  row.line = config.arch;
  row.direction = direction;
  row.dtype = "f32";
  row.shape = fmt::format("layers 24 width 768 vocab {} {}", config.vocab_size, shape);
  row.simd = simd_target_name();
  row.threads = threads;
  row.median_us = timing.median_us;
  row.best_us = timing.best_us;
  row.spread = timing.spread;
  row.runs = timing.runs;
  row.tokens_per_s = static_cast<double>(tokens) / timing.median_us * 1e6;
  set_rates(row, cost, Dtype::f32);
  return row;
}

// The operator's part of a prefill: one exponential a state of the S6 scan, or what SSD costs.
Cost operator_cost(const ModelConfig& config) {
  Cost cost;
  if (!config.is_mamba2()) {
    cost.exps = static_cast<double>(config.d_inner * config.d_state * kPrefillTokens);
  } else {
    SsdShape shape;
    shape.len = kPrefillTokens;
    shape.heads = config.heads();
    shape.head_dim = config.headdim;
    shape.state = config.d_state;
    shape.chunk = ssd_chunk_for(config.headdim, config.d_state);
    cost = shape.cost(Direction::forward, Dtype::f32);
  }
  return cost;
}

// Reading has a lower ceiling than copying, whose writes nobody waits for: a step is set against
// both for what it reads and what it moves.
void set_step_floor(measure::BenchRow& row, double weight_bytes, double state_bytes) {
  const measure::Ceilings& machine = measure::ceilings(row.threads);
  row.floor_us =
      1e6 * (weight_bytes / machine.read_bytes_per_s + 2 * state_bytes / machine.copy_bytes_per_s);
  row.bound = "bytes";
  row.percent_of_floor = 100 * row.floor_us / row.median_us;
}

void bench_threads(const std::shared_ptr<LanguageModel<float>>& model, int threads,
                   double min_seconds, const measure::RowSink& sink) {
  EngineOptions options;
  options.threads = threads;
  Engine engine(model, options);
  const int32_t slot = 0;
  int32_t id = 1;
  const auto parameters = static_cast<double>(model->params().parameter_count());
  Cost step;
  step.flops = 2 * parameters;
  const auto state_bytes = static_cast<double>(engine.state_bytes());
  step.bytes = 4 * parameters + 2 * state_bytes;
  const ModelConfig& config = model->config();
  measure::BenchRow row = row_of(config, "step", "batch 1", threads,
                                 measure::time_runs(
                                     [&] {
                                       engine.step({&slot, 1}, {&id, 1});
                                       id = (id + 1) % 50000;
                                     },
                                     20, min_seconds, 20.0),
                                 1, step);
  set_step_floor(row, 4 * parameters, state_bytes);
  sink(row);
  std::vector<int32_t> prompt(kPrefillTokens);
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>(i * 97 % 50000);
  Cost prefill;
  const auto layers = static_cast<double>(config.n_layer);
  const Cost layer = operator_cost(config);
  // The head runs for the last token only.
  const auto head = static_cast<double>(config.vocab_size * config.d_model);
  prefill.flops = 2 * (parameters - head) * kPrefillTokens + layers * layer.flops;
  prefill.exps = layers * layer.exps;
  prefill.bytes = step.bytes;
  sink(row_of(config, "forward", fmt::format("prefill {}", kPrefillTokens), threads,
              measure::time_runs([&] { engine.prefill(slot, prompt); }, 3, min_seconds, 10.0),
              kPrefillTokens, prefill));
}

}  // namespace

int run_decode_bench(const measure::BenchOptions& options, const measure::RowSink& sink) {
  for (const char* arch : {"mamba1", "mamba2"}) {
    const std::string text = fmt::format("decode {} f32 step forward", arch);
    const bool wanted = std::all_of(
        options.filters.begin(), options.filters.end(),
        [&](const std::string& filter) { return text.find(filter) != std::string::npos; });
    if (!wanted) continue;
    const auto model = random_model(arch);
    for (const int threads : options.threads) {
      bench_threads(model, threads, options.min_seconds, sink);
    }
  }
  return 0;
}

}  // namespace adder::apps
