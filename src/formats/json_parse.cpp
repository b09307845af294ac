#include <rapidjson/error/en.h>
#include <rapidjson/reader.h>

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/mapped_file.h"
#include "formats/json.h"

namespace adder {
namespace {

/// Builds the tree from the parser's events. A refusal is kept in `refusal` and ends the parse.
class TreeBuilder {
 public:
  explicit TreeBuilder(const JsonLimits& limits) : limits_(limits) {}

  bool Null() { return add(JsonValue()); }                   // NOLINT: names of RapidJSON
  bool Bool(bool value) { return add(value); }               // NOLINT
  bool Int(int value) { return add(value); }                 // NOLINT
  bool Uint(unsigned value) { return add(int64_t{value}); }  // NOLINT
  bool Int64(int64_t value) { return add(value); }           // NOLINT
  bool Uint64(uint64_t value) {                              // NOLINT
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return add(static_cast<double>(value));
    }
    return add(static_cast<int64_t>(value));
  }
  bool Double(double value) { return add(value); }               // NOLINT
  bool RawNumber(const char*, unsigned, bool) { return false; }  // NOLINT: never asked for
  bool String(const char* text, unsigned size, bool) {           // NOLINT
    return check_text({text, size}) && add(std::string_view(text, size));
  }
  bool Key(const char* text, unsigned size, bool) {  // NOLINT
    if (!check_text({text, size})) return false;
    key_.assign(text, size);
    return true;
  }
  bool StartObject() { return open(JsonValue::object()); }  // NOLINT
  bool StartArray() { return open(JsonValue::array()); }    // NOLINT
  bool EndObject(unsigned) {                                // NOLINT
    const bool unique = check_duplicates(open_.back()->as_object());
    open_.pop_back();
    return unique;
  }
  bool EndArray(unsigned) {  // NOLINT
    open_.pop_back();
    return true;
  }

  JsonValue root;
  Error::Parts refusal;

 private:
  bool refuse(std::string what, std::string expected, std::string got) {
    refusal = {std::move(what), {}, std::move(expected), std::move(got)};
    return false;
  }

  bool check_text(std::string_view text) {
    return is_utf8(text) || refuse("a string is not valid UTF-8", {}, {});
  }

  bool check_duplicates(const JsonValue::Object& object) {
    std::vector<std::string_view> keys;
    keys.reserve(object.size());
    for (const JsonMember& member : object) keys.push_back(member.key);
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    return twice == keys.end() || refuse("duplicate key '" + std::string(*twice) + "'", {}, {});
  }

  JsonValue* place(JsonValue value) {
    if (++values_ > limits_.max_values) {
      refuse("too many values", "at most " + std::to_string(limits_.max_values), {});
      return nullptr;
    }
    if (open_.empty()) {
      root = std::move(value);
      return &root;
    }
    if (open_.back()->is_array()) {
      open_.back()->push(std::move(value));
      return &open_.back()->as_array().back();
    }
    auto& members = open_.back()->as_object();
    members.push_back({std::move(key_), std::move(value)});
    return &members.back().value;
  }

  bool add(JsonValue value) { return place(std::move(value)) != nullptr; }

  bool open(JsonValue value) {
    if (static_cast<int>(open_.size()) >= limits_.max_depth) {
      return refuse("nested too deeply", "at most " + std::to_string(limits_.max_depth) + " levels",
                    {});
    }
    JsonValue* placed = place(std::move(value));
    // Pointers stay valid: a container grows only while it is the innermost open one.
    if (placed != nullptr) open_.push_back(placed);
    return placed != nullptr;
  }

  const JsonLimits& limits_;
  std::vector<JsonValue*> open_;
  std::string key_;
  int64_t values_ = 0;
};

std::string position_text(std::string_view text, size_t offset) {
  offset = std::min(offset, text.size());
  const std::string_view before = text.substr(0, offset);
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const size_t newline = before.rfind('\n');
  const size_t column = offset - (newline == std::string_view::npos ? 0 : newline + 1) + 1;
  return "line " + std::to_string(line) + ", column " + std::to_string(column) + " (byte " +
         std::to_string(offset) + ")";
}

/// Length of the well-formed sequence at the front of `text`, 0 if there is none (Unicode 15,
/// table 3-7).
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (text.size() < length) return 0;
  const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return 0;
  for (size_t i = 2; i < length; ++i) {
    if ((byte(i) & 0xC0u) != 0x80u) return 0;
  }
  return length;
}

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

JsonValue parse_json(std::string_view text, const std::string& name, const JsonLimits& limits) {
  constexpr unsigned kFlags = rapidjson::kParseInsituFlag | rapidjson::kParseNanAndInfFlag |
                              rapidjson::kParseFullPrecisionFlag;
  if (static_cast<int64_t>(text.size()) > limits.max_bytes) {
    throw Error({"the JSON text is too long", name,
                 "at most " + std::to_string(limits.max_bytes) + " bytes",
                 std::to_string(text.size())});
  }
  std::string buffer(text);  // strings are decoded in place
  rapidjson::InsituStringStream stream(buffer.data());
  rapidjson::Reader reader;
  TreeBuilder builder(limits);
  const rapidjson::ParseResult result = reader.Parse<kFlags>(stream, builder);
  size_t offset = result.Offset();
  if (result && stream.Tell() == text.size()) return std::move(builder.root);
  Error::Parts parts = builder.refusal;
  if (result) {
    parts.what = "a NUL after the value";
    offset = stream.Tell();
  } else if (parts.what.empty()) {
    parts.what = rapidjson::GetParseError_En(result.Code());
    if (parts.what.ends_with('.')) parts.what.pop_back();
  }
  parts.where = name + ": " + position_text(text, offset);
  throw Error(std::move(parts));
}

JsonValue read_json_file(const std::string& path, const JsonLimits& limits) {
  return parse_json(read_text_file(path, limits.max_bytes), path, limits);
}

}  // namespace adder
