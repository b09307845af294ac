// Where training takes its tokens from: ids only. What a call gives depends on its arguments and on
// what the source was built with, never on earlier calls, so a run can stop and resume anywhere.
#pragma once

#include <cstdint>
#include <memory>

#include "formats/token_shard.h"

namespace adder {

/// Thread-safe: calls are const.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  /// Writes micro-batch `micro` (from 0) of step `step` (from 1): ids and targets (batch, len); a
  /// target is the id that follows, or kIgnoreIndex.
  virtual void fill(int64_t step, int64_t micro, int32_t* ids, int32_t* targets) const = 0;
  /// Steps until every token was seen once, for reports; 0 where that means nothing.
  virtual double steps_per_epoch() const { return 0; }
};

/// Windows to score a model on, in a fixed order. Thread-safe: calls are const.
class EvalSource {
 public:
  virtual ~EvalSource() = default;
  virtual int64_t windows() const = 0;
  virtual int64_t len() const = 0;
  /// Writes window `index`: ids and targets (len).
  virtual void fill(int64_t index, int32_t* ids, int32_t* targets) const = 0;
  /// Bytes of text for each token (1 for bytes), so that losses compare across tokenizers.
  virtual double bytes_per_token() const { return 1; }
};

/// Tokens [begin, end) of a shard.
struct TokenRange {
  std::shared_ptr<const TokenShard> shard;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t count() const { return end - begin; }
};

struct BatchShape {
  int64_t batch = 8;
  int64_t len = 256;
  int64_t accumulation = 1;
  uint64_t seed = 1;
};

/// Training windows of len + 1 tokens. Each epoch cuts the range into windows from a random phase
/// on and visits every one once, in a random order; both follow from (seed, epoch). A window holds
/// one token more than it trains, so neighbours share it.
class ShardBatchSource : public BatchSource {
 public:
  /// Throws Error when the range is shorter than one window.
  ShardBatchSource(TokenRange range, const BatchShape& shape);
  void fill(int64_t step, int64_t micro, int32_t* ids, int32_t* targets) const override;
  double steps_per_epoch() const override;

  int64_t windows_per_epoch() const { return windows_; }
  /// Where in the range window `sample` of the whole run starts.
  int64_t window_start(int64_t sample) const;

 private:
  TokenRange range_;
  BatchShape shape_;
  int64_t windows_ = 0;
};

/// Consecutive windows that predict every token of the range but its first exactly once; the last
/// window is filled up with ignored targets.
class ShardEvalSource : public EvalSource {
 public:
  /// Throws Error when the range has fewer than two tokens.
  ShardEvalSource(TokenRange range, int64_t len);
  int64_t windows() const override;
  int64_t len() const override { return len_; }
  void fill(int64_t index, int32_t* ids, int32_t* targets) const override;
  double bytes_per_token() const override;

 private:
  TokenRange range_;
  int64_t len_ = 0;
};

/// A permutation of [0, count) without memory: the image of `index`, the same for the same key and
/// stream. Four Feistel rounds over the next even power of two, walked until the image falls inside
/// (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002).
int64_t permuted_index(uint64_t key, uint64_t stream, int64_t count, int64_t index);

}  // namespace adder
