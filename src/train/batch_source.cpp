#include "train/batch_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "core/error.h"
#include "core/rng.h"
#include "kernels/loss/loss.h"

namespace adder {
namespace {

constexpr int kFeistelRounds = 4;

uint64_t phase_stream() {
  static const uint64_t stream = stream_of("train.phase");
  return stream;
}

uint64_t order_stream(int64_t epoch) {
  static const uint64_t stream = stream_of("train.order");
  return stream + static_cast<uint64_t>(epoch);
}

// Windows of an epoch for any phase in [0, len): the last one still has all its targets.
int64_t windows_of(const TokenRange& range, int64_t len) {
  const int64_t targets = range.count() - 1;
  return std::max<int64_t>((targets - (len - 1)) / len, 1);
}

}  // namespace

int64_t permuted_index(uint64_t key, uint64_t stream, int64_t count, int64_t index) {
  ADDER_CHECK(index >= 0 && index < count);
  if (count == 1) return 0;
  const auto bits = static_cast<int>(std::bit_width(static_cast<uint64_t>(count - 1)));
  const int half = (bits + 1) / 2;
  const uint64_t mask = (uint64_t{1} << half) - 1;
  auto image = static_cast<uint64_t>(index);
  do {
    uint64_t left = image >> half;
    uint64_t right = image & mask;
    for (int round = 0; round < kFeistelRounds; ++round) {
      const uint64_t mixed = philox(key, stream, (static_cast<uint64_t>(round) << 60) | right)[0];
      const uint64_t next = (left ^ mixed) & mask;
      left = right;
      right = next;
    }
    image = (left << half) | right;
  } while (image >= static_cast<uint64_t>(count));
  return static_cast<int64_t>(image);
}

ShardBatchSource::ShardBatchSource(TokenRange range, const BatchShape& shape)
    : range_(std::move(range)), shape_(shape) {
  if (range_.count() < shape_.len + 1) {
    throw Error({"too few tokens to train on", range_.shard->path(),
                 fmt::format("at least {} (train.len + 1)", shape_.len + 1),
                 fmt::to_string(range_.count())});
  }
  windows_ = windows_of(range_, shape_.len);
}

double ShardBatchSource::steps_per_epoch() const {
  return static_cast<double>(windows_) / static_cast<double>(shape_.batch * shape_.accumulation);
}

int64_t ShardBatchSource::window_start(int64_t sample) const {
  const int64_t epoch = sample / windows_;
  const int64_t window =
      permuted_index(shape_.seed, order_stream(epoch), windows_, sample % windows_);
  const int64_t spare = range_.count() - 1 - windows_ * shape_.len;
  const auto phases = static_cast<uint64_t>(std::min(spare + 1, shape_.len));
  const auto phase =
      uniform_below(shape_.seed, phase_stream(), static_cast<uint64_t>(epoch), phases);
  return static_cast<int64_t>(phase) + window * shape_.len;
}

void ShardBatchSource::fill(int64_t step, int64_t micro, int32_t* ids, int32_t* targets) const {
  const int64_t first = ((step - 1) * shape_.accumulation + micro) * shape_.batch;
  for (int64_t row = 0; row < shape_.batch; ++row) {
    const int64_t start = range_.begin + window_start(first + row);
    range_.shard->copy(start, shape_.len, ids + row * shape_.len);
    range_.shard->copy(start + 1, shape_.len, targets + row * shape_.len);
  }
}

ShardEvalSource::ShardEvalSource(TokenRange range, int64_t len)
    : range_(std::move(range)), len_(len) {
  if (range_.count() < 2) {
    throw Error({"too few tokens to validate on", range_.shard->path(), "at least 2",
                 fmt::to_string(range_.count())});
  }
}

int64_t ShardEvalSource::windows() const { return (range_.count() - 1 + len_ - 1) / len_; }

void ShardEvalSource::fill(int64_t index, int32_t* ids, int32_t* targets) const {
  const int64_t start = index * len_;
  const int64_t n = std::min(len_, range_.count() - 1 - start);
  range_.shard->copy(range_.begin + start, n, ids);
  range_.shard->copy(range_.begin + start + 1, n, targets);
  std::fill(ids + n, ids + len_, 0);
  std::fill(targets + n, targets + len_, kIgnoreIndex);
}

double ShardEvalSource::bytes_per_token() const {
  const TokenShardInfo& info = range_.shard->info();
  if (info.text_bytes <= 0 || info.count <= 0) return 1;
  return static_cast<double>(info.text_bytes) / static_cast<double>(info.count);
}

}  // namespace adder
