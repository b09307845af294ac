// Text <-> token ids. The engine below sees ids only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace adder {

/// Immutable: may be used from several threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  /// The bytes of the tokens, which need not be valid UTF-8: a token may hold part of a character
  /// (see Utf8Assembler). Throws Error on an id outside the vocabulary.
  virtual std::string decode(std::span<const int32_t> tokens) const = 0;
  virtual int64_t vocab_size() const = 0;
  virtual std::string name() const = 0;
  /// Whether encode(a + b) is encode(a) followed by encode(b) for any a and b, so that a long text
  /// may be encoded in blocks.
  virtual bool splits_anywhere() const { return false; }
};

/// Token = byte. `special_tokens` ids follow the 256 bytes (a document separator, say); no text
/// encodes to them and they decode to nothing.
class ByteTokenizer : public Tokenizer {
 public:
  explicit ByteTokenizer(int32_t special_tokens = 0);
  std::vector<int32_t> encode(std::string_view text) const override;
  std::string decode(std::span<const int32_t> tokens) const override;
  int64_t vocab_size() const override { return 256 + special_tokens_; }
  std::string name() const override { return "bytes"; }
  bool splits_anywhere() const override { return true; }

 private:
  int32_t special_tokens_;
};

/// Makes the tokenizer of a name that shards and checkpoints store; `vocab_size` tells how many
/// special tokens there are. Throws Error for an unknown name or a size that does not fit it.
std::unique_ptr<Tokenizer> make_tokenizer(std::string_view name, int64_t vocab_size);

}  // namespace adder
