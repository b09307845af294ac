// Token shards: the token ids of a corpus in one file, read in place. All fields little-endian.
//
//   offset size
//   0      8    magic "ADDRTOK1"
//   8      4    u32 version = 1
//   12     4    u32 bytes per token: 1, 2 or 4 (the smallest that holds the vocabulary)
//   16     8    u64 vocabulary size; every id is below it
//   24     8    u64 number of tokens
//   32     8    u64 bytes of the text that was tokenized (for bits per byte)
//   40     8    u64 number of documents
//   48     32   name of the tokenizer, UTF-8, padded with NUL
//   80     4    u32 CRC32C of the tokens
//   84     4    u32 CRC32C of bytes 0..83
//   88     40   zero
//   128         tokens, unsigned, to the end of the file
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "core/checksum.h"
#include "core/mapped_file.h"

namespace adder {

struct TokenShardInfo {
  int64_t vocab_size = 0;
  int64_t count = 0;
  int64_t text_bytes = 0;
  int64_t documents = 0;
  int64_t token_bytes = 0;  // 1, 2 or 4
  std::string tokenizer;
};

/// Immutable after opening; const members may be used from several threads.
class TokenShard {
 public:
  enum class Verify : uint8_t { header, everything };
  /// Checks every header field and the file's length; `everything` also the tokens' checksum and
  /// range.
  explicit TokenShard(const std::string& path, Verify verify = Verify::everything);

  const std::string& path() const { return file_.path(); }
  const TokenShardInfo& info() const { return info_; }
  int64_t count() const { return info_.count; }
  int32_t at(int64_t index) const;
  /// Copies tokens [begin, begin + n) to `out`. Throws Error outside the shard and on an id outside
  /// the vocabulary.
  void copy(int64_t begin, int64_t n, int32_t* out) const;

 private:
  void check_tokens() const;

  MappedFile file_;
  TokenShardInfo info_;
  uint32_t token_crc_ = 0;
};

/// Writes a shard as a stream; nothing exists at `path` until finish() returns.
class TokenShardWriter {
 public:
  TokenShardWriter(const std::string& path, int64_t vocab_size, std::string tokenizer);
  /// Throws Error on an id outside [0, vocab_size).
  void append(std::span<const int32_t> tokens);
  void add_text_bytes(int64_t bytes) { info_.text_bytes += bytes; }
  void add_document() { ++info_.documents; }
  TokenShardInfo finish();

 private:
  AtomicFile file_;
  TokenShardInfo info_;
  Crc32c crc_;
  std::vector<std::byte> packed_;
};

}  // namespace adder
