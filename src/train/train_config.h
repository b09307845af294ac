// What a training run is told: the sections [train] and [log] of a recipe. Each struct lists its
// keys once (visit_keys); reading, writing, comparing and documenting recipes go through that list.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace adder {

/// Section [train]. Defaults follow the Mamba recipes (arXiv 2312.00752, appendix E.2) where they
/// say something, scaled to small models.
struct TrainConfig {
  int64_t steps = 1000;
  int64_t batch = 8;                   // windows of one micro-batch
  int64_t len = 256;                   // tokens a window
  int64_t accumulation = 1;            // micro-batches of one step
  double lr = 4e-3;                    // peak
  double min_lr = 0;                   // at the end
  int64_t warmup = 50;                 // steps of linear rise
  std::string schedule = "cosine";     // cosine, wsd, constant
  int64_t decay_steps = 0;             // wsd: steps of the decay; 0: a fifth of all
  std::string decay_shape = "linear";  // wsd: linear, sqrt
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip = 1;  // largest global gradient norm; 0: no clipping
  double label_smoothing = 0;
  double z_loss = 0;
  int64_t seed = 1;
  std::string precision = "f32";    // f32, bf16
  std::vector<std::string> freeze;  // name patterns of parameters that stay as they are
  std::string init;                 // model directory to start from
  int64_t threads = 0;              // 0: every core that the process may use

  /// Tokens of one step.
  int64_t step_tokens() const { return accumulation * batch * len; }
  /// Throws Error for the first key out of range; `where(key)` says where it was given.
  void check(const std::function<std::string(std::string_view)>& where) const;
};

/// Section [log]: what is reported and kept. Nothing here changes a weight.
struct LogConfig {
  int64_t every = 1;               // steps between lines of metrics.jsonl
  int64_t eval_every = 200;        // steps between validations; 0: only the last step
  int64_t eval_tokens = 0;         // tokens of a validation on the way; 0: all
  int64_t eval_len = 0;            // tokens a validation window; 0: train.len
  int64_t checkpoint_every = 0;    // steps between checkpoints; 0: not by steps
  double checkpoint_seconds = 60;  // seconds between checkpoints; 0: not by time
  int64_t keep = 2;                // newest checkpoints kept, besides the best
  bool tensorboard = true;
  bool plot = true;
  bool sample = true;  // a text at each validation
  std::string sample_prompt = "\n";
  int64_t sample_tokens = 200;
  int64_t final_sample_tokens = 1000;
  double temperature = 0.8;
  int64_t top_k = 0;
  double top_p = 1;

  void check(const std::function<std::string(std::string_view)>& where) const;
};

/// Calls key(name, field, description) for every key of the section.
template <class Config, class Visitor>
void visit_train_keys(Config& c, const Visitor& key) {
  key("steps", c.steps, "optimizer steps");
  key("batch", c.batch, "windows of one micro-batch");
  key("len", c.len, "tokens of a window");
  key("accumulation", c.accumulation, "micro-batches summed into one step");
  key("lr", c.lr, "peak learning rate");
  key("min_lr", c.min_lr, "learning rate at the end");
  key("warmup", c.warmup, "steps of linear rise to the peak");
  key("schedule", c.schedule, "`cosine`, `wsd` (warm-up, stable, decay) or `constant`");
  key("decay_steps", c.decay_steps, "`wsd`: steps of the decay; 0: a fifth of all");
  key("decay_shape", c.decay_shape, "`wsd`: `linear` or `sqrt` (1 - sqrt)");
  key("beta1", c.beta1, "AdamW: decay of the first moment");
  key("beta2", c.beta2, "AdamW: decay of the second moment");
  key("eps", c.eps, "AdamW: added to the root of the second moment");
  key("weight_decay", c.weight_decay, "AdamW: decay of matrices and embeddings");
  key("clip", c.clip, "largest global gradient norm; 0: no clipping");
  key("label_smoothing", c.label_smoothing, "share of the target spread over all tokens");
  key("z_loss", c.z_loss, "weight of the squared log-normalizer");
  key("seed", c.seed, "start values, batch order and samples follow from it");
  key("precision", c.precision, "`f32` or `bf16` compute; the master weights are f32");
  key("freeze", c.freeze, "parameters that stay as they are, by name (`*` and `?` match)");
  key("init", c.init, "model directory to start from; its config becomes [model]");
  key("threads", c.threads, "0: every core; the result does not depend on it");
}

template <class Config, class Visitor>
void visit_log_keys(Config& c, const Visitor& key) {
  key("every", c.every, "steps between lines of metrics.jsonl");
  key("eval_every", c.eval_every, "steps between validations; 0: only after the last step");
  key("eval_tokens", c.eval_tokens,
      "tokens of a validation on the way; 0: all (the last is of all)");
  key("eval_len", c.eval_len, "tokens of a validation window; 0: train.len");
  key("checkpoint_every", c.checkpoint_every, "steps between checkpoints; 0: not by steps");
  key("checkpoint_seconds", c.checkpoint_seconds, "seconds between checkpoints; 0: not by time");
  key("keep", c.keep, "newest checkpoints kept, besides the best by validation");
  key("tensorboard", c.tensorboard, "write an event file for TensorBoard");
  key("plot", c.plot, "draw loss.svg and loss.png (needs gnuplot)");
  key("sample", c.sample, "write a text at each validation");
  key("sample_prompt", c.sample_prompt, "what the text begins with");
  key("sample_tokens", c.sample_tokens, "tokens of a text on the way");
  key("final_sample_tokens", c.final_sample_tokens, "tokens of the text at the end");
  key("temperature", c.temperature, "of the samples; 0: greedy");
  key("top_k", c.top_k, "of the samples; 0: off");
  key("top_p", c.top_p, "of the samples; 1: off");
}

}  // namespace adder
