#include "formats/token_shard.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "formats/json.h"
#include "formats/tensor_info.h"

namespace adder {
namespace {

constexpr char kMagic[9] = "ADDRTOK1";
constexpr uint32_t kVersion = 1;
constexpr int64_t kHeaderBytes = 128;
constexpr int64_t kBlockTokens = 64 * 1024;

/// The header as it lies in the file.
struct Header {
  char magic[8];
  uint32_t version;
  uint32_t token_bytes;
  uint64_t vocab_size;
  uint64_t count;
  uint64_t text_bytes;
  uint64_t documents;
  char tokenizer[32];
  uint32_t token_crc;
  uint32_t header_crc;
  char zero[40];
};
static_assert(sizeof(Header) == kHeaderBytes);

uint32_t header_checksum(const Header& header) {
  return crc32c(std::as_bytes(std::span(&header, 1)).first(offsetof(Header, header_crc)));
}

int64_t bytes_for(int64_t vocab_size) {
  return vocab_size <= 256 ? 1 : vocab_size <= 65536 ? 2 : 4;
}

int32_t load_token(const std::byte* at, int64_t token_bytes) {
  uint32_t token = 0;
  std::memcpy(&token, at, static_cast<size_t>(token_bytes));
  return static_cast<int32_t>(token);
}

void check_field(bool good, const std::string& path, const char* field, std::string expected,
                 std::string got) {
  if (good) return;
  throw Error({"wrong " + std::string(field), path, std::move(expected), std::move(got)});
}

void check_counts(const Header& header, const std::string& path, int64_t file_bytes) {
  const auto text = [](uint64_t value) { return std::to_string(value); };
  constexpr uint64_t kLargestVocab = std::numeric_limits<int32_t>::max();
  check_field(header.vocab_size >= 1 && header.vocab_size <= kLargestVocab, path, "vocabulary size",
              "1 to " + text(kLargestVocab), text(header.vocab_size));
  const auto width = static_cast<uint64_t>(bytes_for(static_cast<int64_t>(header.vocab_size)));
  check_field(header.token_bytes == width, path, "bytes per token", text(width),
              text(header.token_bytes));
  const auto stored = static_cast<uint64_t>(file_bytes - kHeaderBytes);
  check_field(stored % width == 0 && header.count == stored / width, path, "number of tokens",
              text(stored) + " bytes of " + text(width) + "-byte tokens", text(header.count));
  constexpr uint64_t kLargest = std::numeric_limits<int64_t>::max();
  check_field(header.text_bytes <= kLargest, path, "number of text bytes", "below 2^63",
              text(header.text_bytes));
  check_field(header.documents <= kLargest, path, "number of documents", "below 2^63",
              text(header.documents));
}

Header read_header(const MappedFile& file) {
  const std::string& path = file.path();
  check_field(file.size() >= kHeaderBytes, path, "token shard: too short", "at least 128 bytes",
              std::to_string(file.size()));
  Header header{};
  file.read(0, std::as_writable_bytes(std::span(&header, 1)));
  check_field(std::memcmp(header.magic, kMagic, 8) == 0, path, "magic", kMagic,
              quoted_name({header.magic, 8}));
  check_field(header.version == kVersion, path, "version", std::to_string(kVersion),
              std::to_string(header.version));
  check_counts(header, path, file.size());
  const std::string_view name(header.tokenizer, sizeof header.tokenizer);
  const size_t length = std::min(name.find('\0'), name.size());
  check_field(length > 0 && is_utf8(name.substr(0, length)) &&
                  name.substr(length).find_first_not_of('\0') == std::string_view::npos,
              path, "tokenizer name", "UTF-8 padded with NUL", quoted_name(name));
  check_field(
      std::all_of(std::begin(header.zero), std::end(header.zero), [](char c) { return c == 0; }),
      path, "reserved bytes", "zero", "others");
  check_field(header.header_crc == header_checksum(header), path, "header checksum",
              std::to_string(header_checksum(header)), std::to_string(header.header_crc));
  return header;
}

}  // namespace

TokenShard::TokenShard(const std::string& path, Verify verify) : file_(path) {
  const Header header = read_header(file_);
  info_.vocab_size = static_cast<int64_t>(header.vocab_size);
  info_.count = static_cast<int64_t>(header.count);
  info_.text_bytes = static_cast<int64_t>(header.text_bytes);
  info_.documents = static_cast<int64_t>(header.documents);
  info_.token_bytes = header.token_bytes;
  const std::string_view name(header.tokenizer, sizeof header.tokenizer);
  info_.tokenizer = name.substr(0, name.find('\0'));
  token_crc_ = header.token_crc;
  if (verify == Verify::everything) check_tokens();
}

void TokenShard::check_tokens() const {
  Crc32c crc;
  std::vector<std::byte> block(static_cast<size_t>(kBlockTokens * info_.token_bytes));
  for (int64_t begin = 0; begin < count(); begin += kBlockTokens) {
    const int64_t length = std::min(kBlockTokens, count() - begin);
    const auto bytes = std::span(block).first(static_cast<size_t>(length * info_.token_bytes));
    file_.read(kHeaderBytes + begin * info_.token_bytes, bytes);
    crc.update(bytes);
  }
  check_field(crc.value() == token_crc_, path(), "checksum of the tokens",
              std::to_string(token_crc_), std::to_string(crc.value()));
  std::vector<int32_t> tokens(static_cast<size_t>(std::min(count(), kBlockTokens)));
  for (int64_t begin = 0; begin < count(); begin += kBlockTokens) {
    copy(begin, std::min(kBlockTokens, count() - begin), tokens.data());
  }
}

int32_t TokenShard::at(int64_t index) const {
  int32_t token = 0;
  copy(index, 1, &token);
  return token;
}

void TokenShard::copy(int64_t begin, int64_t n, int32_t* out) const {
  if (begin < 0 || n < 0 || begin > count() || n > count() - begin) {
    throw Error({"tokens outside the shard", path(), "0 to " + std::to_string(count()),
                 std::to_string(n) + " tokens at " + std::to_string(begin)});
  }
  const int64_t width = info_.token_bytes;
  // Packed into the tail of `out`, then widened from the front: each id is read before its bytes
  // are overwritten, because width <= 4.
  auto* packed = reinterpret_cast<std::byte*>(out) + n * (int64_t{sizeof(int32_t)} - width);
  file_.read(kHeaderBytes + begin * width, {packed, static_cast<size_t>(n * width)});
  for (int64_t i = 0; i < n; ++i) {
    const int32_t token = load_token(packed + i * width, width);
    if (token < 0 || token >= info_.vocab_size) {
      throw Error({"token " + std::to_string(begin + i) + " is outside the vocabulary", path(),
                   "below " + std::to_string(info_.vocab_size),
                   std::to_string(static_cast<uint32_t>(token))});
    }
    out[i] = token;
  }
}

TokenShardWriter::TokenShardWriter(const std::string& path, int64_t vocab_size,
                                   std::string tokenizer)
    : file_(path) {
  if (vocab_size < 1 || vocab_size > std::numeric_limits<int32_t>::max()) {
    throw Error({"wrong vocabulary size", path, "1 to 2147483647", std::to_string(vocab_size)});
  }
  if (tokenizer.empty() || tokenizer.size() > sizeof(Header::tokenizer) || !is_utf8(tokenizer) ||
      tokenizer.find('\0') != std::string::npos) {
    throw Error({"wrong tokenizer name", path, "1 to 32 bytes of UTF-8", quoted_name(tokenizer)});
  }
  info_.vocab_size = vocab_size;
  info_.token_bytes = bytes_for(vocab_size);
  info_.tokenizer = std::move(tokenizer);
  const Header blank{};
  file_.write(std::as_bytes(std::span(&blank, 1)));
}

void TokenShardWriter::append(std::span<const int32_t> tokens) {
  const auto width = static_cast<size_t>(info_.token_bytes);
  packed_.resize(tokens.size() * width);
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= info_.vocab_size) {
      throw Error({"token outside the vocabulary", file_.path(),
                   "0 to " + std::to_string(info_.vocab_size - 1), std::to_string(tokens[i])});
    }
    std::memcpy(packed_.data() + i * width, &tokens[i], width);
  }
  crc_.update(packed_);
  file_.write(packed_);
  info_.count += static_cast<int64_t>(tokens.size());
}

TokenShardInfo TokenShardWriter::finish() {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof header.magic);
  header.version = kVersion;
  header.token_bytes = static_cast<uint32_t>(info_.token_bytes);
  header.vocab_size = static_cast<uint64_t>(info_.vocab_size);
  header.count = static_cast<uint64_t>(info_.count);
  header.text_bytes = static_cast<uint64_t>(info_.text_bytes);
  header.documents = static_cast<uint64_t>(info_.documents);
  std::memcpy(header.tokenizer, info_.tokenizer.data(), info_.tokenizer.size());
  header.token_crc = crc_.value();
  header.header_crc = header_checksum(header);
  file_.write_at(0, std::as_bytes(std::span(&header, 1)));
  file_.commit();
  return info_;
}

}  // namespace adder
