#include <gtest/gtest.h>

#include <numeric>

#include "core/rng.h"
#include "formats/json.h"
#include "formats/scratch_folder.h"
#include "text/documents.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace adder {
namespace {

const std::string kBad = "\xEF\xBF\xBD";  // U+FFFD

std::string utf8_of(uint32_t scalar) {
  const auto tail = [&](int shift) {
    return static_cast<char>(0x80u | ((scalar >> shift) & 0x3Fu));
  };
  if (scalar < 0x80) return {static_cast<char>(scalar)};
  if (scalar < 0x800) return {static_cast<char>(0xC0u | (scalar >> 6)), tail(0)};
  if (scalar < 0x10000) return {static_cast<char>(0xE0u | (scalar >> 12)), tail(6), tail(0)};
  return {static_cast<char>(0xF0u | (scalar >> 18)), tail(12), tail(6), tail(0)};
}

TEST(ByteTokenizer, EveryByteIsItsToken) {
  std::string all(256, '\0');
  std::iota(all.begin(), all.end(), '\0');
  const ByteTokenizer tokenizer;
  const std::vector<int32_t> tokens = tokenizer.encode(all);
  for (int32_t i = 0; i < 256; ++i) EXPECT_EQ(tokens[static_cast<size_t>(i)], i);
  EXPECT_EQ(tokenizer.decode(tokens), all);
  EXPECT_EQ(tokenizer.vocab_size(), 256);
  EXPECT_TRUE(tokenizer.encode("").empty());
  EXPECT_EQ(tokenizer.decode({}), "");
}

TEST(ByteTokenizer, SpecialTokensDecodeToNothing) {
  const ByteTokenizer tokenizer(2);
  const std::vector<int32_t> tokens = {'a', 256, 'b', 257};
  EXPECT_EQ(tokenizer.decode(tokens), "ab");
  EXPECT_EQ(tokenizer.vocab_size(), 258);
  for (const int32_t bad : {-1, 258}) {
    EXPECT_NE(message_of([&] { tokenizer.decode(std::span(&bad, 1)); }).find("0 to 257"),
              std::string::npos);
  }
}

TEST(ByteTokenizer, IsMadeByName) {
  EXPECT_EQ(make_tokenizer("bytes", 257)->vocab_size(), 257);
  EXPECT_NE(message_of([] { make_tokenizer("gpt2", 50257); }).find("unknown tokenizer"),
            std::string::npos);
  EXPECT_NE(message_of([] { make_tokenizer("bytes", 100); }).find("vocabulary size"),
            std::string::npos);
}

/// The assembler fed with the pieces of `text` between the set bits of `cuts`.
std::string assembled(std::string_view text, uint64_t cuts) {
  Utf8Assembler assembler;
  std::string out;
  bool valid = true;
  size_t begin = 0;
  for (size_t i = 1; i <= text.size(); ++i) {
    if (i < text.size() && ((cuts >> (i - 1)) & 1u) == 0) continue;
    const std::string piece = assembler.push(text.substr(begin, i - begin));
    valid = valid && is_utf8(piece);
    out += piece;
    begin = i;
  }
  EXPECT_TRUE(valid);
  return out + assembler.finish();
}

TEST(Utf8Assembler, EveryScalarSurvivesSplits) {
  for (uint32_t scalar = 0; scalar < 0x110000; ++scalar) {
    if (scalar >= 0xD800 && scalar < 0xE000) continue;
    const std::string text = utf8_of(scalar);
    // Byte by byte, which passes through every state; every other split for one scalar in 16.
    const uint64_t all_cuts = (uint64_t{1} << (text.size() - 1)) - 1;
    for (uint64_t cuts = scalar % 16 == 0 ? 0 : all_cuts; cuts <= all_cuts; ++cuts) {
      if (assembled(text, cuts) != text) FAIL() << scalar << " " << cuts;
    }
  }
}

TEST(Utf8Assembler, EverySplitOfAMixedTextGivesTheText) {
  const std::string text = "aé中🐍\n";  // 11 bytes
  ASSERT_EQ(text.size(), 11u);
  for (uint64_t cuts = 0; cuts < 1024; ++cuts) ASSERT_EQ(assembled(text, cuts), text) << cuts;
}

TEST(Utf8Assembler, ReplacesOnlyWhatIsInvalid) {
  const std::vector<std::pair<std::string, std::string>> kCases = {
      {"a\x80z", "a" + kBad + "z"},                     // a tail without a lead
      {"\xC0\xAF", kBad + kBad},                        // overlong
      {"\xE0\x80\x80", kBad + kBad + kBad},             // overlong
      {"\xED\xA0\x80", kBad + kBad + kBad},             // a surrogate
      {"\xF4\x90\x80\x80", kBad + kBad + kBad + kBad},  // above U+10FFFF
      {"\xF0\x9F\x90", kBad},                           // cut off at the end
      {"\xF0\x9F\x90z", kBad + "z"},                    // cut off by a character
      {"\xE2\x82\xE2\x82\xAC", kBad + "€"},             // cut off by a lead
      {"\xF1\x80\x80\xE1\x80\xC2"
       "b\x80"
       "c\x80\xBF"
       "d",  // the example of Unicode, table 3-8
       kBad + kBad + kBad + "b" + kBad + "c" + kBad + kBad + "d"},
      {"\xFF\xFE", kBad + kBad},
      {"", ""},
  };
  for (const auto& [bytes, expected] : kCases) {
    EXPECT_EQ(valid_utf8(bytes), expected);
    for (uint64_t cuts = 0; cuts < (uint64_t{1} << bytes.size()); ++cuts) {
      ASSERT_EQ(assembled(bytes, cuts), expected);
    }
  }
}

TEST(Utf8Assembler, AllSequencesUpToThreeBytesAgreeWithTheWhole) {
  // Every pair and, for each lead, every triple: cut anywhere, the result is that of one push.
  for (uint32_t value = 0; value < 0x1000000; value += value < 0xC00000 ? 251 : 13) {
    const std::string bytes = {static_cast<char>(value >> 16), static_cast<char>(value >> 8),
                               static_cast<char>(value)};
    const std::string whole = valid_utf8(bytes);
    ASSERT_TRUE(is_utf8(whole));
    ASSERT_EQ(whole == bytes, is_utf8(bytes));
    for (uint64_t cuts = 1; cuts < 4; ++cuts) ASSERT_EQ(assembled(bytes, cuts), whole) << value;
  }
}

TEST(Utf8Assembler, TellsWhetherSomethingIsHeldBack) {
  Utf8Assembler assembler;
  EXPECT_EQ(assembler.push("\xF0\x9F"), "");
  EXPECT_TRUE(assembler.pending());
  EXPECT_EQ(assembler.push("\x90\x8D"), "🐍");
  EXPECT_FALSE(assembler.pending());
  EXPECT_EQ(assembler.push("\xC3"), "");
  EXPECT_EQ(assembler.finish(), kBad);
  EXPECT_EQ(assembler.push("\xA9"), kBad);  // it starts anew
}

using Documents = std::vector<std::string>;

TEST(Documents, PlainTextIsOneDocumentOfAnyBytes) {
  const ScratchFolder folder;
  const std::string bytes("a\r\n\0\xFFz\n", 7);
  EXPECT_EQ(read_documents(folder.put("a.txt", bytes)), Documents{bytes});
  EXPECT_TRUE(read_documents(folder.put("empty", "")).empty());
}

TEST(Documents, JsonLines) {
  const ScratchFolder folder;
  const std::string path = folder.put(
      "a.jsonl",
      "\xEF\xBB\xBF{\"text\": \"one\\n\\u00e9\"}\r\n\n  \n{\"id\": 2, \"text\": \"two\"}");
  EXPECT_EQ(read_documents(path), (Documents{"one\né", "two"}));
  DocumentOptions options;
  options.field = "body";
  options.format = DocumentFormat::jsonl;
  EXPECT_EQ(read_documents(folder.put("b", R"({"body": "x"})"), options), Documents{"x"});
}

TEST(Documents, TabSeparated) {
  const ScratchFolder folder;
  const std::string path =
      folder.put("a.tsv", "id\ttext\n1\tone\\ttab\\nline\\\\n\r\n2\tC:\\x\\\n\n3\t\n");
  DocumentOptions options;
  options.column = 1;
  options.skip_header = true;
  EXPECT_EQ(read_documents(path, options), (Documents{"one\ttab\nline\\n", "C:\\x\\", ""}));
  options.column = 0;
  options.skip_header = false;
  EXPECT_EQ(read_documents(path, options), (Documents{"id", "1", "2", "3"}));
}

TEST(Documents, LongFilesAreReadInBlocks) {
  const ScratchFolder folder;
  std::string text;
  Documents expected;
  for (uint64_t i = 0; i < 3000; ++i) {
    expected.emplace_back(uniform_below(1, 0, i, i % 100 == 0 ? 100'000 : 800), 'x');
    text += expected.back() + "!\n";
    expected.back() += '!';
  }
  ASSERT_GT(text.size(), 2'000'000u);  // several blocks of 1 MiB
  EXPECT_EQ(read_documents(folder.put("a.tsv", text)), expected);
}

TEST(Documents, ErrorsNameFileAndLine) {
  const ScratchFolder folder;
  struct Case {
    const char* name;
    std::string text;
    const char* expected;
  };
  const std::vector<Case> kCases = {
      {"a.jsonl", "{\"text\": \"x\"}\n{\"text\": 3}\n", "a.jsonl:2: key 'text': wrong type"},
      {"a.jsonl", "{\"text\": \"x\"}\n\n{}\n", "a.jsonl:3: key 'text': missing"},
      {"a.jsonl", "{\"text\": \"x\"\n", "a.jsonl:1: line 1, column"},
      {"a.jsonl", "[]\n", "a.jsonl:1: wrong type: expected an object"},
      {"a.jsonl", "{\"text\": \"\xFF\"}\n", "a.jsonl:1: line 1"},
      {"a.jsonl", "{\"text\": \"x\", \"text\": \"y\"}\n", "duplicate key 'text'"},
      {"a.tsv", "a\tb\nc\n", "a.tsv:2: too few columns: expected at least 2, got 1"},
      {"a.tsv", "a\tb\nc\t\xC3\n", "a.tsv:2: not valid UTF-8"},
  };
  for (const Case& one : kCases) {
    DocumentOptions options;
    options.column = 1;
    const std::string path = folder.put(one.name, one.text);
    const std::string message = message_of([&] { read_documents(path, options); });
    EXPECT_NE(message.find(one.expected), std::string::npos) << message;
  }
  EXPECT_NE(message_of([&] { read_documents(folder.at("none")); }).find("No such file"),
            std::string::npos);
  EXPECT_NE(message_of([&] { read_documents(folder.path()); }).find("a directory"),
            std::string::npos);
  EXPECT_NE(message_of([] { document_format_from_name("csv"); }).find("jsonl or tsv"),
            std::string::npos);
}

TEST(TokenizeFile, MakesAShard) {
  const ScratchFolder folder;
  const std::string input = folder.put("a.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"\u00e9\"}\n");
  TokenizeOptions options;
  options.separator = 256;
  const ByteTokenizer tokenizer(1);
  const TokenShardInfo info = tokenize_file(input, folder.at("a.shard"), tokenizer, options);
  EXPECT_EQ(info.count, 6);
  EXPECT_EQ(info.documents, 2);
  EXPECT_EQ(info.text_bytes, 4);
  const TokenShard shard(folder.at("a.shard"));
  std::vector<int32_t> tokens(6);
  shard.copy(0, 6, tokens.data());
  EXPECT_EQ(tokens, (std::vector<int32_t>{'a', 'b', 256, 0xC3, 0xA9, 256}));
  EXPECT_EQ(make_tokenizer(shard.info().tokenizer, shard.info().vocab_size)->decode(tokens), "abé");
}

TEST(TokenizeFile, ReproducesTheShippedText) {
  const ScratchFolder folder;
  const std::string input = std::string(ADDER_SOURCE_DIR) + "/data/tinyshakespeare.txt";
  const ByteTokenizer tokenizer;
  const TokenShardInfo info = tokenize_file(input, folder.at("a.shard"), tokenizer);
  const TokenShard shard(folder.at("a.shard"));
  EXPECT_EQ(info.count, 1115394);
  EXPECT_EQ(info.text_bytes, info.count);
  EXPECT_EQ(info.token_bytes, 1);
  std::vector<int32_t> tokens(static_cast<size_t>(info.count));
  shard.copy(0, info.count, tokens.data());
  EXPECT_EQ(tokenizer.decode(tokens), read_documents(input).front());
}

TEST(TokenizeFile, RefusesEmptyInputAndForeignSeparators) {
  const ScratchFolder folder;
  const ByteTokenizer tokenizer;
  const auto tokenizing = [&](const std::string& input, const TokenizeOptions& options) {
    return message_of([&] { tokenize_file(input, folder.at("shard"), tokenizer, options); });
  };
  EXPECT_NE(tokenizing(folder.put("a.txt", ""), {}).find("no text to tokenize"), std::string::npos);
  EXPECT_NE(tokenizing(folder.put("b.jsonl", "{\"text\": \"\"}\n"), {}).find("no text"),
            std::string::npos);
  TokenizeOptions options;
  options.separator = 256;
  EXPECT_NE(tokenizing(folder.put("c.txt", "x"), options).find("separator is outside"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder.at("shard")));
}

}  // namespace
}  // namespace adder
