#include <limits>

#include "core/error.h"
#include "formats/json.h"

namespace adder {
namespace {

[[noreturn]] void wrong_kind(JsonValue::Kind expected, JsonValue::Kind got) {
  throw Error(
      {"wrong type", {}, std::string(json_kind_name(expected)), std::string(json_kind_name(got))});
}

/// {"__float__": "Infinity"}: a number that JSON cannot spell.
std::optional<double> tagged_float(const JsonValue& value) {
  if (!value.is_object() || value.as_object().size() != 1) return {};
  const JsonMember& member = value.as_object().front();
  if (member.key != "__float__" || !member.value.is_string()) return {};
  const std::string& text = member.value.as_string();
  if (text == "Infinity") return std::numeric_limits<double>::infinity();
  if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
  if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
  return {};
}

template <class Variant>
auto& expect(Variant* found, JsonValue::Kind expected, JsonValue::Kind got) {
  if (found == nullptr) wrong_kind(expected, got);
  return *found;
}

}  // namespace

std::string_view json_kind_name(JsonValue::Kind kind) {
  constexpr std::string_view kNames[] = {"null",   "boolean", "integer", "number",
                                         "string", "array",   "object"};
  return kNames[static_cast<size_t>(kind)];
}

JsonValue::JsonValue() = default;
JsonValue::JsonValue(std::nullptr_t) {}
JsonValue::JsonValue(bool value) : value_(value) {}
JsonValue::JsonValue(int value) : value_(int64_t{value}) {}
JsonValue::JsonValue(int64_t value) : value_(value) {}
JsonValue::JsonValue(double value) : value_(value) {}
JsonValue::JsonValue(const char* value) : value_(std::string(value)) {}
JsonValue::JsonValue(std::string_view value) : value_(std::string(value)) {}
JsonValue::JsonValue(std::string value) : value_(std::move(value)) {}
JsonValue::JsonValue(Array value) : value_(std::move(value)) {}
JsonValue::JsonValue(Object value) : value_(std::move(value)) {}
JsonValue JsonValue::array() { return JsonValue(Array{}); }
JsonValue JsonValue::object() { return JsonValue(Object{}); }

JsonValue::Kind JsonValue::kind() const { return static_cast<Kind>(value_.index()); }

bool JsonValue::as_bool() const {
  return expect(std::get_if<bool>(&value_), Kind::boolean, kind());
}

int64_t JsonValue::as_int() const {
  return expect(std::get_if<int64_t>(&value_), Kind::integer, kind());
}

double JsonValue::as_double() const {
  if (const auto* integer = std::get_if<int64_t>(&value_)) return static_cast<double>(*integer);
  if (const auto tagged = tagged_float(*this)) return *tagged;
  return expect(std::get_if<double>(&value_), Kind::number, kind());
}

const std::string& JsonValue::as_string() const {
  return expect(std::get_if<std::string>(&value_), Kind::string, kind());
}

const JsonValue::Array& JsonValue::as_array() const {
  return expect(std::get_if<Array>(&value_), Kind::array, kind());
}

JsonValue::Array& JsonValue::as_array() {
  return expect(std::get_if<Array>(&value_), Kind::array, kind());
}

const JsonValue::Object& JsonValue::as_object() const {
  return expect(std::get_if<Object>(&value_), Kind::object, kind());
}

JsonValue::Object& JsonValue::as_object() {
  return expect(std::get_if<Object>(&value_), Kind::object, kind());
}

const JsonValue* JsonValue::find(std::string_view key) const {
  const auto* object = std::get_if<Object>(&value_);
  if (object == nullptr) return nullptr;
  for (const JsonMember& member : *object) {
    if (member.key == key) return &member.value;
  }
  return nullptr;
}

JsonValue& JsonValue::set(std::string_view key, JsonValue value) {
  if (is_null()) value_ = Object{};
  for (JsonMember& member : as_object()) {
    if (member.key == key) {
      member.value = std::move(value);
      return *this;
    }
  }
  as_object().push_back({std::string(key), std::move(value)});
  return *this;
}

JsonValue& JsonValue::push(JsonValue value) {
  if (is_null()) value_ = Array{};
  as_array().push_back(std::move(value));
  return *this;
}

bool JsonValue::operator==(const JsonValue& other) const { return value_ == other.value_; }

bool JsonMember::operator==(const JsonMember& other) const {
  return key == other.key && value == other.value;
}

}  // namespace adder
