// JSON values: a small tree that keeps the order of keys, its strict parser and its writer.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace adder {

struct JsonMember;

/// null, boolean, integer (int64), number (double), string, array or object. A value type: copies
/// are deep. The as_* accessors throw Error naming the expected and the found kind.
class JsonValue {
 public:
  enum class Kind : uint8_t { null, boolean, integer, number, string, array, object };
  using Array = std::vector<JsonValue>;
  using Object = std::vector<JsonMember>;

  JsonValue();
  JsonValue(std::nullptr_t);
  JsonValue(bool value);
  JsonValue(int value);
  JsonValue(int64_t value);
  JsonValue(double value);
  JsonValue(const char* value);
  JsonValue(std::string_view value);
  JsonValue(std::string value);
  JsonValue(Array value);
  JsonValue(Object value);
  static JsonValue array();
  static JsonValue object();

  Kind kind() const;
  bool is_null() const { return kind() == Kind::null; }
  bool is_string() const { return kind() == Kind::string; }
  bool is_array() const { return kind() == Kind::array; }
  bool is_object() const { return kind() == Kind::object; }

  bool as_bool() const;
  int64_t as_int() const;  // integers only: 1.0 is refused
  /// Numbers of both kinds, and {"__float__": "Infinity" | "-Infinity" | "NaN"}, by which
  /// transformers writes the numbers that JSON lacks.
  double as_double() const;
  const std::string& as_string() const;
  const Array& as_array() const;
  Array& as_array();
  const Object& as_object() const;
  Object& as_object();

  /// The member of an object, null if it is absent or this is no object.
  const JsonValue* find(std::string_view key) const;
  /// Sets or replaces a member (a null value becomes an object). Returns *this for chaining.
  JsonValue& set(std::string_view key, JsonValue value);
  /// Appends to an array (a null value becomes an array).
  JsonValue& push(JsonValue value);

  bool operator==(const JsonValue& other) const;

 private:
  // JsonMember is incomplete here, so functions that need the variant's members are defined in
  // json_value.cpp.
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value_;
};

struct JsonMember {
  std::string key;
  JsonValue value;
  bool operator==(const JsonMember& other) const;
};

/// "null", "boolean", "integer", "number", "string", "array", "object".
std::string_view json_kind_name(JsonValue::Kind kind);

struct JsonLimits {
  int max_depth = 200;
  // Together they bound the heap that a hostile text can take: 2x its size + 16 MiB.
  int64_t max_bytes = 8 << 20;
  int64_t max_values = 65'536;
};

/// Strict JSON, plus bare NaN, Infinity and -Infinity as Python writes them. Refused: duplicate
/// keys, invalid UTF-8, comments, trailing text, NUL. Errors begin with `name` and give line,
/// column and byte offset. An integer beyond int64 becomes a number.
JsonValue parse_json(std::string_view text, const std::string& name, const JsonLimits& limits = {});
JsonValue read_json_file(const std::string& path, const JsonLimits& limits = {});

enum class JsonNonFinite : uint8_t { tagged, bare, refuse };

struct JsonStyle {
  int indent = 2;                                    // spaces; 0 writes one line
  JsonNonFinite non_finite = JsonNonFinite::tagged;  // {"__float__": "Infinity"}
};

/// Numbers are written so that reading gives the same bits, and never look like integers.
std::string write_json(const JsonValue& value, const JsonStyle& style = {});
/// Writes a file through AtomicFile, with a newline at the end.
void write_json_file(const std::string& path, const JsonValue& value, const JsonStyle& style = {});

/// Whether `text` is well-formed UTF-8 (no surrogates, no overlong forms).
bool is_utf8(std::string_view text);

/// Reads the members of one object with errors that name file, key, expected and got. Remembers
/// which keys were asked for, so that unknown ones can be refused.
class JsonFields {
 public:
  /// `object` is borrowed; `where` is a file, or "file: key" for an inner object.
  JsonFields(const JsonValue& object, std::string where);

  bool has(std::string_view key);  // present and not null
  const JsonValue* find(std::string_view key);
  bool get_bool(std::string_view key, std::optional<bool> fallback = {});
  int64_t get_int(std::string_view key, std::optional<int64_t> fallback = {});
  double get_double(std::string_view key, std::optional<double> fallback = {});
  std::string get_string(std::string_view key, std::optional<std::string> fallback = {});
  std::vector<int64_t> get_ints(std::string_view key,
                                std::optional<std::vector<int64_t>> fallback = {});
  std::vector<double> get_doubles(std::string_view key,
                                  std::optional<std::vector<double>> fallback = {});
  /// Marks a key as known without reading it.
  void ignore(std::string_view key) { asked_.emplace_back(key); }
  /// Throws Error for the first key that was never asked for, with the nearest one that was.
  void refuse_unknown() const;
  [[noreturn]] void fail(std::string_view key, std::string what, std::string expected,
                         std::string got) const;
  const std::string& where() const { return where_; }

 private:
  const JsonValue& object_;
  std::string where_;
  std::vector<std::string> asked_;
};

}  // namespace adder
