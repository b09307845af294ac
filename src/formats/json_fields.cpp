#include <algorithm>

#include "core/error.h"
#include "formats/json.h"

namespace adder {
namespace {

/// A value as it stands in an error: its beginning.
std::string shown(const JsonValue& value) {
  constexpr size_t kLength = 60;
  if (value.is_array() && value.as_array().size() > 16) return "a long array";
  if (value.is_object()) return "an object";
  std::string text = write_json(value, {0, JsonNonFinite::bare});
  if (text.size() > kLength) text = text.substr(0, kLength) + "...";
  return text;
}

}  // namespace

JsonFields::JsonFields(const JsonValue& object, std::string where)
    : object_(object), where_(std::move(where)) {
  if (!object.is_object()) {
    throw Error({"wrong type", where_, "an object", std::string(json_kind_name(object.kind()))});
  }
}

const JsonValue* JsonFields::find(std::string_view key) {
  asked_.emplace_back(key);
  const JsonValue* value = object_.find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

bool JsonFields::has(std::string_view key) { return find(key) != nullptr; }

void JsonFields::fail(std::string_view key, std::string what, std::string expected,
                      std::string got) const {
  throw Error({std::move(what), where_ + ": key '" + std::string(key) + "'", std::move(expected),
               std::move(got)});
}

namespace {

template <class T, class Read>
T get(JsonFields& fields, std::string_view key, const std::optional<T>& fallback,
      const char* expected, Read read) {
  const JsonValue* value = fields.find(key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    fields.fail(key, "missing", expected, {});
  }
  try {
    return read(*value);
  } catch (const Error&) {
    fields.fail(key, "wrong type", expected, shown(*value));
  }
}

}  // namespace

bool JsonFields::get_bool(std::string_view key, std::optional<bool> fallback) {
  return get(*this, key, fallback, "true or false", [](const JsonValue& v) { return v.as_bool(); });
}

int64_t JsonFields::get_int(std::string_view key, std::optional<int64_t> fallback) {
  return get(*this, key, fallback, "an integer", [](const JsonValue& v) { return v.as_int(); });
}

double JsonFields::get_double(std::string_view key, std::optional<double> fallback) {
  return get(*this, key, fallback, "a number", [](const JsonValue& v) { return v.as_double(); });
}

std::string JsonFields::get_string(std::string_view key, std::optional<std::string> fallback) {
  return get(*this, key, fallback, "a string", [](const JsonValue& v) { return v.as_string(); });
}

std::vector<int64_t> JsonFields::get_ints(std::string_view key,
                                          std::optional<std::vector<int64_t>> fallback) {
  return get(*this, key, fallback, "an array of integers", [](const JsonValue& v) {
    std::vector<int64_t> values;
    for (const JsonValue& element : v.as_array()) values.push_back(element.as_int());
    return values;
  });
}

std::vector<double> JsonFields::get_doubles(std::string_view key,
                                            std::optional<std::vector<double>> fallback) {
  return get(*this, key, fallback, "an array of numbers", [](const JsonValue& v) {
    std::vector<double> values;
    for (const JsonValue& element : v.as_array()) values.push_back(element.as_double());
    return values;
  });
}

void JsonFields::refuse_unknown() const {
  for (const JsonMember& member : object_.as_object()) {
    if (std::find(asked_.begin(), asked_.end(), member.key) != asked_.end()) continue;
    const std::string near = nearest_name(member.key, asked_);
    fail(member.key, near.empty() ? "unknown key" : "unknown key, did you mean '" + near + "'?", {},
         {});
  }
}

}  // namespace adder
