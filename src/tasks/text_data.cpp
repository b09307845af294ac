#include "tasks/text_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "core/checksum.h"
#include "core/error.h"
#include "text/documents.h"

namespace adder {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kShardMagic = "ADDRTOK1";
constexpr int64_t kChecksumChunk = 1 << 16;  // tokens

bool is_shard(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic(kShardMagic.size(), '\0');
  return file.read(magic.data(), static_cast<std::streamsize>(magic.size())) &&
         magic == kShardMagic;
}

bool is_readable_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

// One document a line: the ends of documents are marked by a token of their own.
bool has_documents(const DataConfig& config, const std::string& path) {
  const DocumentFormat format = document_format_from_name(config.format);
  if (format != DocumentFormat::automatic) return format != DocumentFormat::plain;
  const std::string ending = fs::path(path).extension().string();
  return ending == ".jsonl" || ending == ".ndjson" || ending == ".tsv";
}

std::shared_ptr<const TokenShard> tokenized(const DataConfig& config, const std::string& path,
                                            const std::string& shard) {
  const bool documents = has_documents(config, path);
  const ByteTokenizer tokenizer(documents ? 1 : 0);
  TokenizeOptions options;
  options.documents = {document_format_from_name(config.format), config.field, config.column,
                       config.skip_header};
  if (documents) options.separator = static_cast<int32_t>(tokenizer.vocab_size() - 1);
  tokenize_file(path, shard, tokenizer, options);
  return std::make_shared<const TokenShard>(shard);
}

std::shared_ptr<const TokenShard> open_tokens(const DataConfig& config, const std::string& path,
                                              const std::string& shard, bool reuse) {
  if (reuse && is_readable_file(shard)) {
    try {
      return std::make_shared<const TokenShard>(shard);
    } catch (const Error&) {
      // Made again from the text; the fingerprint tells whether it is the same.
    }
  }
  const std::string file = find_data_file(path);
  if (is_shard(file)) return std::make_shared<const TokenShard>(file);
  fs::create_directories(fs::path(shard).parent_path());
  return tokenized(config, file, shard);
}

int64_t tokens_checksum(const TokenShard& shard) {
  Crc32c crc;
  std::vector<int32_t> chunk(static_cast<size_t>(std::min(shard.count(), kChecksumChunk)));
  for (int64_t begin = 0; begin < shard.count(); begin += kChecksumChunk) {
    const int64_t count = std::min(kChecksumChunk, shard.count() - begin);
    shard.copy(begin, count, chunk.data());
    crc.update(std::as_bytes(std::span(chunk.data(), static_cast<size_t>(count))));
  }
  return crc.value();
}

JsonValue shard_fingerprint(const TokenShard& shard) {
  JsonValue json;
  json.set("tokens", shard.count());
  json.set("vocab_size", shard.info().vocab_size);
  json.set("tokenizer", shard.info().tokenizer);
  json.set("crc32c", tokens_checksum(shard));
  return json;
}

}  // namespace

std::string find_data_file(const std::string& path) {
  std::vector<fs::path> places = {path};
  if (fs::path(path).is_relative()) {
    places.push_back(fs::path(ADDER_SOURCE_DIR) / path);
    std::error_code error;
    const fs::path program = fs::read_symlink("/proc/self/exe", error);
    if (!error) places.push_back(program.parent_path().parent_path() / "share/adder" / path);
  }
  std::string tried;
  for (const fs::path& place : places) {
    if (is_readable_file(place)) return place.string();
    tried += (tried.empty() ? "" : ", ") + place.string();
  }
  throw Error({"no such data file", path, "", tried + ": not there, or no regular file"});
}

TextData open_text_data(const DataConfig& config, const std::string& directory, bool reuse) {
  TextData data;
  data.train.shard = open_tokens(config, config.path, directory + "/train.tokens", reuse);
  data.train.end = data.train.shard->count();
  data.fingerprint.set("train", shard_fingerprint(*data.train.shard));
  const TokenShardInfo& info = data.train.shard->info();
  data.tokenizer = make_tokenizer(info.tokenizer, info.vocab_size);

  if (!config.validation.empty()) {
    data.validation.shard =
        open_tokens(config, config.validation, directory + "/validation.tokens", reuse);
    data.validation.end = data.validation.shard->count();
    data.fingerprint.set("validation", shard_fingerprint(*data.validation.shard));
    const TokenShardInfo& other = data.validation.shard->info();
    if (other.tokenizer != info.tokenizer || other.vocab_size > info.vocab_size) {
      throw Error({"the validation data is tokenized otherwise", data.validation.shard->path(),
                   fmt::format("{}, vocabulary {}", info.tokenizer, info.vocab_size),
                   fmt::format("{}, vocabulary {}", other.tokenizer, other.vocab_size)});
    }
  } else if (config.validation_fraction > 0) {
    const auto held_out = static_cast<int64_t>(
        std::floor(static_cast<double>(data.train.end) * config.validation_fraction));
    data.train.end -= held_out;
    data.validation = {data.train.shard, data.train.end, data.train.end + held_out};
  }
  return data;
}

}  // namespace adder
