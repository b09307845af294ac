// `adder bench train`: whole optimizer steps of the models in targets.md, on random tokens, as the
// peer's script measures PyTorch (shared/peers/cpu_train.py).
#include <fmt/format.h>

#include <memory>

#include "apps/bench.h"
#include "core/rng.h"
#include "core/simd_targets.h"
#include "kernels/ssd/ssd.h"
#include "measure/timing.h"
#include "train/trainer.h"

namespace adder::apps {
namespace {

class RandomTokens final : public BatchSource {
 public:
  RandomTokens(int64_t tokens, int64_t vocab) : tokens_(tokens), vocab_(vocab) {}
  void fill(int64_t step, int64_t micro, int32_t* ids, int32_t* targets) const override {
    const auto stream = static_cast<uint64_t>(step * 1000 + micro);
    int32_t next = draw(stream, 0);
    for (int64_t i = 0; i < tokens_; ++i) {
      ids[i] = next;
      targets[i] = next = draw(stream, i + 1);
    }
  }

 private:
  int32_t draw(uint64_t stream, int64_t index) const {
    return static_cast<int32_t>(
        uniform_below(11, stream, static_cast<uint64_t>(index), static_cast<uint64_t>(vocab_)));
  }
  int64_t tokens_;
  int64_t vocab_;
};

struct TrainShape {
  std::string arch;
  std::string precision;
  int64_t batch;
  int64_t len;
};

// The models of targets.md: 4 layers of width 256 over 256 tokens; Mamba-2 with 8 heads of 64
// channels and 64 states.
ModelConfig target_model(const std::string& arch) {
  ModelConfig config = default_model_config(arch);
  config.vocab_size = 256;
  config.pad_vocab_size_multiple = 1;
  config.d_model = 256;
  config.n_layer = 4;
  if (config.is_mamba2()) {
    config.d_state = 64;
    config.headdim = 64;
  }
  return config;
}

SsdShape ssd_shape(const ModelConfig& config, const TrainShape& shape) {
  SsdShape ssd;
  ssd.batch = shape.batch;
  ssd.len = shape.len;
  ssd.heads = config.heads();
  ssd.head_dim = config.headdim;
  ssd.state = config.d_state;
  ssd.groups = config.ngroups;
  ssd.chunk = ssd_chunk_for(config.headdim, config.d_state);
  return ssd;
}

// The floor that targets.md counts: the products' flops (6 a parameter and token) and the operator.
// Of the S6 scan that is one exponential a state forward and again backward; of SSD its cost().
Cost step_cost(const ModelConfig& config, int64_t parameters, const TrainShape& shape) {
  Cost cost;
  const auto tokens = static_cast<double>(shape.batch * shape.len);
  const auto layers = static_cast<double>(config.n_layer);
  cost.flops = 6.0 * static_cast<double>(parameters) * tokens;
  if (!config.is_mamba2()) {
    cost.exps = 2.0 * tokens * layers * static_cast<double>(config.d_inner * config.d_state);
    return cost;
  }
  const SsdShape ssd = ssd_shape(config, shape);
  for (const Direction direction : {Direction::forward, Direction::backward}) {
    const Cost one = ssd.cost(direction, dtype_from_name(shape.precision));
    cost.flops += layers * one.flops;
    cost.exps += layers * one.exps;
  }
  return cost;
}

measure::BenchRow time_step(const TrainShape& shape, int threads, double min_seconds) {
  const ModelConfig config = target_model(shape.arch);
  const Dtype compute = dtype_from_name(shape.precision);
  ModelBuild build;
  build.compute = compute;
  build.context.threads = threads;
  auto model = make_model<float>(config, build);
  model->initialize(1);
  TrainConfig train;
  train.batch = shape.batch;
  train.len = shape.len;
  train.precision = shape.precision;
  const RandomTokens tokens(shape.batch * shape.len, config.vocab_size);
  Trainer trainer(*model, train, tokens, build.context);

  measure::BenchRow row;
  row.family = "train";
  row.line = shape.arch;
  row.direction = "step";
  row.dtype = shape.precision;
  row.shape = fmt::format("layers 4 width 256 batch {} len {} vocab 256", shape.batch, shape.len);
  row.simd = simd_target_name();
  row.threads = threads;
  const auto timing = measure::time_runs([&] { trainer.step(); }, 10, min_seconds, 20.0);
  row.median_us = timing.median_us;
  row.best_us = timing.best_us;
  row.spread = timing.spread;
  row.runs = timing.runs;
  const int64_t step_tokens = shape.batch * shape.len;
  row.tokens_per_s = static_cast<double>(step_tokens) / timing.median_us * 1e6;
  set_rates(row, step_cost(model->config(), model->params().parameter_count(), shape), compute);
  return row;
}

bool wanted(const measure::BenchRow& row, const measure::BenchOptions& options) {
  const std::string text = row.family + " " + row.line + " " + row.dtype;
  for (const std::string& filter : options.filters) {
    if (text.find(filter) == std::string::npos) return false;
  }
  return true;
}

}  // namespace

int run_train_bench(const measure::BenchOptions& options, const measure::RowSink& sink) {
  for (const TrainShape& shape :
       {TrainShape{"mamba1", "f32", 8, 256}, TrainShape{"mamba1", "bf16", 8, 256},
        TrainShape{"mamba2", "f32", 8, 256}, TrainShape{"mamba2", "bf16", 8, 256}}) {
    measure::BenchRow named;
    named.family = "train";
    named.line = shape.arch;
    named.dtype = shape.precision;
    if (!wanted(named, options)) continue;
    for (const int threads : options.threads) {
      sink(time_step(shape, threads, options.min_seconds));
    }
  }
  return 0;
}

}  // namespace adder::apps
