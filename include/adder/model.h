// A Mamba language model: load or create it, run it, differentiate it, generate with it, save it.
//
// Token ids are int32 in [0, vocab_size). A call over a batch takes `batch` rows of equal length,
// row-major: ids.size() is batch * length. Losses are in nats. Matrices are row-major.
//
// Errors of the outside world (files, ids, sizes, options) are thrown as std::runtime_error whose
// what() reads "WHERE: WHAT: expected EXPECTED, got GOT"; nothing else is thrown but
// std::bad_alloc and what a callback throws, which passes through. The library never prints and
// never exits.
//
// Threads: const calls of one Model may run at the same time. A non-const call must be alone. A
// Session belongs to one thread at a time. The result does not depend on the number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "adder/export.h"

namespace adder {
inline namespace v0 {

class Session;
class Trainer;

/// The type of products and activations; parameters and gradients are always f32.
enum class Precision : uint8_t { f32, bf16 };

struct ModelOptions {
  int threads = 0;  // 0: every core that the process may use
  Precision precision = Precision::f32;
  /// With bf16: keeps no f32 copy of the weights (2 bytes a parameter). Parameters then read back
  /// as they were rounded, and the model cannot be trained.
  bool inference_only = false;
};

/// The sizes of a stack. Those that are 0 follow from others.
struct ModelSpec {
  std::string arch = "mamba1";  // or "mamba2"
  int64_t vocab_size = 256;     // 256 and no tokenizer: tokens are bytes
  int64_t d_model = 256;
  int64_t n_layer = 4;
  int64_t d_state = 16;  // Mamba-2: 64 to 256 are usual
  int64_t d_conv = 4;
  int64_t d_inner = 0;         // 2 d_model
  int64_t dt_rank = 0;         // Mamba-1: d_model / 16, rounded up
  int64_t head_dim = 64;       // Mamba-2: channels of a head; divides d_inner
  int64_t groups = 1;          // Mamba-2: of B and C; divides the heads
  int64_t d_intermediate = 0;  // > 0: a gated MLP after every mixer, width rounded up to 128
  bool tie_embeddings = true;
  std::optional<int32_t> bos_token_id;  // an empty prompt starts from it
  std::vector<int32_t> eos_token_ids;   // generation stops before it would hand one out
};

struct ParameterInfo {
  std::string name;  // as in the model's file: "backbone.layers.0.mixer.A_log"
  std::vector<int64_t> shape;
};

/// The order in which a token is chosen: repetition penalty; greedy when temperature is 0 or top_k
/// is 1; else top_k, temperature, top_p, min_p and a draw that (seed, position) alone decides.
struct GenerateOptions {
  int64_t max_tokens = 256;
  double temperature = 0.8;
  int64_t top_k = 0;                // 0: off
  double top_p = 1.0;               // 1: off
  double min_p = 0.0;               // 0: off
  double repetition_penalty = 1.0;  // 1: off
  uint64_t seed = 0;
  std::optional<std::vector<int32_t>> end_ids;  // absent: the model's own
  std::vector<std::string> stop;  // generate_text only: ends before the first of these strings
};

enum class FinishReason : uint8_t { length, end_token, stop_string, callback };

struct GeneratedTokens {
  std::vector<int32_t> ids;  // without the prompt and the end token
  FinishReason reason = FinishReason::length;
};

struct GeneratedText {
  std::string text;  // valid UTF-8, without the prompt and the stop string
  FinishReason reason = FinishReason::length;
};

class ADDER_API Model {
 public:
  /// Opens a directory with config.json and model.safetensors (or shards), as transformers,
  /// state-spaces/mamba and save() write it.
  static Model load(const std::string& directory, const ModelOptions& options = {});
  /// A new model with the published start values; `seed` alone decides them.
  static Model create(const ModelSpec& spec, uint64_t seed = 0, const ModelOptions& options = {});

  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;
  ~Model();

  const ModelSpec& spec() const;
  /// Elements of all parameters, a tied head counted once.
  int64_t parameter_count() const;
  /// In the order of the file, a tied head left out.
  std::vector<ParameterInfo> parameters() const;

  /// A copy of one parameter, row-major. Throws naming the nearest known name.
  std::vector<float> parameter(std::string_view name) const;
  /// Replaces one: as many values as parameter() gives.
  void set_parameter(std::string_view name, std::span<const float> values);

  /// Logits (batch, length, vocab_size) of the token that follows each token.
  std::vector<float> forward(std::span<const int32_t> ids, int64_t batch = 1) const;
  /// Mean cross-entropy over the targets that are not -100. targets.size() == ids.size().
  double loss(std::span<const int32_t> ids, std::span<const int32_t> targets,
              int64_t batch = 1) const;
  /// The same, and gradient(name) holds the gradient of it for every parameter not frozen.
  double loss_and_gradients(std::span<const int32_t> ids, std::span<const int32_t> targets,
                            int64_t batch = 1);
  /// A copy, row-major, of the last loss_and_gradients (throws before the first); zeros where
  /// frozen.
  std::vector<float> gradient(std::string_view name) const;
  /// Parameters whose names match ('*' and '?') are not trained. Before the first gradient.
  /// Returns how many match.
  int64_t freeze(const std::string& pattern);

  /// Continues a prompt token by token. `on_token` (may be empty) sees each id as it is drawn and
  /// returns whether to go on. An empty prompt starts from bos_token_id; without one it throws.
  GeneratedTokens generate(std::span<const int32_t> prompt, const GenerateOptions& options = {},
                           const std::function<bool(int32_t)>& on_token = {}) const;
  /// The same over text, for models whose tokens are bytes (others throw). `on_text` sees whole
  /// characters only, as soon as no stop string can begin in them. An empty prompt without a bos
  /// token starts from a newline.
  GeneratedText generate_text(std::string_view prompt, const GenerateOptions& options = {},
                              const std::function<bool(std::string_view)>& on_text = {}) const;

  /// Writes the directory that load() opens, in the Hugging Face Mamba layout where that can
  /// express the model (transformers opens it unchanged), else in the native one. Each file is
  /// replaced atomically. Returns why it is not the Hugging Face layout, or "".
  std::string save(const std::string& directory) const;

 private:
  friend class Session;
  friend class Trainer;
  struct ADDER_HIDDEN Impl;
  ADDER_HIDDEN explicit Model(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;  // shared with its sessions and trainers, never with another Model
};

/// One sequence under way: constant memory whatever its length. It keeps the model's
/// weights alive.
class ADDER_API Session {
 public:
  explicit Session(const Model& model);
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  /// Advances over `ids` (at least one). Logits (vocab_size) of what follows the last of them,
  /// valid until the next call.
  std::span<const float> feed(std::span<const int32_t> ids);
  /// Back to before the first token.
  void reset();
  /// Bytes of the state that is carried from token to token.
  int64_t state_bytes() const;

 private:
  struct ADDER_HIDDEN Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace v0
}  // namespace adder
