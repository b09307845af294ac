// The integer arrays of a call (ids, targets, cu_seqlens, slots, wanted rows): checked where they
// enter the engine, packed, and brought to the device by one copy.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/device_array.h"
#include "layers/mixer.h"

namespace adder {

/// The extent of a call and its arrays in host memory: `batch` rows of `len` tokens, or packed
/// sequences.
struct CallInput {
  int64_t batch = 1;
  int64_t len = 0;
  std::span<const int32_t> ids = {};  // (batch * len)
  std::span<const int32_t> targets =
      {};  // (batch * len): what follows, or kIgnoreIndex; empty: none
  std::span<const int32_t> cu_seqlens = {};  // (sequences + 1), batch is 1; empty: not packed
  std::span<const int32_t> slots = {};       // of each row's state; empty: row r has slot r
  bool last_only = false;  // logits of the last token of each row or sequence only

  int64_t rows() const { return batch * len; }
};

/// The same in the memory of the device, as models take it.
struct TokenBatch {
  TokenLayout layout;
  const int32_t* ids = nullptr;      // (layout.rows())
  const int32_t* targets = nullptr;  // (layout.rows()) or absent
  const int32_t* wanted = nullptr;   // (wanted_rows): rows whose logits are asked for; absent: all
  int64_t wanted_rows = 0;

  /// Rows of logits.
  int64_t logit_rows() const { return wanted != nullptr ? wanted_rows : layout.rows(); }
  /// Batch rows [first, first + count) of a call that is not packed.
  TokenBatch part(int64_t first, int64_t count) const;
};

/// Addresses stay as long as calls do not grow. Calls may be loaded while earlier ones still run:
/// two blocks of host memory take turns, and each waits for its own last copy. Not thread-safe.
class CallArrays {
 public:
  /// Ids and targets are below `vocab`; `where` begins the messages about them.
  CallArrays(const Context& context, int64_t vocab, std::string where);
  ~CallArrays();
  CallArrays(const CallArrays&) = delete;
  CallArrays& operator=(const CallArrays&) = delete;
  /// slots: how many the state has, for calls that name slots or carry a state. Throws Error on
  /// contents that are out of range or do not fit each other, before anything is copied.
  TokenBatch load(const CallInput& input, int64_t slots = 0);

 private:
  /// A block of host memory, and the mark of the copy that reads it; null: none under way.
  struct Staging {
    DeviceArray<int32_t> memory;
    void* copied = nullptr;
  };
  void wait(Staging& staging);
  void check(const CallInput& input, int64_t slots) const;

  Context context_;
  int64_t vocab_;
  std::string where_;
  Staging staging_[2];
  DeviceArray<int32_t> device_;
  int turn_ = 0;
};

}  // namespace adder
