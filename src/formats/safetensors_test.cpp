#include "formats/safetensors.h"

#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstring>

#include "core/rng.h"
#include "formats/json.h"
#include "formats/scratch_folder.h"

// Every allocation of this program and of the room goes through here (-Wl,--wrap), so that the
// bound on a hostile header's memory is measured, not believed.
namespace {
std::atomic<int64_t> live_bytes{0};
std::atomic<int64_t> peak_bytes{0};

void* counted(void* block) {
  if (block == nullptr) return nullptr;
  const auto size = static_cast<int64_t>(malloc_usable_size(block));
  const int64_t live = live_bytes.fetch_add(size) + size;
  if (live > peak_bytes) peak_bytes = live;
  return block;
}
void discounted(void* block) {
  if (block != nullptr) live_bytes -= static_cast<int64_t>(malloc_usable_size(block));
}
}  // namespace

extern "C" {
void* __real_malloc(size_t);
void* __real_realloc(void*, size_t);
void __real_free(void*);
void* __wrap_malloc(size_t size) { return counted(__real_malloc(size)); }
void* __wrap_realloc(void* block, size_t size) {
  discounted(block);
  return counted(__real_realloc(block, size));
}
void __wrap_free(void* block) {
  discounted(block);
  __real_free(block);
}
}

void* operator new(size_t size) {
  void* block = __wrap_malloc(size);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
void operator delete(void* block) noexcept { __wrap_free(block); }
void operator delete(void* block, size_t) noexcept { __wrap_free(block); }

namespace adder {
namespace {

std::string length_bytes(uint64_t length) {
  return {reinterpret_cast<const char*>(&length), sizeof length};
}

std::string with_header(const std::string& header, size_t data_bytes = 0) {
  return length_bytes(header.size()) + header + std::string(data_bytes, '\x5A');
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"w":)" + entry(dtype, shape, offsets) + "}";
}

struct Exhibit {
  std::string what;
  std::string file;
  std::string expected;  // in the message
};

void lengths(std::vector<Exhibit>& all) {
  for (size_t size = 0; size < 8; ++size) {
    all.push_back(
        {"only " + std::to_string(size) + " bytes", std::string(size, '\0'), "too short"});
  }
  all.push_back({"no header", length_bytes(0), "'{' at byte 8"});
  const std::pair<const char*, uint64_t> kLengths[] = {
      {"limit + 1", 100'000'001}, {"2^31", uint64_t{1} << 31}, {"2^32", uint64_t{1} << 32},
      {"2^63 - 1", INT64_MAX},    {"2^63", uint64_t{1} << 63}, {"2^64 - 8", UINT64_MAX - 7},
      {"2^64 - 1", UINT64_MAX}};
  for (const auto& [name, length] : kLengths) {
    all.push_back({std::string("length ") + name, length_bytes(length) + "{}", "too long"});
  }
  all.push_back({"length at the limit", length_bytes(100'000'000) + "{}", "past the end"});
  all.push_back({"length one too long", length_bytes(3) + "{}", "past the end"});
  all.push_back({"length cuts the header", length_bytes(1) + "{}", "not valid JSON"});
  all.push_back({"big-endian length", std::string("\0\0\0\0\0\0\0\2{}", 10), "too long"});
}

void header_texts(std::vector<Exhibit>& all) {
  const auto add = [&](const char* what, const std::string& header, const char* expected) {
    all.push_back({what, with_header(header), expected});
  };
  add("space first", " {}", "'{' at byte 8");
  add("array", "[]", "'{' at byte 8");
  add("BOM first", "\xEF\xBB\xBF{}", "'{' at byte 8");
  add("text behind", "{} {}", "text after");
  add("newline behind", "{}\n", "text after");
  add("tab behind", "{}\t", "text after");
  add("NUL behind", std::string("{}\0\0", 4), "text after");
  add("NUL inside", std::string("{\0}", 3), "not valid JSON");
  add("unclosed", "{", "not valid JSON");
  add("trailing comma", "{\"a\":1,}", "object for each tensor");
  add("bare NaN", R"({"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,0]}})", "not valid JSON");
  add("comment", "{/**/}", "not valid JSON");
  add("invalid UTF-8 name", "{\"\xFF\":{}}", "not valid UTF-8");
  add("overlong name", "{\"\xC0\x80\":{}}", "not valid UTF-8");
  add("lone surrogate name", R"({"\udfff":{}})", "not valid UTF-8");
  add("raw control in name", "{\"a\nb\":{}}", "not valid JSON");
  std::string deep = "{\"w\":";
  for (int i = 0; i < 100'000; ++i) deep += "[";
  add("nested arrays", deep, "object for each tensor");
  deep = "{\"w\":{\"shape\":";
  for (int i = 0; i < 100'000; ++i) deep += "[";
  add("nested shape", deep, "an array");
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"w\":";
  add("nested objects", objects, "unknown key 'w'");
}

void tensor_fields(std::vector<Exhibit>& all) {
  const auto add = [&](const char* what, const std::string& header, const char* expected,
                       size_t data_bytes = 0) {
    all.push_back({what, with_header(header, data_bytes), expected});
  };
  add("tensor is null", R"({"w":null})", "got null");
  add("tensor is a string", R"({"w":"F32"})", "got a string");
  add("tensor is an array", R"({"w":[]})", "got an array");
  add("empty tensor", R"({"w":{}})", "missing key 'dtype'");
  add("no dtype", R"({"w":{"shape":[],"data_offsets":[0,4]}})", "missing key 'dtype'", 4);
  add("no shape", R"({"w":{"dtype":"F32","data_offsets":[0,4]}})", "missing key 'shape'", 4);
  add("no offsets", R"({"w":{"dtype":"F32","shape":[]}})", "missing key 'data_offsets'", 4);
  add("unknown field", R"({"w":{"dtype":"F32","shape":[],"data_offsets":[0,4],"strides":[]}})",
      "unknown key 'strides'", 4);
  add("field twice", R"({"w":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}})",
      "duplicate key 'dtype'", 4);
  add("dtype number", R"({"w":{"dtype":4,"shape":[],"data_offsets":[0,4]}})", "expected a string",
      4);
  add("dtype lower case", one("f32", "[]", "[0,4]"), "unknown dtype", 4);
  add("dtype unknown", one("F33", "[]", "[0,4]"), "unknown dtype", 4);
  for (const char* type : {"F4", "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E4M3", "F8_E8M0",
                           "F8_E4M3FNUZ", "F8_E5M2FNUZ", "U16", "U32", "U64", "C64"}) {
    add(type, one(type, "[8]", "[0,8]"), "dtype not supported", 8);
  }
  add("shape string", R"({"w":{"dtype":"F32","shape":"[1]","data_offsets":[0,4]}})", "an array", 4);
  add("shape number", one("F32", "1", "[0,4]"), "an array", 4);
  add("shape negative", one("F32", "[-1]", "[0,4]"), "got -1", 4);
  add("shape minus zero", one("F32", "[-0]", "[0,0]"), "0 or above");
  add("shape fraction", one("F32", "[1.0]", "[0,4]"), "fraction", 4);
  add("shape exponent", one("F32", "[1e0]", "[0,4]"), "fraction", 4);
  add("shape true", one("F32", "[true]", "[0,4]"), "got true", 4);
  add("shape null", one("F32", "[null]", "[0,4]"), "got null", 4);
  add("shape nested", one("F32", "[[1]]", "[0,4]"), "got an array", 4);
  add("shape 2^63", one("U8", "[9223372036854775808]", "[0,0]"), "below 2^63");
  add("shape 2^64 - 1", one("U8", "[18446744073709551615]", "[0,0]"), "below 2^63");
  add("shape 2^64", one("U8", "[18446744073709551616]", "[0,0]"), "too many digits");
  add("product overflows", one("F32", "[4294967296,4294967296]", "[0,0]"), "overflows");
  add("product wraps to 0", one("U8", "[4294967296,4294967296,1]", "[0,0]"), "overflows");
  add("bytes overflow", one("F64", "[1152921504606846976]", "[0,0]"), "overflows");
  add("large but empty", one("F32", "[2147483648]", "[0,0]"), "8589934592 bytes");
}

void offsets(std::vector<Exhibit>& all) {
  const auto add = [&](const char* what, const std::string& header, const char* expected,
                       size_t data_bytes) {
    all.push_back({what, with_header(header, data_bytes), expected});
  };
  add("one offset", one("F32", "[]", "[0]"), "expected 2 offsets, got 1", 4);
  add("three offsets", one("F32", "[]", "[0,4,8]"), "expected 2 offsets, got more", 4);
  add("no offset", one("F32", "[]", "[]"), "expected 2 offsets, got 0", 4);
  add("offset negative", one("F32", "[]", "[-4,0]"), "got -4", 4);
  add("offset 2^63", one("F32", "[]", "[0,9223372036854775808]"), "below 2^63", 4);
  add("offset 2^64 - 1", one("F32", "[]", "[18446744073709551615,4]"), "below 2^63", 4);
  add("offset fraction", one("F32", "[]", "[0,4.0]"), "fraction", 4);
  add("offset string", one("F32", "[]", R"(["0",4])"), "got a string", 4);
  add("reversed", one("F32", "[]", "[4,0]"), "reversed", 4);
  add("too small", one("F32", "[2]", "[0,4]"), "expected 8 bytes, got 4", 4);
  add("too large", one("F32", "[1]", "[0,8]"), "expected 4 bytes, got 8", 8);
  add("begins late", one("F32", "[]", "[4,8]"), "hole", 8);
  add("ends early", one("F32", "[]", "[0,4]"), "bytes after the last tensor", 5);
  add("ends late", one("F32", "[]", "[0,4]"), "truncated", 3);
  add("data without tensors", "{}", "bytes after the last tensor", 1);
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"a":)" + entry("F32", "[1]", a) + R"(,"b":)" + entry("F32", "[1]", b) + "}";
  };
  add("hole between", two("[0,4]", "[5,9]"), "hole", 9);
  add("overlap", two("[0,4]", "[2,6]"), "overlaps", 6);
  add("same place", two("[0,4]", "[0,4]"), "overlaps", 4);
  add("overlap, reversed order", two("[2,6]", "[0,4]"), "overlaps", 6);
  add("duplicate tensor",
      R"({"a":)" + entry("F32", "[1]", "[0,4]") + R"(,"a":)" + entry("F32", "[1]", "[4,8]") + "}",
      "duplicate name", 8);
  add("duplicate by escape",
      R"({"a":)" + entry("F32", "[1]", "[0,4]") + R"(,"\u0061":)" + entry("F32", "[1]", "[4,8]") +
          "}",
      "duplicate name", 8);
}

void metadata(std::vector<Exhibit>& all) {
  const auto add = [&](const char* what, const std::string& value, const char* expected) {
    all.push_back({what, with_header(R"({"__metadata__":)" + value + "}"), expected});
  };
  add("metadata null", "null", "got null");
  add("metadata array", "[]", "got an array");
  add("metadata string", "\"x\"", "got a string");
  add("metadata number value", R"({"a":1})", "expected a string, got 1");
  add("metadata null value", R"({"a":null})", "expected a string, got null");
  add("metadata object value", R"({"a":{}})", "got an object");
  add("metadata array value", R"({"a":["b"]})", "got an array");
  add("metadata bool value", R"({"a":true})", "got true");
  add("metadata float value", R"({"a":1.5})", "expected a string");
  add("metadata duplicate", R"({"a":"1","a":"2"})", "duplicate key 'a'");
  add("metadata twice", R"({"a":"1"},"__metadata__":{})", "duplicate key '__metadata__'");
  add("metadata invalid UTF-8", "{\"a\":\"\xFE\"}", "not valid UTF-8");
  std::string many = "{";
  for (int i = 0; i < 65'537; ++i) many.append("\"").append(std::to_string(i)).append("\":\"\",");
  many.back() = '}';
  add("metadata too long", many, "too many entries");
}

std::vector<Exhibit> museum() {
  std::vector<Exhibit> all;
  lengths(all);
  header_texts(all);
  tensor_fields(all);
  offsets(all);
  metadata(all);
  return all;
}

TEST(Safetensors, MuseumOfBadFiles) {
  const MemoryFile file;
  const std::vector<Exhibit> all = museum();
  EXPECT_GE(all.size(), 100u);
  for (const Exhibit& exhibit : all) {
    const std::string path = file.put(exhibit.file);
    const std::string message = message_of([&] { SafetensorsFile{path}; });
    EXPECT_NE(message.find(exhibit.expected), std::string::npos) << exhibit.what << ": " << message;
    EXPECT_TRUE(message.starts_with(path)) << exhibit.what << ": " << message;
    EXPECT_LT(message.size(), 1000u) << exhibit.what;
  }
}

TEST(Safetensors, TheMuseumsJudgePassesGoodFiles) {
  const ScratchFolder folder;
  const std::vector<std::pair<std::string, std::string>> kGood = {
      {"no tensor", with_header("{}")},
      {"padded", with_header("{}      ")},
      {"scalar", with_header(one("F32", "[]", "[0,4]"), 4)},
      {"empty tensor", with_header(one("F64", "[3,0,2]", "[0,0]"))},
      {"large empty tensor", with_header(one("F64", "[0,9223372036854775807]", "[0,0]"))},
      {"blanks",
       with_header(R"({ "w" : { "data_offsets" : [ 0 , 8 ] , "shape":[ 2, 1 ], "dtype" : "F32"} })",
                   8)},
      {"metadata", with_header(R"({"__metadata__":{"format":"pt","":""}})")},
      {"escaped name",
       with_header(R"({"a\n\u00e9\u0000":)" + entry("U8", "[1]", "[0,1]") + "}", 1)},
  };
  for (const auto& [what, file] : kGood) {
    const std::string path = folder.put("good.safetensors", file);
    EXPECT_EQ(message_of([&] { SafetensorsFile{path}; }), "") << what;
  }
  const SafetensorsFile large(folder.put("a", kGood[4].second));
  EXPECT_EQ(large.info("w").shape, (std::vector<int64_t>{0, INT64_MAX}));
  const SafetensorsFile blanks(folder.put("b", kGood[5].second));
  EXPECT_EQ(blanks.info("w").shape, (std::vector<int64_t>{2, 1}));
  const SafetensorsFile escaped(folder.put("c", kGood[7].second));
  EXPECT_TRUE(escaped.has(std::string("a\n\xC3\xA9\0", 5)));
}

std::string small_file() {
  return with_header(R"({"__metadata__":{"k":"v"},"a":)" + entry("F32", "[2]", "[0,8]") +
                         R"(,"b":)" + entry("I64", "[1]", "[8,16]") + "}",
                     16);
}

TEST(Safetensors, EveryTruncationIsAnError) {
  const MemoryFile file;
  const std::string whole = small_file();
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::string path = file.put(whole.substr(0, size));
    EXPECT_NE(message_of([&] { SafetensorsFile{path}; }), "") << size;
  }
  EXPECT_EQ(message_of([&] { SafetensorsFile(file.put(whole)); }), "");
}

TEST(Safetensors, MutationsNeverDoMoreThanFail) {
  const MemoryFile memory;
  const std::string seed = small_file();
  int64_t accepted = 0, reached_tensors = 0;
  constexpr uint64_t kCases = 60'000;
  for (uint64_t i = 0; i < kCases; ++i) {
    std::string file = seed;
    const uint64_t count = 1 + uniform_below(5, 0, i, 2);
    for (uint64_t k = 0; k < count; ++k) {
      const uint64_t at = uniform_below(5, 1 + k, i, file.size());
      // Half of the time a character that JSON uses, so that mutations reach behind the parser.
      static constexpr std::string_view kLikely = "0123456789[]{},:\"\\ -.eFUI_ab";
      const bool likely = uniform01(5, 20 + k, i) < 0.5;
      file[at] = likely ? kLikely[uniform_below(5, 10 + k, i, kLikely.size())]
                        : static_cast<char>(uniform_below(5, 10 + k, i, 256));
    }
    const std::string path = memory.put(file);
    const std::string message = message_of([&] {
      const SafetensorsFile opened(path);
      ++accepted;
      for (const auto& [name, info] : opened.tensors()) {
        EXPECT_EQ(opened.data(name).size(), static_cast<size_t>(info.bytes()));
      }
      EXPECT_LE(opened.metadata().size(), 2u);
    });
    if (message.find("tensor '") != std::string::npos) ++reached_tensors;
  }
  EXPECT_GT(accepted, 500);
  EXPECT_GT(reached_tensors, 2'000);
}

/// Peak heap while `path` is opened, beyond what was live before.
int64_t peak_of_opening(const std::string& path) {
  const int64_t before = live_bytes;
  peak_bytes = before;
  message_of([&] { SafetensorsFile{path}; });
  return peak_bytes - before;
}

TEST(Safetensors, HostileHeadersTakeBoundedMemory) {
  const ScratchFolder folder;
  std::string tiny = "{", shapes = "{\"w\":{\"dtype\":\"U8\",\"data_offsets\":[0,0],\"shape\":[0";
  for (int i = 0; i < 350'000; ++i) {
    tiny.append("\"").append(std::to_string(i)).append("\":");
    tiny.append(entry("U8", "[0]", "[0,0]")).append(",");
  }
  tiny.back() = '}';
  for (int i = 0; i < 9'000'000; ++i) shapes += ",0";
  std::string pairs = "{\"__metadata__\":{";
  for (int i = 0; i < 60'000; ++i) pairs.append("\"").append(std::to_string(i)).append("\":\"\",");
  pairs.back() = '}';
  const std::string longest = "{\"" + std::string(20'000'000, 'n') + "\":{\"dtype\":\"F32\"}}";
  for (const std::string& header : {tiny, shapes + "]}}", pairs + "}", longest}) {
    const std::string path = folder.put("hostile.safetensors", with_header(header));
    const int64_t bound = 2 * static_cast<int64_t>(header.size()) + (16 << 20);
    EXPECT_LE(peak_of_opening(path), bound) << header.substr(0, 60);
  }
  EXPECT_EQ(message_of([&] { SafetensorsFile(folder.put("tiny", with_header(tiny))); }), "");
  // The meter itself: a block of 1 MiB must be seen.
  const int64_t before = live_bytes;
  const std::vector<char> block(1 << 20);
  EXPECT_GE(live_bytes - before, 1 << 20);
}

TEST(Safetensors, WritesWhatItReads) {
  const ScratchFolder folder;
  const float floats[6] = {1, -2, 0.5f, INFINITY, 1e-40f, 3};
  const int64_t integers[2] = {-5, int64_t{1} << 40};
  const Bf16 brief[3] = {Bf16(1.5f), Bf16(-2.0f), Bf16(3.0f)};
  const uint8_t bytes[3] = {1, 2, 255};
  std::vector<TensorSource> tensors = {
      tensor_source("z.bytes", {3}, bytes),     tensor_source("b.floats", {2, 3}, floats),
      tensor_source("c.brief", {3, 1}, brief),  tensor_source("a.integers", {2}, integers),
      tensor_source("a.empty", {0, 4}, floats), tensor_source("a.scalar", {}, floats + 1)};
  const std::string path = folder.at("model.safetensors");
  write_safetensors(path, tensors);
  const SafetensorsFile file(path);
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  EXPECT_EQ(file.names().size(), 6u);
  for (const TensorSource& tensor : tensors) {
    EXPECT_EQ(file.info(tensor.name).dtype, tensor.dtype);
    EXPECT_EQ(file.info(tensor.name).shape, tensor.shape);
    const auto data = file.data(tensor.name);
    ASSERT_EQ(data.size(), tensor.bytes.size());
    EXPECT_TRUE(std::equal(data.begin(), data.end(), tensor.bytes.begin()));
  }
  // By element size descending, then by name.
  EXPECT_EQ(file.info("a.integers").begin, 0);
  EXPECT_EQ(file.info("a.empty").begin, 16);
  EXPECT_EQ(file.info("a.scalar").begin, 16);
  EXPECT_EQ(file.info("b.floats").begin, 20);
  EXPECT_EQ(file.info("c.brief").begin, 44);
  EXPECT_EQ(file.info("z.bytes").begin, 50);
  uint64_t length = 0;
  std::memcpy(&length, folder.get("model.safetensors").data(), sizeof length);
  EXPECT_EQ(length % 8, 0u);
  EXPECT_EQ(folder.files(), 1);
}

TEST(Safetensors, ReadsAsOtherTypes) {
  const ScratchFolder folder;
  const double doubles[3] = {1.0 / 3, -1e300, 2};
  const float floats[3] = {1.0f / 3, 65504, -0.0f};
  const F16 halves[2] = {F16(0.5f), F16(-1024.0f)};
  const int64_t integers[2] = {7, -(int64_t{1} << 40)};
  const uint8_t bytes[2] = {0, 255};
  write_safetensors(folder.at("a"),
                    {tensor_source("d", {3}, doubles), tensor_source("f", {3}, floats),
                     tensor_source("h", {2}, halves), tensor_source("i", {2}, integers),
                     tensor_source("u", {2}, bytes)});
  const SafetensorsFile file(folder.at("a"));
  float as_float[3];
  file.read_as("d", as_float);
  EXPECT_EQ(as_float[0], 1.0f / 3);
  EXPECT_EQ(as_float[1], -INFINITY);
  double as_double[3];
  file.read_as("f", as_double);
  EXPECT_EQ(as_double[0], static_cast<double>(1.0f / 3));
  file.read_as("h", as_float);
  EXPECT_EQ(as_float[1], -1024.0f);
  Bf16 as_brief[3];
  file.read_as("f", as_brief);
  EXPECT_EQ(as_brief[0].bits, Bf16(1.0f / 3).bits);
  int32_t as_int[2];
  file.read_as("u", as_int);
  EXPECT_EQ(as_int[1], 255);
  int64_t as_long[2];
  file.read_as("i", as_long);
  EXPECT_EQ(as_long[1], integers[1]);
  EXPECT_NE(message_of([&] { file.read_as("i", as_int); }).find("out of range"), std::string::npos);
  EXPECT_NE(message_of([&] { file.read_as("i", as_float); }).find("wrong element type"),
            std::string::npos);
  EXPECT_NE(message_of([&] { file.read_as("f", as_int); }).find("got F32"), std::string::npos);
  EXPECT_NE(message_of([&] { file.info("dd"); }).find("did you mean 'd'"), std::string::npos);
}

TEST(Safetensors, AFileThatShrinksIsAnErrorNotASignal) {
  const ScratchFolder folder;
  const std::vector<float> floats(50'000, 1.0f);
  write_safetensors(folder.at("a"), {tensor_source("w", {50'000}, floats.data())});
  const SafetensorsFile file(folder.at("a"));
  ASSERT_EQ(::truncate(folder.at("a").c_str(), 500), 0);
  std::vector<float> out(50'000);
  std::vector<double> wide(50'000);
  EXPECT_NE(message_of([&] { file.read_as("w", out.data()); }).find("shrank"), std::string::npos);
  EXPECT_NE(message_of([&] { file.read_as("w", wide.data()); }).find("shrank"), std::string::npos);
}

TEST(Safetensors, WriterRefusesWhatItCouldNotRead) {
  const ScratchFolder folder;
  const float value = 1;
  const auto write = [&](std::vector<TensorSource> tensors) {
    return message_of([&] { write_safetensors(folder.at("a"), std::move(tensors)); });
  };
  TensorSource wrong = tensor_source("w", {1}, &value);
  wrong.shape = {2};
  EXPECT_NE(write({wrong}).find("shape and bytes disagree"), std::string::npos);
  wrong.shape = {INT64_MAX, 4};
  EXPECT_NE(write({wrong}).find("shape and bytes disagree"), std::string::npos);
  wrong.shape = {-1};
  EXPECT_NE(write({wrong}).find("shape and bytes disagree"), std::string::npos);
  EXPECT_NE(
      write({tensor_source("w", {1}, &value), tensor_source("w", {1}, &value)}).find("duplicate"),
      std::string::npos);
  EXPECT_NE(write({tensor_source("__metadata__", {1}, &value)}).find("reserved"),
            std::string::npos);
  EXPECT_NE(write({tensor_source("\xFF", {1}, &value)}).find("UTF-8"), std::string::npos);
  EXPECT_EQ(folder.files(), 0);
}

TEST(Safetensors, ReadsThePublishedFiles) {
  const std::string golden = std::string(ADDER_SOURCE_DIR) + "/tests/golden/";
  const SafetensorsFile model(golden + "models_hf/mamba_base/model.safetensors");
  EXPECT_EQ(model.info("backbone.embeddings.weight").shape, (std::vector<int64_t>{97, 48}));
  EXPECT_EQ(model.info("backbone.layers.2.mixer.conv1d.weight").shape,
            (std::vector<int64_t>{96, 1, 4}));
  const SafetensorsFile answers(golden + "models_hf/mamba_base/golden.safetensors");
  const TensorInfo ids = answers.info("input_ids");
  std::vector<int32_t> tokens(static_cast<size_t>(ids.elements()));
  answers.read_as("input_ids", tokens.data());
  for (const int32_t token : tokens) EXPECT_TRUE(token >= 0 && token < 97);
}

}  // namespace
}  // namespace adder
