#include "text/tokenizer.h"

#include "core/error.h"

namespace adder {

ByteTokenizer::ByteTokenizer(int32_t special_tokens) : special_tokens_(special_tokens) {
  if (special_tokens < 0 || special_tokens > 1 << 20) {
    throw Error({"wrong number of special tokens", "byte tokenizer", "0 to 1048576",
                 std::to_string(special_tokens)});
  }
}

std::vector<int32_t> ByteTokenizer::encode(std::string_view text) const {
  std::vector<int32_t> tokens(text.size());
  for (size_t i = 0; i < text.size(); ++i) tokens[i] = static_cast<unsigned char>(text[i]);
  return tokens;
}

std::string ByteTokenizer::decode(std::span<const int32_t> tokens) const {
  std::string text;
  text.reserve(tokens.size());
  for (const int32_t token : tokens) {
    if (token < 0 || token >= vocab_size()) {
      throw Error({"token outside the vocabulary", "byte tokenizer",
                   "0 to " + std::to_string(vocab_size() - 1), std::to_string(token)});
    }
    if (token < 256) text += static_cast<char>(token);
  }
  return text;
}

std::unique_ptr<Tokenizer> make_tokenizer(std::string_view name, int64_t vocab_size) {
  if (name != "bytes") throw Error({"unknown tokenizer", {}, "bytes", std::string(name)});
  if (vocab_size < 256 || vocab_size > 256 + (1 << 20)) {
    throw Error({"wrong vocabulary size", "byte tokenizer", "256 and the special tokens",
                 std::to_string(vocab_size)});
  }
  return std::make_unique<ByteTokenizer>(static_cast<int32_t>(vocab_size - 256));
}

}  // namespace adder
