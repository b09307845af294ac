#include "formats/token_shard.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <numeric>

#include "core/rng.h"
#include "formats/scratch_folder.h"

namespace adder {
namespace {

/// A shard of `count` tokens below `vocab_size`, drawn from (vocab_size, index).
std::vector<int32_t> write_shard(const std::string& path, int64_t vocab_size, int64_t count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto seed = static_cast<uint64_t>(vocab_size);
    tokens[i] = static_cast<int32_t>(uniform_below(seed, 0, i, seed));
  }
  TokenShardWriter writer(path, vocab_size, "bytes");
  const std::span<const int32_t> all = tokens;
  for (size_t begin = 0; begin < all.size(); begin += 1000) {  // as a stream
    writer.append(all.subspan(begin, std::min<size_t>(1000, all.size() - begin)));
  }
  writer.add_text_bytes(count * 3);
  writer.add_document();
  writer.finish();
  return tokens;
}

TEST(TokenShard, RoundTripsInTheSmallestWidth) {
  const ScratchFolder folder;
  const std::pair<int64_t, int64_t> kWidths[] = {{1, 1},     {256, 1},   {257, 2},
                                                 {65536, 2}, {65537, 4}, {INT32_MAX, 4}};
  for (const auto& [vocab_size, width] : kWidths) {
    for (const int64_t count : {0, 1, 2500, 70'001}) {
      const auto tokens = write_shard(folder.at("a"), vocab_size, count);
      const TokenShard shard(folder.at("a"));
      EXPECT_EQ(shard.info().token_bytes, width);
      EXPECT_EQ(shard.info().vocab_size, vocab_size);
      EXPECT_EQ(shard.info().text_bytes, count * 3);
      EXPECT_EQ(shard.info().documents, 1);
      EXPECT_EQ(shard.info().tokenizer, "bytes");
      ASSERT_EQ(shard.count(), count);
      std::vector<int32_t> read(tokens.size());
      shard.copy(0, count, read.data());
      EXPECT_EQ(read, tokens);
      if (count > 10) {
        shard.copy(count - 3, 3, read.data());
        EXPECT_TRUE(std::equal(tokens.end() - 3, tokens.end(), read.begin()));
        EXPECT_EQ(shard.at(count - 1), tokens.back());
      }
    }
  }
}

TEST(TokenShard, RefusesRangesOutside) {
  const ScratchFolder folder;
  write_shard(folder.at("a"), 256, 10);
  const TokenShard shard(folder.at("a"));
  int32_t out[16];
  const std::pair<int64_t, int64_t> kBad[] = {{-1, 1}, {0, 11},        {10, 1},       {0, -1},
                                              {11, 0}, {INT64_MAX, 1}, {1, INT64_MAX}};
  for (const auto& [begin, n] : kBad) {
    EXPECT_NE(message_of([&] { shard.copy(begin, n, out); }).find("outside the shard"),
              std::string::npos);
  }
  shard.copy(10, 0, out);
}

TEST(TokenShard, RefusesTokensOutsideTheVocabulary) {
  const ScratchFolder folder;
  TokenShardWriter writer(folder.at("a"), 100, "bytes");
  for (const int32_t bad : {-1, 100, INT32_MIN, INT32_MAX}) {
    EXPECT_NE(message_of([&] { writer.append(std::span(&bad, 1)); }).find("0 to 99"),
              std::string::npos);
  }
  EXPECT_THROW(TokenShardWriter(folder.at("b"), 0, "bytes"), Error);
  EXPECT_THROW(TokenShardWriter(folder.at("b"), int64_t{1} << 31, "bytes"), Error);
  EXPECT_THROW(TokenShardWriter(folder.at("b"), 10, ""), Error);
  EXPECT_THROW(TokenShardWriter(folder.at("b"), 10, std::string(33, 'x')), Error);
}

struct Damage {
  const char* what;
  size_t offset;
  std::string bytes;
  const char* expected;
};

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

/// The checksum of the header made right again, so that the field itself must be refused.
void seal(std::string& file) {
  const uint32_t crc = crc32c(std::as_bytes(std::span<const char>(file)).first(84));
  file.replace(84, 4, raw(crc));
}

TEST(TokenShard, MuseumOfBadHeaders) {
  const ScratchFolder folder;
  write_shard(folder.at("a"), 256, 50);
  const std::string good = folder.get("a");
  const std::vector<Damage> kDamages = {
      {"magic", 0, "GGUF", "wrong magic"},
      {"version 0", 8, raw<uint32_t>(0), "wrong version"},
      {"version 2", 8, raw<uint32_t>(2), "wrong version"},
      {"big-endian version", 8, raw<uint32_t>(1u << 24), "wrong version"},
      {"width 0", 12, raw<uint32_t>(0), "bytes per token"},
      {"width 2", 12, raw<uint32_t>(2), "bytes per token"},
      {"width 3", 12, raw<uint32_t>(3), "bytes per token"},
      {"vocabulary 0", 16, raw<uint64_t>(0), "vocabulary size"},
      {"vocabulary 2^31", 16, raw<uint64_t>(uint64_t{1} << 31), "vocabulary size"},
      {"vocabulary 2^64 - 1", 16, raw<uint64_t>(UINT64_MAX), "vocabulary size"},
      {"vocabulary too small", 16, raw<uint64_t>(3), "outside the vocabulary"},
      {"count 0", 24, raw<uint64_t>(0), "number of tokens"},
      {"count + 1", 24, raw<uint64_t>(51), "number of tokens"},
      {"count 2^32", 24, raw<uint64_t>(uint64_t{1} << 32), "number of tokens"},
      {"count 2^63", 24, raw<uint64_t>(uint64_t{1} << 63), "number of tokens"},
      {"count 2^64 - 1", 24, raw<uint64_t>(UINT64_MAX), "number of tokens"},
      {"text bytes 2^63", 32, raw<uint64_t>(uint64_t{1} << 63), "text bytes"},
      {"documents 2^64 - 1", 40, raw<uint64_t>(UINT64_MAX), "documents"},
      {"no tokenizer", 48, std::string(32, '\0'), "tokenizer name"},
      {"tokenizer not UTF-8", 48, "\xFF", "tokenizer name"},
      {"text behind the NUL", 60, "x", "tokenizer name"},
      {"token checksum", 80, raw<uint32_t>(1), "checksum of the tokens"},
      {"reserved bytes", 100, "x", "reserved bytes"},
      {"a token", 130, "\x01\x02\x03\x04", "checksum of the tokens"},
  };
  for (const Damage& damage : kDamages) {
    std::string bad = good;
    bad.replace(damage.offset, damage.bytes.size(), damage.bytes);
    seal(bad);
    const std::string path = folder.put("bad", bad);
    const std::string message = message_of([&] { TokenShard{path}; });
    EXPECT_NE(message.find(damage.expected), std::string::npos) << damage.what << ": " << message;
    EXPECT_TRUE(message.starts_with(path)) << message;
  }
}

TEST(TokenShard, EveryTruncationAndEveryBitFlipIsAnError) {
  const ScratchFolder folder;
  const MemoryFile memory;
  write_shard(folder.at("a"), 300, 20);
  std::string file = folder.get("a");
  EXPECT_EQ(message_of([&] { TokenShard(memory.put(file)); }), "");
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_NE(message_of([&] { TokenShard(memory.put(file.substr(0, size))); }), "") << size;
  }
  for (size_t bit = 0; bit < file.size() * 8; ++bit) {
    file[bit / 8] = static_cast<char>(file[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_NE(message_of([&] { TokenShard(memory.put(file)); }), "") << bit;
    file[bit / 8] = static_cast<char>(file[bit / 8] ^ (1 << (bit % 8)));
  }
}

TEST(TokenShard, HeaderOnlyStillChecksEachTokenThatItHandsOut) {
  const ScratchFolder folder;
  write_shard(folder.at("a"), 100, 50);
  std::string file = folder.get("a");
  file[128 + 7] = '\xFF';
  const TokenShard shard(folder.put("b", file), TokenShard::Verify::header);
  EXPECT_NE(message_of([&] { shard.at(7); }).find("token 7 is outside"), std::string::npos);
}

TEST(TokenShard, AFileThatShrinksIsAnErrorNotASignal) {
  const ScratchFolder folder;
  write_shard(folder.at("a"), 256, 100'000);
  const TokenShard shard(folder.at("a"));
  ASSERT_EQ(::truncate(folder.at("a").c_str(), 128), 0);
  std::vector<int32_t> out(100'000);
  EXPECT_NE(message_of([&] { shard.copy(0, 100'000, out.data()); }).find("shrank"),
            std::string::npos);
}

TEST(TokenShard, AnUnfinishedShardDoesNotExist) {
  const ScratchFolder folder;
  {
    TokenShardWriter writer(folder.at("a"), 256, "bytes");
    const int32_t token = 1;
    writer.append(std::span(&token, 1));
  }
  EXPECT_EQ(folder.files(), 0);
}

}  // namespace
}  // namespace adder
