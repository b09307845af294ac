// Generation over text: prompt in, whole characters out, stop strings. Shared by the public API and
// the command line; the engine below speaks token ids only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "infer/open_model.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace adder {

/// Turns the bytes of tokens into text that may be shown: a character cut between two tokens waits
/// until it is whole, and what may be the beginning of a stop string waits until it is not. The
/// result does not depend on how the bytes were cut. Not thread-safe.
class TextStream {
 public:
  /// Throws UsageError on an empty stop string.
  explicit TextStream(std::vector<std::string> stops);
  /// The text that can be shown after `bytes`. Once a stop string was met, nothing more comes.
  std::string push(std::string_view bytes);
  /// The text that was still held back. Nothing may be pushed after it.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  void hold(char byte);

  std::vector<std::string> stops_;
  std::string held_;   // the longest end of the bytes so far that begins a stop string
  std::string ready_;  // before it
  bool stopped_ = false;
  Utf8Assembler characters_;
};

/// The tokenizer of a model: bytes for 256 tokens. Throws Error for other vocabularies.
std::unique_ptr<Tokenizer> model_tokenizer(const ModelConfig& config);

/// The ids of a prompt. An empty one becomes the model's bos token, or else a newline.
std::vector<int32_t> prompt_ids(const Tokenizer& tokenizer, const GenerationConfig& generation,
                                std::string_view prompt);

struct TextGeneration {
  Generation tokens;
  std::vector<std::string> stops;
};

struct TextResult {
  GenerationResult tokens;
  std::string text;
  bool stop_string = false;
};

/// `on_text` (may be empty) gets the text as it becomes certain and returns whether to go on.
TextResult generate_text(Engine& engine, const Tokenizer& tokenizer,
                         std::span<const int32_t> prompt, const TextGeneration& request,
                         const std::function<bool(std::string_view)>& on_text);

}  // namespace adder
