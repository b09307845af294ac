#include "formats/safetensors_header.h"

#include <rapidjson/error/en.h>
#include <rapidjson/reader.h>

#include <algorithm>
#include <array>
#include <limits>

#include "formats/json.h"

namespace adder {
namespace {

constexpr std::array kAccepted = {Dtype::f64, Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::i64,
                                  Dtype::i32, Dtype::i16, Dtype::i8,   Dtype::u8,  Dtype::boolean};
// Types of the format that Adder does not compute with (safetensors/src/tensor.rs, enum Dtype).
constexpr std::array<std::string_view, 13> kRefused = {
    "F4",          "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ",
    "F8_E5M2FNUZ", "U16",     "U32",     "U64",     "C64",     "C128"};
constexpr const char* kAcceptedText = "F64, F32, BF16, F16, I64, I32, I16, I8, U8 or BOOL";

/// The place in the header to which the next event belongs.
enum class Place : uint8_t { start, top, metadata, tensor, shape, offsets, end };
enum class Field : uint8_t { none, dtype, shape, offsets };

class HeaderReader {
 public:
  HeaderReader(const std::string& text, rapidjson::InsituStringStream& stream, std::string path)
      : text_(text.data()), stream_(stream), path_(std::move(path)) {}

  bool Null() { return wrong("null"); }                               // NOLINT: names of RapidJSON
  bool Bool(bool value) { return wrong(value ? "true" : "false"); }   // NOLINT
  bool Int(int value) { return wrong(std::to_string(value)); }        // NOLINT: below 0
  bool Int64(int64_t value) { return wrong(std::to_string(value)); }  // NOLINT: below 0
  bool Uint(unsigned value) { return size(value); }                   // NOLINT
  bool Uint64(uint64_t value) {                                       // NOLINT
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return refuse("a number is too large", "below 2^63", std::to_string(value));
    }
    return size(static_cast<int64_t>(value));
  }
  bool Double(double) {
    return wrong("a number with a fraction, an exponent or too many digits");
  }  // NOLINT
  bool RawNumber(const char*, unsigned, bool) { return false; }  // NOLINT: never asked for
  bool String(const char* text, unsigned size, bool);            // NOLINT
  bool Key(const char* text, unsigned size, bool);               // NOLINT
  bool StartObject();                                            // NOLINT
  bool EndObject(unsigned);                                      // NOLINT
  bool StartArray();                                             // NOLINT
  bool EndArray(unsigned);                                       // NOLINT

  SafetensorsHeader header;
  std::optional<Error::Parts> refusal;

 private:
  bool refuse(std::string what, std::string expected, std::string got);
  bool wrong(std::string got);
  bool size(int64_t value);
  bool finish_tensor();
  uint32_t offset_of(const char* text) const { return static_cast<uint32_t>(text - text_); }
  std::string_view name() const { return {text_ + entry_.name_begin, entry_.name_size}; }

  const char* text_;
  rapidjson::InsituStringStream& stream_;
  std::string path_;
  Place place_ = Place::start;
  Field field_ = Field::none;
  SafetensorsFile::Entry entry_;
  SafetensorsFile::MetadataEntry pair_;
  bool seen_metadata_ = false;
  std::array<bool, 4> seen_{};  // by Field
  int64_t offsets_[2] = {0, 0};
  int offset_count_ = 0;
  int64_t elements_ = 1;
  bool overflow_ = false;
};

bool HeaderReader::refuse(std::string what, std::string expected, std::string got) {
  const bool inside = place_ == Place::tensor || place_ == Place::shape || place_ == Place::offsets;
  std::string where = inside ? tensor_where(path_, name()) : path_;
  if (place_ == Place::metadata) where += ": __metadata__";
  if (field_ == Field::shape) where += ": shape";
  if (field_ == Field::offsets) where += ": data_offsets";
  refusal = Error::Parts{std::move(what), std::move(where), std::move(expected), std::move(got)};
  return false;
}

bool HeaderReader::wrong(std::string got) {
  switch (place_) {
    case Place::start:
      return refuse("wrong header", "an object", std::move(got));
    case Place::top:
      return refuse("wrong header", "an object for each tensor", std::move(got));
    case Place::metadata:
      return refuse("wrong value", "a string", std::move(got));
    case Place::tensor:
      return refuse("wrong value", field_ == Field::dtype ? "a string" : "an array",
                    std::move(got));
    default:
      return refuse("wrong value", "a whole number, 0 or above", std::move(got));
  }
}

bool HeaderReader::String(const char* text, unsigned size, bool) {
  const std::string_view value(text, size);
  if (!is_utf8(value)) return refuse("a string is not valid UTF-8", {}, {});
  if (place_ == Place::metadata) {
    pair_.value_begin = offset_of(text);
    pair_.value_size = size;
    header.metadata.push_back(pair_);
    return true;
  }
  if (place_ != Place::tensor || field_ != Field::dtype) return wrong("a string");
  for (const Dtype type : kAccepted) {
    if (stored_dtype_name(type) == value) {
      entry_.dtype = type;
      return true;
    }
  }
  const bool known = std::find(kRefused.begin(), kRefused.end(), value) != kRefused.end();
  return refuse(known ? "dtype not supported" : "unknown dtype", kAcceptedText, quoted_name(value));
}

bool HeaderReader::Key(const char* text, unsigned size, bool) {
  const std::string_view key(text, size);
  if (!is_utf8(key)) return refuse("a name is not valid UTF-8", {}, {});
  if (place_ == Place::metadata) {
    if (header.metadata.size() >= static_cast<size_t>(kSafetensorsMetadataLimit)) {
      return refuse("too many entries", "at most " + std::to_string(kSafetensorsMetadataLimit), {});
    }
    pair_.key_begin = offset_of(text);
    pair_.key_size = size;
    return true;
  }
  if (place_ == Place::top) {
    entry_ = {};
    entry_.name_begin = offset_of(text);
    entry_.name_size = size;
    return true;
  }
  field_ = key == "dtype"          ? Field::dtype
           : key == "shape"        ? Field::shape
           : key == "data_offsets" ? Field::offsets
                                   : Field::none;
  if (field_ == Field::none) {
    return refuse("unknown key " + quoted_name(key), "dtype, shape or data_offsets", {});
  }
  if (std::exchange(seen_[static_cast<size_t>(field_)], true)) {
    return refuse("duplicate key " + quoted_name(key), {}, {});
  }
  return true;
}

bool HeaderReader::StartObject() {
  if (place_ == Place::start) {
    place_ = Place::top;
    return true;
  }
  if (place_ != Place::top) return wrong("an object");
  if (name() == "__metadata__") {
    if (std::exchange(seen_metadata_, true)) return refuse("duplicate key '__metadata__'", {}, {});
    place_ = Place::metadata;
    return true;
  }
  place_ = Place::tensor;
  field_ = Field::none;
  seen_ = {};
  return true;
}

bool HeaderReader::EndObject(unsigned) {
  if (place_ == Place::top) {
    place_ = Place::end;
    return true;
  }
  if (place_ == Place::tensor && !finish_tensor()) return false;
  place_ = Place::top;
  field_ = Field::none;
  return true;
}

bool HeaderReader::StartArray() {
  if (place_ != Place::tensor || field_ == Field::dtype) return wrong("an array");
  if (field_ == Field::shape) {
    place_ = Place::shape;
    entry_.shape_begin = static_cast<uint32_t>(stream_.Tell());
    elements_ = 1;
    overflow_ = false;
  } else {
    place_ = Place::offsets;
    offset_count_ = 0;
  }
  return true;
}

bool HeaderReader::EndArray(unsigned) {
  if (place_ == Place::offsets && offset_count_ != 2) {
    return refuse("wrong length", "2 offsets", std::to_string(offset_count_));
  }
  place_ = Place::tensor;
  return true;
}

bool HeaderReader::size(int64_t value) {
  if (place_ == Place::shape) {
    ++entry_.rank;
    overflow_ = __builtin_mul_overflow(elements_, value, &elements_) || overflow_;
    return true;
  }
  if (place_ != Place::offsets) return wrong(std::to_string(value));
  if (offset_count_ == 2) return refuse("wrong length", "2 offsets", "more");
  offsets_[offset_count_++] = value;
  return true;
}

bool HeaderReader::finish_tensor() {
  field_ = Field::none;
  for (const auto& [field, key] : {std::pair{Field::dtype, "dtype"},
                                   {Field::shape, "shape"},
                                   {Field::offsets, "data_offsets"}}) {
    if (!seen_[static_cast<size_t>(field)]) {
      return refuse("missing key '" + std::string(key) + "'", {}, {});
    }
  }
  int64_t bytes = 0;
  if (overflow_ || __builtin_mul_overflow(elements_, dtype_bytes(entry_.dtype), &bytes)) {
    return refuse("the shape overflows", "below 2^63 bytes", {});
  }
  entry_.begin = offsets_[0];
  entry_.end = offsets_[1];
  if (entry_.end < entry_.begin) {
    return refuse("data_offsets are reversed", "begin <= end",
                  shape_text(std::span<const int64_t>(offsets_, 2)));
  }
  if (entry_.end - entry_.begin != bytes) {
    return refuse("data_offsets do not match shape and dtype", std::to_string(bytes) + " bytes",
                  std::to_string(entry_.end - entry_.begin) + " bytes");
  }
  header.entries.push_back(entry_);
  return true;
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string& text, const std::string& path) {
  if (text.empty() || text.front() != '{') {
    throw Error({"wrong header", path, "'{' at byte 8",
                 text.empty() ? "an empty header" : quoted_name(text.substr(0, 1))});
  }
  rapidjson::InsituStringStream stream(text.data());
  rapidjson::Reader reader;
  HeaderReader handler(text, stream, path);
  const auto result = reader.Parse < rapidjson::kParseInsituFlag |
                      rapidjson::kParseStopWhenDoneFlag > (stream, handler);
  if (handler.refusal) throw Error(std::move(*handler.refusal));
  if (!result) {
    throw Error(
        {"the header is not valid JSON: " + std::string(rapidjson::GetParseError_En(result.Code())),
         path + ": byte " + std::to_string(result.Offset() + 8),
         {},
         {}});
  }
  const size_t rest = text.find_first_not_of(' ', stream.Tell());
  if (rest != std::string::npos) {
    throw Error({"text after the header's object",
                 path + ": byte " + std::to_string(rest + 8),
                 "spaces only",
                 {}});
  }
  return std::move(handler.header);
}

}  // namespace adder
