#include "api/text_generation.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace adder {
namespace {

constexpr int64_t kByteVocab = 256;

}  // namespace

TextStream::TextStream(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) {
    if (stop.empty()) throw UsageError({"empty stop string", "generate", "at least one byte", ""});
  }
  // Of two that end at the same byte the longer one began first.
  std::sort(stops_.begin(), stops_.end(),
            [](const auto& a, const auto& b) { return a.size() > b.size(); });
}

void TextStream::hold(char byte) {
  held_ += byte;
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    if (held_.ends_with(stop)) {
      ready_.append(held_, 0, held_.size() - stop.size());
      held_.clear();
      stopped_ = true;
      return;
    }
    size_t length = std::min(held_.size(), stop.size() - 1);
    const std::string_view held = held_;
    while (length > keep && !stop.starts_with(held.substr(held.size() - length))) --length;
    keep = std::max(keep, length);
  }
  ready_.append(held_, 0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
}

std::string TextStream::push(std::string_view bytes) {
  for (const char byte : bytes) {
    if (!stopped_) hold(byte);
  }
  return characters_.push(std::exchange(ready_, {}));
}

std::string TextStream::finish() {
  std::string text = characters_.push(std::exchange(held_, {}));
  return text + characters_.finish();
}

std::unique_ptr<Tokenizer> model_tokenizer(const ModelConfig& config) {
  if (config.vocab_size == kByteVocab) return make_tokenizer("bytes", kByteVocab);
  throw Error({"no tokenizer for this vocabulary", "model",
               "256 tokens, which are bytes, or token ids instead of text",
               std::to_string(config.vocab_size) + " tokens"});
}

std::vector<int32_t> prompt_ids(const Tokenizer& tokenizer, const GenerationConfig& generation,
                                std::string_view prompt) {
  if (!prompt.empty()) return tokenizer.encode(prompt);
  const auto bos = generation.bos_token_id;
  if (bos && *bos >= 0 && *bos < tokenizer.vocab_size()) return {static_cast<int32_t>(*bos)};
  return tokenizer.encode("\n");
}

TextResult generate_text(Engine& engine, const Tokenizer& tokenizer,
                         std::span<const int32_t> prompt, const TextGeneration& request,
                         const std::function<bool(std::string_view)>& on_text) {
  TextStream stream(request.stops);
  TextResult result;
  bool wanted = true;
  const auto show = [&](const std::string& text) {
    result.text += text;
    if (wanted && on_text && !text.empty()) wanted = on_text(text);
  };
  result.tokens = engine.generate(0, prompt, request.tokens, [&](int32_t id) {
    show(stream.push(tokenizer.decode({&id, 1})));
    return wanted && !stream.stopped();
  });
  result.stop_string = stream.stopped();
  if (wanted) show(stream.finish());
  return result;
}

}  // namespace adder
