// Metrics of a run: one JSON object a line, and the same as a TensorBoard event file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/append_log.h"

namespace adder {

/// One line of metrics.jsonl. Losses in nats a token (a byte, for byte tokens).
struct MetricsRecord {
  int64_t step = 0;
  int64_t tokens = 0;  // trained on so far
  double seconds = 0;  // since the run began, over all its sessions
  double train_loss = 0;
  std::optional<double> val_loss;       // null in the file when this step was not validated
  std::optional<double> bits_per_byte;  // of val_loss
  double lr = 0;
  double grad_norm = 0;
  double tokens_per_s = 0;
  int64_t skipped = 0;  // steps that were not finite, so far
};

/// {"step":3,"tokens":6144,"seconds":..,"train_loss":..,"val_loss":..,"bits_per_byte":..,"lr":..,
/// "grad_norm":..,"tokens_per_s":..,"skipped":0} and a newline. Numbers that are not finite become
/// null.
std::string metrics_line(const MetricsRecord& record);

/// The lines of a metrics file, in order; a line that is none is an Error naming FILE:LINE. Null
/// numbers come back as NaN.
std::vector<MetricsRecord> read_metrics(const std::string& path);

/// Writes scalars as TensorBoard reads them: TFRecord frames (length, masked CRC32C of the length,
/// payload, masked CRC32C of the payload) around messages of tensorflow/core/util/event.proto.
class EventLog {
 public:
  EventLog() = default;
  /// As AppendLog; a new file begins with the version event.
  EventLog(const std::string& path, int64_t keep_bytes);
  bool open() const { return log_.open(); }
  AppendLog& log() { return log_; }
  const AppendLog& log() const { return log_; }
  void append(const MetricsRecord& record);

 private:
  AppendLog log_;
};

/// One TFRecord frame.
std::string tfrecord_frame(std::string_view payload);

}  // namespace adder
