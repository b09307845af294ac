#include <rapidjson/prettywriter.h>
#include <rapidjson/stringbuffer.h>

#include <charconv>
#include <cmath>

#include "core/atomic_file.h"
#include "core/error.h"
#include "formats/json.h"

namespace adder {
namespace {

std::string_view non_finite_name(double value) {
  if (std::isnan(value)) return "NaN";
  return value > 0 ? "Infinity" : "-Infinity";
}

/// The shortest decimal that reads back as the same bits, with a point or an exponent.
std::string number_text(double value) {
  char digits[32];
  const auto [end, error] = std::to_chars(digits, digits + sizeof digits, value);
  ADDER_CHECK(error == std::errc{});
  std::string text(digits, end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

template <class Writer>
void raw(Writer& writer, std::string_view text) {
  writer.RawValue(text.data(), text.size(), rapidjson::kNumberType);
}

template <class Writer>
void string(Writer& writer, std::string_view text) {
  if (!is_utf8(text)) throw Error({"cannot write JSON", {}, "valid UTF-8", "other bytes"});
  writer.String(text.data(), static_cast<rapidjson::SizeType>(text.size()));
}

template <class Writer>
void number(Writer& writer, double value, JsonNonFinite policy) {
  if (std::isfinite(value)) {
    raw(writer, number_text(value));
  } else if (policy == JsonNonFinite::bare) {
    raw(writer, non_finite_name(value));
  } else if (policy == JsonNonFinite::tagged) {
    writer.StartObject();
    writer.Key("__float__");
    string(writer, non_finite_name(value));
    writer.EndObject();
  } else {
    throw Error({"cannot write JSON", {}, "a finite number", std::string(non_finite_name(value))});
  }
}

template <class Writer>
void emit(Writer& writer, const JsonValue& value, JsonNonFinite policy) {
  switch (value.kind()) {
    case JsonValue::Kind::null:
      writer.Null();
      break;
    case JsonValue::Kind::boolean:
      writer.Bool(value.as_bool());
      break;
    case JsonValue::Kind::integer:
      writer.Int64(value.as_int());
      break;
    case JsonValue::Kind::number:
      number(writer, value.as_double(), policy);
      break;
    case JsonValue::Kind::string:
      string(writer, value.as_string());
      break;
    case JsonValue::Kind::array:
      writer.StartArray();
      for (const JsonValue& element : value.as_array()) emit(writer, element, policy);
      writer.EndArray();
      break;
    case JsonValue::Kind::object:
      writer.StartObject();
      for (const JsonMember& member : value.as_object()) {
        string(writer, member.key);
        emit(writer, member.value, policy);
      }
      writer.EndObject();
      break;
  }
}

}  // namespace

std::string write_json(const JsonValue& value, const JsonStyle& style) {
  rapidjson::StringBuffer buffer;
  if (style.indent == 0) {
    rapidjson::Writer<rapidjson::StringBuffer> writer(buffer);
    emit(writer, value, style.non_finite);
  } else {
    rapidjson::PrettyWriter<rapidjson::StringBuffer> writer(buffer);
    writer.SetIndent(' ', static_cast<unsigned>(style.indent));
    emit(writer, value, style.non_finite);
  }
  return {buffer.GetString(), buffer.GetSize()};
}

void write_json_file(const std::string& path, const JsonValue& value, const JsonStyle& style) {
  write_file_atomically(path, write_json(value, style) + "\n");
}

}  // namespace adder
