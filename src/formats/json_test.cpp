#include "formats/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "core/rng.h"
#include "formats/scratch_folder.h"

namespace adder {
namespace {

TEST(Json, KeepsKindsAndOrder) {
  const JsonValue json = parse_json(
      R"( {"z": null, "a": true, "m": -3, "b": 2.5, "s": "x\u00e9\n", "l": [1, [], {}]} )", "f");
  EXPECT_EQ(json.as_object().front().key, "z");
  EXPECT_EQ(json.as_object().back().key, "l");
  EXPECT_TRUE(json.find("z")->is_null());
  EXPECT_TRUE(json.find("a")->as_bool());
  EXPECT_EQ(json.find("m")->as_int(), -3);
  EXPECT_EQ(json.find("b")->as_double(), 2.5);
  EXPECT_EQ(json.find("s")->as_string(), "x\u00e9\n");
  EXPECT_EQ(json.find("l")->as_array().size(), 3u);
  EXPECT_EQ(json.find("absent"), nullptr);
}

TEST(Json, IntegersStayExactToTheirLimits) {
  const JsonValue json =
      parse_json("[9223372036854775807,-9223372036854775808,18446744073709551615]", "f");
  EXPECT_EQ(json.as_array()[0].as_int(), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(json.as_array()[1].as_int(), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(json.as_array()[2].as_double(), 18446744073709551615.0);
  EXPECT_NE(message_of([&] { json.as_array()[2].as_int(); }).find("expected integer, got number"),
            std::string::npos);
}

TEST(Json, ReadsInfinityInEverySpelling) {
  const JsonValue json = parse_json(
      R"([Infinity, -Infinity, NaN, {"__float__": "Infinity"}, {"__float__": "-Infinity"},)"
      R"( {"__float__": "NaN"}])",
      "f");
  const auto number = [&](size_t i) { return json.as_array()[i].as_double(); };
  EXPECT_EQ(number(0), INFINITY);
  EXPECT_EQ(number(1), -INFINITY);
  EXPECT_TRUE(std::isnan(number(2)));
  EXPECT_EQ(number(3), INFINITY);
  EXPECT_EQ(number(4), -INFINITY);
  EXPECT_TRUE(std::isnan(number(5)));
  EXPECT_THROW(parse_json(R"({"__float__": "1"})", "f").as_double(), Error);
}

TEST(Json, NumbersRoundTripBitForBit) {
  for (uint64_t i = 0; i < 20'000; ++i) {
    const auto words = philox(1, 2, i);
    const uint64_t bits = (uint64_t{words[0]} << 32) | words[1];
    double value;
    std::memcpy(&value, &bits, sizeof value);
    if (!std::isfinite(value)) continue;
    const JsonValue back = parse_json(write_json(JsonValue(value)), "f");
    ASSERT_EQ(back.kind(), JsonValue::Kind::number);
    const double read = back.as_double();
    ASSERT_EQ(std::memcmp(&read, &value, sizeof value), 0) << write_json(JsonValue(value));
  }
  EXPECT_EQ(write_json(JsonValue(1.0)), "1.0");
  EXPECT_EQ(write_json(JsonValue(-0.0)), "-0.0");
  EXPECT_EQ(write_json(JsonValue(1e-05)), "1e-05");
  EXPECT_EQ(write_json(JsonValue(0.1)), "0.1");
}

TEST(Json, WritesNonFiniteAsAsked) {
  const JsonValue value(std::numeric_limits<double>::infinity());
  EXPECT_EQ(write_json(value, {0, JsonNonFinite::tagged}), R"({"__float__":"Infinity"})");
  EXPECT_EQ(write_json(value, {0, JsonNonFinite::bare}), "Infinity");
  EXPECT_THROW(write_json(value, {0, JsonNonFinite::refuse}), Error);
}

TEST(Json, WrittenTreesReadBackEqual) {
  JsonValue json;
  json.set("name", "a \"quoted\" \\ \x01 name").set("empty", JsonValue::object());
  json.set("list", JsonValue::array().push(1).push(2.5).push(JsonValue()).push(false));
  json.set("nan", parse_json("[[{\"k\": [1]}]]", "f"));
  for (const int indent : {0, 2}) {
    EXPECT_EQ(parse_json(write_json(json, {indent, JsonNonFinite::tagged}), "f"), json);
  }
  const ScratchFolder folder;
  write_json_file(folder.at("a.json"), json);
  EXPECT_EQ(read_json_file(folder.at("a.json")), json);
  EXPECT_TRUE(folder.get("a.json").ends_with("}\n"));
}

struct BadJson {
  const char* what;
  std::string text;
  const char* expected;
};

std::string repeated(const std::string& text, int count) {
  std::string all;
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

const std::vector<BadJson>& bad_json() {
  static const std::vector<BadJson> kCases = {
      {"empty", "", "empty"},
      {"blank", "  \n ", "line 2, column 2"},
      {"two values", "{} {}", "root"},
      {"text behind", "[1]x", "byte 3"},
      {"nul behind", std::string("[1]\0garbage", 11), "NUL"},
      {"nul inside", std::string("{\"a\0b\": 1}", 10), "line 1"},
      {"comment", "{} // no", "root"},
      {"single quotes", "{'a': 1}", "name"},
      {"trailing comma", "[1,]", "Invalid value"},
      {"missing comma", "[1 2]", "comma"},
      {"missing colon", "{\"a\" 1}", "colon"},
      {"cut off", "{\"a\": [1", "line 1, column 9"},
      {"cut in string", "\"abc", "quot"},
      {"bad literal", "nul", "Invalid value"},
      {"leading zero", "[01]", "comma"},
      {"plus", "+1", "Invalid value"},
      {"hex", "0x10", "root"},
      {"too big", "1e999", "too big"},
      {"lone point", "1.", "fraction"},
      {"bare exponent", "1e", "exponent"},
      {"infinite word", "Infinite", "Invalid value"},
      {"duplicate key", R"({"a": 1, "b": 2, "a": 3})", "duplicate key 'a'"},
      {"duplicate by escape", R"({"a": 1, "\u0061": 3})", "duplicate key 'a'"},
      {"inner duplicate", "{\n\"o\": {\"x\": 1,\n\"x\": 2}}", "line 3"},
      {"lone high surrogate", R"("\ud800")", "surrogate"},
      {"lone low surrogate", R"("\udc00")", "UTF-8"},
      {"bad escape", R"("\q")", "escape"},
      {"short escape", R"("\u12")", "hex"},
      {"control character", "\"a\nb\"", "line 1"},
      {"invalid byte", "\"\xFF\"", "UTF-8"},
      {"overlong", "\"\xC0\xAF\"", "UTF-8"},
      {"raw surrogate", "\"\xED\xA0\x80\"", "UTF-8"},
      {"above Unicode", "\"\xF4\x90\x80\x80\"", "UTF-8"},
      {"cut character", "\"\xE2\x82\"", "UTF-8"},
      {"invalid key", "{\"\xFF\": 1}", "UTF-8"},
      {"byte order mark", "\xEF\xBB\xBF{}", "Invalid value"},
      {"deep arrays", repeated("[", 100'000), "nested too deeply"},
      {"deep objects", repeated("{\"a\":", 100'000), "nested too deeply"},
      {"deep and closed", repeated("[", 201) + repeated("]", 201), "at most 200 levels"},
      {"many values", "[" + repeated("0,", 70'000) + "0]", "too many values"},
      {"many members", "{\"a\":[" + repeated("{},", 70'000) + "0]}", "too many values"},
  };
  return kCases;
}

TEST(Json, RefusesWhatIsNotJson) {
  for (const BadJson& bad : bad_json()) {
    const std::string message = message_of([&] { parse_json(bad.text, "dir/config.json"); });
    EXPECT_NE(message.find(bad.expected), std::string::npos) << bad.what << ": " << message;
    EXPECT_TRUE(message.starts_with("dir/config.json: line ")) << bad.what << ": " << message;
  }
  // The same judgement must let good texts pass.
  for (const std::string good : {"{}", "[]", "0", "\"\"", " null ", "-1.5e-3", "[[[]]]"}) {
    EXPECT_EQ(message_of([&] { parse_json(good, "f"); }), "") << good;
  }
  const std::string deep = repeated("[", 200) + repeated("]", 200);
  EXPECT_EQ(message_of([&] { parse_json(deep, "f"); }), "");
  JsonLimits tight;
  tight.max_bytes = 4;
  EXPECT_NE(message_of([&] { parse_json("[1,2]", "f", tight); }).find("at most 4"),
            std::string::npos);
}

TEST(Json, EveryTruncationIsAnError) {
  const std::string text = R"({"a": [1, -2.5e3, "x\u00e9", true, null], "b": {"c": {}}})";
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_NE(message_of([&] { parse_json(text.substr(0, size), "f"); }), "") << size;
  }
}

TEST(Json, MutationsNeverDoMoreThanFail) {
  const std::string seed = R"({"a": [1, -2.5e3, "x\u00e9", true, null], "__float__": "NaN"})";
  int64_t accepted = 0;
  for (uint64_t i = 0; i < 40'000; ++i) {
    std::string text = seed;
    const uint64_t count = 1 + uniform_below(3, 0, i, 3);
    for (uint64_t k = 0; k < count; ++k) {
      const uint64_t at = uniform_below(3, 1 + k, i, text.size());
      text[at] = static_cast<char>(uniform_below(3, 10 + k, i, 256));
    }
    JsonValue json;
    if (!message_of([&] { json = parse_json(text, "f"); }).empty()) continue;
    ++accepted;
    const JsonValue back = parse_json(write_json(json, {0, JsonNonFinite::tagged}), "f");
    ASSERT_EQ(write_json(back), write_json(json)) << text;
  }
  EXPECT_GT(accepted, 100);  // the loop reaches beyond the parser
}

TEST(Json, FieldsNameFileKeyExpectedAndGot) {
  const JsonValue json = parse_json(R"({"n": "4", "x": 1.5, "list": [1, "a"], "none": null})", "f");
  JsonFields fields(json, "config.json");
  EXPECT_EQ(message_of([&] { fields.get_int("n"); }),
            "config.json: key 'n': wrong type: expected an integer, got \"4\"");
  EXPECT_EQ(message_of([&] { fields.get_int("x"); }),
            "config.json: key 'x': wrong type: expected an integer, got 1.5");
  EXPECT_EQ(message_of([&] { fields.get_string("absent"); }),
            "config.json: key 'absent': missing: expected a string");
  EXPECT_EQ(message_of([&] { fields.get_bool("none"); }),
            "config.json: key 'none': missing: expected true or false");
  EXPECT_NE(message_of([&] { fields.get_ints("list"); }).find("array of integers"),
            std::string::npos);
  EXPECT_EQ(fields.get_int("absent", 7), 7);
  EXPECT_EQ(fields.get_double("x"), 1.5);
  EXPECT_NE(message_of([&] { JsonFields(JsonValue(1), "f"); }).find("an object"),
            std::string::npos);
}

TEST(Json, UnknownKeysNameTheNearest) {
  const JsonValue json = parse_json(R"({"d_modle": 4})", "f");
  JsonFields fields(json, "config.json");
  fields.get_int("d_model", 1);
  fields.get_int("n_layer", 1);
  EXPECT_EQ(message_of([&] { fields.refuse_unknown(); }),
            "config.json: key 'd_modle': unknown key, did you mean 'd_model'?");
}

}  // namespace
}  // namespace adder
