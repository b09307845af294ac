// `adder bench decode`: one-token steps of a random 130M-class model (24 layers, width 768,
// vocabulary 50280), as llama-bench times them. The floor is what targets.md counts: every weight
// read once and the state read and written, at the bandwidth measured in the same run.
#include <fmt/format.h>

#include <memory>

#include "apps/bench.h"
#include "core/simd_targets.h"
#include "infer/engine.h"
#include "measure/timing.h"

namespace adder::apps {
namespace {

constexpr int64_t kPrefillTokens = 512;

std::shared_ptr<LanguageModel<float>> random_model() {
  ModelConfig config = default_model_config("mamba1");
  config.vocab_size = 50280;
  config.pad_vocab_size_multiple = 8;
  config.d_model = 768;
  config.n_layer = 24;
  std::shared_ptr<LanguageModel<float>> model = make_model<float>(config, Dtype::f32);
  model->initialize(1);
  return model;
}

measure::BenchRow row_of(const char* direction, const std::string& shape, int threads,
                         const measure::Timing& timing, int64_t tokens, const Cost& cost) {
  measure::BenchRow row;
  row.family = "decode";
  row.line = "mamba1";
  row.direction = direction;
  row.dtype = "f32";
  row.shape = "layers 24 width 768 vocab 50280 " + shape;
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
  step.bytes = 4 * parameters + 2 * static_cast<double>(engine.state_bytes());
  sink(row_of("step", "batch 1", threads,
              measure::time_runs(
                  [&] {
                    engine.step({&slot, 1}, {&id, 1});
                    id = (id + 1) % 50000;
                  },
                  20, min_seconds, 20.0),
              1, step));
  std::vector<int32_t> prompt(kPrefillTokens);
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>(i * 97 % 50000);
  Cost prefill;
  // The head runs for the last token only.
  prefill.flops = 2 * (parameters - 50280.0 * 768) * kPrefillTokens;
  prefill.exps = 24.0 * 1536 * 16 * kPrefillTokens;
  prefill.bytes = step.bytes;
  sink(row_of("forward", fmt::format("prefill {}", kPrefillTokens), threads,
              measure::time_runs([&] { engine.prefill(slot, prompt); }, 3, min_seconds, 10.0),
              kPrefillTokens, prefill));
}

}  // namespace

int run_decode_bench(const measure::BenchOptions& options, const measure::RowSink& sink) {
  const std::string text = "decode mamba1 f32 step forward";
  for (const std::string& filter : options.filters) {
    if (text.find(filter) == std::string::npos) return 0;
  }
  const auto model = random_model();
  for (const int threads : options.threads) {
    bench_threads(model, threads, options.min_seconds, sink);
  }
  return 0;
}

}  // namespace adder::apps
