// A language model: embedding, a stack of residual branches (norm, mixer), a last norm and a head
// (math.md 7.1). This is the door of room `models`: training, inference and tasks see only it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/context.h"
#include "formats/model_config.h"
#include "layers/mixer.h"

namespace adder {

/// Token ids of one call. Ids and targets are (layout.rows()), row-major by (batch, len).
struct TokenBatch {
  TokenLayout layout;
  const int32_t* ids = nullptr;
  const int32_t* targets = nullptr;  // the id that follows, or kIgnoreIndex
};

struct LossOptions {
  double label_smoothing = 0;
  double z_loss = 0;
};

/// What decoding carries: every layer's state parts for `slots` sequences. Starts at zero.
class DecodeState {
 public:
  DecodeState(std::vector<std::vector<StatePart>> layers, int64_t slots);
  int64_t slots() const { return slots_; }
  int64_t bytes() const { return buffer_.bytes(); }
  std::span<const StatePart> layer(size_t index) const { return layers_[index]; }
  size_t layers() const { return layers_.size(); }
  /// Sets one slot to the state before the first token.
  void reset(int64_t slot);

 private:
  std::vector<std::vector<StatePart>> layers_;
  int64_t slots_;
  Buffer buffer_;
};

/// Acc: type of the master parameters and gradients: float (compute types f32 and bf16) or double.
/// Calls are const and thread-safe except those that change parameters; gradients are added to the
/// model's own array, so one training call runs at a time. Every call takes its memory from
/// context.arena; run it over a measuring arena first (plan_bytes below).
template <class Acc>
class LanguageModel {
 public:
  virtual ~LanguageModel() = default;

  const ModelConfig& config() const { return config_; }
  const ParamTable& params() const { return table_; }
  Dtype compute_dtype() const { return compute_; }
  /// Columns of the logits: the padded vocabulary.
  int64_t padded_vocab() const { return padded_vocab_; }

  /// The flat master parameters (params().total()); call refresh_weights after changing them.
  Acc* values() const { return values_.as<Acc>(); }
  Acc* value(int64_t index) const { return values() + table_.offset(index); }
  /// The flat gradients, present after enable_training.
  Acc* grads() const { return grads_.as<Acc>(); }
  Acc* grad(int64_t index) const { return grads() + table_.offset(index); }

  /// Start values of every parameter (math.md 7.7).
  void initialize(uint64_t seed);
  /// Marks parameters that are not trained (their gradient is not even computed), by glob pattern
  /// over names ("backbone.embeddings.*"). Returns how many match. Before enable_training.
  int64_t freeze(const std::string& pattern);
  void enable_training();
  void zero_grads();

  /// Refreshes what is derived from values() (bf16 copies of the weights).
  virtual void refresh_weights(Context& context) = 0;

  /// Forward and backward of one micro-batch: row_loss (rows) in nats is written, 0 where ignored;
  /// gradients of gradient_scale * sum(row_loss) are added to grads().
  virtual void train_batch(Context& context, const TokenBatch& batch, const LossOptions& options,
                           double gradient_scale, double* row_loss) = 0;
  /// Forward and loss only.
  virtual void evaluate(Context& context, const TokenBatch& batch, const LossOptions& options,
                        double* row_loss) const = 0;
  /// Logits of every token (rows, padded_vocab), or of the last token of each batch row (batch,
  /// padded_vocab). `state` (may be null) is read and advanced.
  virtual void logits(Context& context, const TokenLayout& layout, const int32_t* ids,
                      DecodeState* state, bool last_only, Acc* out) const = 0;

  std::unique_ptr<DecodeState> make_state(int64_t slots) const;

 protected:
  LanguageModel(ModelConfig config, Dtype compute);
  virtual std::vector<std::vector<StatePart>> state_parts() const = 0;
  /// Points every weight and gradient field into values() and grads().
  virtual void bind() = 0;

  ModelConfig config_;
  Dtype compute_;
  int64_t padded_vocab_ = 0;
  ParamTable table_;
  Buffer values_;
  Buffer grads_;
};

/// Builds the model with uninitialised parameters. compute: f64 for Acc = double; f32 or bf16 for
/// float. Throws Error when the config is out of range or asks for a part that does not exist.
template <class Acc>
std::unique_ptr<LanguageModel<Acc>> make_model(const ModelConfig& config, Dtype compute);

/// The arena bytes that `call(context)` takes, found by running it over a measuring arena.
template <class Call>
int64_t plan_bytes(Context context, const Call& call) {
  Arena plan;
  context.arena = &plan;
  call(context);
  return plan.peak_bytes();
}

/// The elements of `pattern` with '*' and '?' against a whole name.
bool glob_match(const std::string& pattern, const std::string& name);

}  // namespace adder
