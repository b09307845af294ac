// Inference: a loaded model, a pool of decoding states and the memory that its calls need. Token
// ids only; text lives above. Prefill runs in chunks of bounded length with the state carried,
// decoding in one-token steps for any set of slots.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/sample/sample.h"
#include "models/model_runner.h"

namespace adder {

struct EngineOptions {
  int threads = 0;      // 0: every core that the process may use
  int64_t slots = 1;    // sequences that can be held at one time
  int64_t chunk = 512;  // tokens of one prefill call: bounds its memory, not the result

  void check() const;  // throws Error naming the option
};

struct Generation {
  int64_t max_tokens = 256;
  SamplingOptions sampling;
  std::vector<int32_t> end_ids;  // stop before handing one out
  uint64_t sequence = 0;         // names the random stream beside sampling.seed
};

enum class StopReason : uint8_t { length, end_token, callback };

struct GenerationResult {
  std::vector<int32_t> ids;  // what was generated, without the prompt and the end token
  StopReason reason = StopReason::length;
  int64_t prompt_tokens = 0;
  int64_t steps = 0;  // one-token steps run
  double prefill_seconds = 0;
  double decode_seconds = 0;  // all steps, sampling included
};

/// Not thread-safe: one engine a thread. The model is only read, so engines can share it.
///
/// Logits are (rows, logit_stride()) in f32 and stay valid until the next call; the columns from
/// vocab() on are padding. Every call checks ids and slots and throws Error when they are out of
/// range, before any state has changed.
class Engine {
 public:
  explicit Engine(std::shared_ptr<const LanguageModel<float>> model,
                  const EngineOptions& options = {});
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const LanguageModel<float>& model() const { return *model_; }
  int64_t vocab() const { return model_->config().vocab_size; }
  int64_t logit_stride() const { return model_->padded_vocab(); }
  /// Bytes of the state pool: slots times what one sequence carries, whatever its length.
  int64_t state_bytes() const { return state_->bytes(); }

  /// Sets a slot to the state before the first token.
  void reset(int64_t slot);
  /// Advances a slot over `ids` (at least one); logits (vocab()) of the last.
  std::span<const float> prefill(int64_t slot, std::span<const int32_t> ids);
  /// One token for each of `slots` (distinct); logits (slots.size(), logit_stride()).
  std::span<const float> step(std::span<const int32_t> slots, std::span<const int32_t> ids);
  /// Advances a slot over `ids` and writes to `nats` (ids.size()) the cross-entropy of each target,
  /// the id that follows ids[i].
  void score(int64_t slot, std::span<const int32_t> ids, std::span<const int32_t> targets,
             double* nats);

  /// Resets the slot, prefills the prompt, then draws and steps. `on_token` (may be empty) sees
  /// each id as it is drawn and returns whether to go on. An empty prompt starts from the config's
  /// bos token; without one it is an Error. The same call gives the same ids for any
  /// number of threads; another chunk length may round the prompt's last logits differently.
  GenerationResult generate(int64_t slot, std::span<const int32_t> prompt,
                            const Generation& options,
                            const std::function<bool(int32_t)>& on_token = {});

 private:
  void check_slot(int64_t slot) const;
  std::vector<int32_t> start(std::span<const int32_t> prompt) const;
  /// Advances a slot over `ids` in chunks; the logits of the last token, in the memory of the
  /// device.
  const float* advance(int64_t slot, std::span<const int32_t> ids);
  /// Draws from logits in the memory of the device; kNoToken where nothing can be drawn.
  int32_t draw(const float* logits, const SampleRow& row, std::span<const int32_t> history);

  std::shared_ptr<const LanguageModel<float>> model_;
  EngineOptions options_;
  ModelRunner<float> runner_;
  std::unique_ptr<DecodeState> state_;
  DeviceArray<double> row_loss_;
  DeviceArray<std::byte> sampling_;  // options and ids so far, and the id that was drawn
};

}  // namespace adder
