#include "train/metrics.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <type_traits>

#include "core/checksum.h"
#include "core/mapped_file.h"
#include "formats/json.h"

namespace adder {
namespace {

JsonValue number_or_null(double value) {
  return std::isfinite(value) ? JsonValue(value) : JsonValue(nullptr);
}

JsonValue number_or_null(const std::optional<double>& value) {
  return value ? number_or_null(*value) : JsonValue(nullptr);
}

MetricsRecord parse_line(std::string_view line, const std::string& where) {
  const JsonValue json = parse_json(line, where);
  JsonFields fields(json, where);
  const auto optional_number = [&](const char* key) {
    return fields.has(key) ? std::optional<double>(fields.get_double(key)) : std::nullopt;
  };
  const auto number = [&](const char* key) {
    return optional_number(key).value_or(std::numeric_limits<double>::quiet_NaN());
  };
  MetricsRecord record;
  record.step = fields.get_int("step");
  record.tokens = fields.get_int("tokens");
  record.seconds = number("seconds");
  record.train_loss = number("train_loss");
  record.val_loss = optional_number("val_loss");
  record.bits_per_byte = optional_number("bits_per_byte");
  record.lr = number("lr");
  record.grad_norm = number("grad_norm");
  record.tokens_per_s = number("tokens_per_s");
  record.skipped = fields.get_int("skipped", 0);
  return record;
}

// Protocol buffers by hand: a field is varint(number * 8 + wire type), then its value.
enum WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>((value & 0x7F) | 0x80));
  out.push_back(static_cast<char>(value));
}

void put_tag(std::string& out, int field, WireType type) {
  put_varint(out, static_cast<uint64_t>(field) << 3 | type);
}

// Little-endian, as the machines that Adder runs on.
template <class T>
void put_raw(std::string& out, T value) {
  static_assert(std::is_trivially_copyable_v<T>);
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_tag(out, field, kBytes);
  put_varint(out, bytes.size());
  out.append(bytes);
}

// Event: 1 wall_time (double), 2 step (int64), 3 file_version (string), 5 summary.
std::string event_head(int64_t step) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  std::string event;
  put_tag(event, 1, kFixed64);
  put_raw(event, std::chrono::duration<double>(now).count());
  put_tag(event, 2, kVarint);
  put_varint(event, static_cast<uint64_t>(step));
  return event;
}

// Summary: repeated 1 value; Value: 1 tag (string), 2 simple_value (float).
void put_scalar(std::string& summary, std::string_view name, double value) {
  if (!std::isfinite(value)) return;
  std::string item;
  put_bytes(item, 1, name);
  put_tag(item, 2, kFixed32);
  put_raw(item, static_cast<float>(value));
  put_bytes(summary, 1, item);
}

// The mask keeps the CRC of data that itself holds CRCs well-behaved
// (tensorflow/core/lib/hash/crc32c.h).
uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(std::as_bytes(std::span(bytes.data(), bytes.size())));
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

}  // namespace

std::string metrics_line(const MetricsRecord& record) {
  JsonValue json;
  json.set("step", record.step);
  json.set("tokens", record.tokens);
  json.set("seconds", number_or_null(record.seconds));
  json.set("train_loss", number_or_null(record.train_loss));
  json.set("val_loss", number_or_null(record.val_loss));
  json.set("bits_per_byte", number_or_null(record.bits_per_byte));
  json.set("lr", number_or_null(record.lr));
  json.set("grad_norm", number_or_null(record.grad_norm));
  json.set("tokens_per_s", number_or_null(record.tokens_per_s));
  json.set("skipped", record.skipped);
  return write_json(json, {.indent = 0}) + "\n";
}

std::vector<MetricsRecord> read_metrics(const std::string& path) {
  const std::string text = read_text_file(path);
  std::vector<MetricsRecord> records;
  int64_t line_number = 0;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = text.find('\n', begin);
    if (end == std::string::npos) end = text.size();
    ++line_number;
    const std::string_view line(text.data() + begin, end - begin);
    if (!line.empty()) records.push_back(parse_line(line, fmt::format("{}:{}", path, line_number)));
    begin = end + 1;
  }
  return records;
}

std::string tfrecord_frame(std::string_view payload) {
  std::string frame;
  put_raw(frame, static_cast<uint64_t>(payload.size()));
  put_raw(frame, masked_crc(frame));
  frame.append(payload);
  put_raw(frame, masked_crc(payload));
  return frame;
}

EventLog::EventLog(const std::string& path, int64_t keep_bytes) : log_(path, keep_bytes) {
  if (log_.bytes() > 0) return;
  std::string event = event_head(0);
  put_bytes(event, 3, "brain.Event:2");
  log_.append(tfrecord_frame(event));
}

void EventLog::append(const MetricsRecord& record) {
  std::string summary;
  put_scalar(summary, "loss/train", record.train_loss);
  if (record.val_loss) put_scalar(summary, "loss/validation", *record.val_loss);
  if (record.bits_per_byte) put_scalar(summary, "validation/bits_per_byte", *record.bits_per_byte);
  put_scalar(summary, "optimizer/learning_rate", record.lr);
  put_scalar(summary, "optimizer/gradient_norm", record.grad_norm);
  put_scalar(summary, "optimizer/skipped_steps", static_cast<double>(record.skipped));
  put_scalar(summary, "speed/tokens_per_second", record.tokens_per_s);
  std::string event = event_head(record.step);
  put_bytes(event, 5, summary);
  log_.append(tfrecord_frame(event));
}

}  // namespace adder
