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
#include "layers/param_store.h"
#include "models/call_arrays.h"

namespace adder {

struct LossOptions {
  double label_smoothing = 0;
  double z_loss = 0;
};

/// The state that decoding carries: every layer's state parts for `slots` sequences, in the memory
/// of the device. Starts at zero.
class DecodeState {
 public:
  DecodeState(std::vector<std::vector<StatePart>> layers, int64_t slots, const Context& context);
  int64_t slots() const { return slots_; }
  int64_t bytes() const { return buffer_.bytes(); }
  std::span<const StatePart> layer(size_t index) const { return layers_[index]; }
  size_t layers() const { return layers_.size(); }
  /// Sets one slot to the state before the first token.
  void reset(const Context& context, int64_t slot);

 private:
  std::vector<std::vector<StatePart>> layers_;
  int64_t slots_;
  Buffer buffer_;
};

/// `context` on so many threads; 0: every core that the process may use.
Context with_threads(Context context, int64_t threads);

/// The choices that a model is built by.
struct ModelBuild {
  Dtype compute = Dtype::f32;  // of products and activations: f32 or bf16, for double f64
  /// Keeps values in full precision beside narrower weights: for training and for reading
  /// parameters back exactly. Without them a bf16 model holds 2 bytes a parameter.
  bool masters = true;
  Context context = {};  // the device, and the threads for what the model itself does (loading)
};

/// Acc: type of the master parameters and gradients: float (compute types f32 and bf16) or double.
/// Calls are const and thread-safe except those that change parameters; gradients are added to the
/// model's own array, so one training call runs at a time. Every call takes its memory from
/// context.arena and only enqueues work; arrays are in the memory of the device. ModelRunner
/// (models/model_runner.h) does the host's side.
template <class Acc>
class LanguageModel {
 public:
  virtual ~LanguageModel() = default;

  const ModelConfig& config() const { return config_; }
  const ParamTable& params() const { return store_.table(); }
  ParamStore<Acc>& store() { return store_; }
  const ParamStore<Acc>& store() const { return store_; }
  Dtype compute_dtype() const { return compute_; }
  /// Columns of the logits: the padded vocabulary.
  int64_t padded_vocab() const { return padded_vocab_; }

  /// Start values of every parameter (math.md 7.7).
  void initialize(uint64_t seed);
  /// Marks parameters that are not trained (their gradient is not even computed), by glob pattern
  /// over names ("backbone.embeddings.*"). Returns how many match. Before enable_training.
  int64_t freeze(const std::string& pattern);
  void enable_training();

  /// Forward and backward of one micro-batch: row_loss (rows) in nats is written, 0 where ignored;
  /// gradients of *gradient_scale * sum(row_loss) are added to the store's.
  virtual void train_batch(Context& context, const TokenBatch& batch, const LossOptions& options,
                           const double* gradient_scale, double* row_loss) = 0;
  /// Forward and loss only.
  virtual void evaluate(Context& context, const TokenBatch& batch, const LossOptions& options,
                        double* row_loss) const = 0;
  /// Logits (batch.logit_rows(), padded_vocab). `state` (may be null) is read and advanced.
  virtual void logits(Context& context, const TokenBatch& batch, DecodeState* state,
                      Acc* out) const = 0;

  std::unique_ptr<DecodeState> make_state(int64_t slots, const Context& context) const;

 protected:
  LanguageModel(ModelConfig config, const ModelBuild& build);
  virtual std::vector<std::vector<StatePart>> state_parts() const = 0;
  /// Points every weight and gradient field into the store.
  virtual void bind() = 0;

  ModelConfig config_;
  Dtype compute_;
  int64_t padded_vocab_ = 0;
  ParamStore<Acc> store_;
};

/// Builds the model with uninitialised parameters. Throws Error when the config is out of range or
/// asks for a part that does not exist.
template <class Acc>
std::unique_ptr<LanguageModel<Acc>> make_model(const ModelConfig& config, const ModelBuild& build);

/// The elements of `pattern` with '*' and '?' against a whole name.
bool glob_match(const std::string& pattern, const std::string& name);

}  // namespace adder
