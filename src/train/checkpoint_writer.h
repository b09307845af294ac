// Checkpoints that are written while training goes on: the training thread copies what a checkpoint
// holds into host memory, and a thread of its own writes, verifies and commits the file. Private to
// the room.
//
//   StagedCheckpoint& staged = writer.stage();   // waits for the checkpoint before
//   ... add() each tensor, copy it there, wait for the copies ...
//   writer.start({step, manifest, flush the logs, keep, best});
//   ... steps ...
//   for (const CheckpointOutcome& outcome : writer.poll()) ...
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/buffer.h"
#include "formats/checkpoint.h"

namespace adder {

/// The tensors of a checkpoint in host memory that is reserved once: staging the same tensors again
/// allocates nothing. Not thread-safe.
class StagedCheckpoint {
 public:
  /// `bytes`: the sum of room() over the blocks that will be taken. Memory of kind host or pinned.
  StagedCheckpoint(int64_t bytes, const Memory& memory);

  /// A block of so many bytes takes this much.
  static constexpr int64_t room(int64_t bytes) { return align_up(bytes); }

  /// Forgets the tensors, keeps the memory.
  void clear();
  /// The next block, uninitialised; it lies where it is until clear(). More than was reserved is
  /// our own bug.
  std::byte* take(int64_t bytes);
  /// Names a tensor whose elements the caller has put, or will put, at `data` in a taken block:
  /// many tensors can share a block, and so one copy.
  void add(std::string_view name, Dtype dtype, std::span<const int64_t> shape,
           const std::byte* data);
  /// The same in a block of its own, which is returned.
  std::byte* add(std::string_view name, Dtype dtype, std::span<const int64_t> shape);

  /// In the order of add().
  std::span<const TensorSource> tensors() const { return std::span(tensors_).first(count_); }
  int64_t capacity() const { return buffer_.bytes(); }

 private:
  Buffer buffer_;
  int64_t used_ = 0;
  std::vector<TensorSource> tensors_;  // the first count_ are in use, the others keep their strings
  size_t count_ = 0;
};

/// The rest of a checkpoint, beside the staged tensors.
struct CheckpointJob {
  int64_t step = 0;
  JsonValue manifest;
  /// Makes durable what the manifest says about growing files; runs on the writer's thread before
  /// anything is written. May be empty.
  std::function<void()> flush_logs;
  int64_t keep = 2;             // as keep_checkpoints
  std::optional<int64_t> best;  // as keep_checkpoints
};

struct CheckpointOutcome {
  int64_t step = 0;
  std::string path;
  bool saved = false;  // the file is in its place, verified and durable
  /// When it was not saved: why. When it was: what else went wrong (an old checkpoint that cannot
  /// be deleted), or empty.
  std::string problem;
};

/// Writes one checkpoint at a time and queues none. A save that fails leaves the older checkpoints
/// as they are and is told by its outcome; nothing is thrown for it. The thread blocks the signals
/// that handlers of the process wait for. All calls from one thread. A child of fork() has no copy
/// of the thread and may only exec or _exit.
class CheckpointWriter {
 public:
  /// Reserves the staging memory, so that a machine too small for it says so before the first step.
  CheckpointWriter(std::string folder, int64_t staging_bytes, const Memory& memory = {});
  /// Waits.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// Waits for the checkpoint that is being written and gives the memory of the next one, cleared.
  /// Throws Error once a flush of the logs failed: no later checkpoint could be sure of them.
  StagedCheckpoint& stage();
  /// Hands over what is staged; it may not be touched before the next stage(). The copies into it
  /// must be complete.
  void start(CheckpointJob job);

  bool busy() const { return thread_.joinable() && !done_.load(std::memory_order_acquire); }
  /// The outcomes that were not told yet, oldest first. Does not wait.
  std::vector<CheckpointOutcome> poll();
  /// The same after waiting.
  std::vector<CheckpointOutcome> finish();

  int64_t staging_bytes() const { return staged_.capacity(); }

 private:
  void wait();
  void write() noexcept;
  void save();

  std::string folder_;
  StagedCheckpoint staged_;
  std::vector<CheckpointOutcome> outcomes_;
  // The thread owns these and staged_ from start() until it is joined.
  CheckpointJob job_;
  CheckpointOutcome outcome_;
  std::vector<int64_t> verified_;  // steps that this writer saved, the newest last
  bool logs_lost_ = false;
  std::string logs_problem_;
  std::thread thread_;
  std::atomic<bool> done_{false};  // the thread's last act
};

}  // namespace adder
