#include "models/call_arrays.h"

#include <algorithm>
#include <utility>

#include "core/contents.h"
#include "core/error.h"
#include "layers/head.h"

namespace adder {
namespace {

constexpr int64_t kUnit = kAlignment / static_cast<int64_t>(sizeof(int32_t));

int64_t padded(size_t count) { return (static_cast<int64_t>(count) + kUnit - 1) / kUnit * kUnit; }

// The last row of every batch row or packed sequence.
std::vector<int32_t> last_rows(const CallInput& input) {
  std::vector<int32_t> rows;
  if (input.cu_seqlens.empty()) {
    for (int64_t b = 1; b <= input.batch; ++b) {
      rows.push_back(static_cast<int32_t>(b * input.len - 1));
    }
  }
  for (size_t q = 1; q < input.cu_seqlens.size(); ++q) rows.push_back(input.cu_seqlens[q] - 1);
  return rows;
}

}  // namespace

TokenBatch TokenBatch::part(int64_t first, int64_t count) const {
  ADDER_CHECK(layout.sequences == 0 && layout.state_index == nullptr && wanted == nullptr);
  TokenBatch result = *this;
  result.layout.batch = count;
  result.ids = ids + first * layout.len;
  if (targets != nullptr) result.targets = targets + first * layout.len;
  return result;
}

CallArrays::CallArrays(const Context& context, int64_t vocab, std::string where)
    : context_(context),
      vocab_(vocab),
      where_(std::move(where)),
      staging_{{DeviceArray<int32_t>(context.memory(MemoryKind::pinned))},
               {DeviceArray<int32_t>(context.memory(MemoryKind::pinned))}},
      device_(context.memory(MemoryKind::device)) {
  context_.arena = nullptr;
}

CallArrays::~CallArrays() {
  for (Staging& staging : staging_) wait(staging);
}

void CallArrays::wait(Staging& staging) {
  if (staging.copied != nullptr) context_.backend().wait(std::exchange(staging.copied, nullptr));
}

void CallArrays::check(const CallInput& input, int64_t slots) const {
  const auto count = static_cast<int64_t>(input.ids.size());
  if (input.batch < 1 || input.len < 1 || count != input.rows()) {
    throw Error({"ids do not divide into rows", where_,
                 std::to_string(input.batch) + " rows of " + std::to_string(input.len),
                 std::to_string(count) + " ids"});
  }
  check_ids(input.ids, vocab_, where_);
  if (!input.targets.empty()) {
    if (input.targets.size() != input.ids.size()) {
      throw Error({"one target for each id", where_, std::to_string(count),
                   std::to_string(input.targets.size())});
    }
    check_targets(input.targets, vocab_, kIgnoreIndex, where_);
  }
  int64_t states = input.batch;
  if (!input.cu_seqlens.empty()) {
    if (input.batch != 1) {
      throw Error({"packed sequences", where_, "batch 1", std::to_string(input.batch)});
    }
    check_boundaries(input.cu_seqlens, input.len, where_);
    states = static_cast<int64_t>(input.cu_seqlens.size()) - 1;
    const auto empty = std::adjacent_find(input.cu_seqlens.begin(), input.cu_seqlens.end());
    if (input.last_only && empty != input.cu_seqlens.end()) {
      throw Error({"a sequence without tokens has no last one", where_ + ": cu_seqlens", "", ""});
    }
  }
  if (input.slots.empty()) return;
  if (static_cast<int64_t>(input.slots.size()) != states) {
    throw Error({"one slot for each sequence", where_, std::to_string(states),
                 std::to_string(input.slots.size())});
  }
  check_slots(input.slots, slots, where_);
}

TokenBatch CallArrays::load(const CallInput& input, int64_t slots) {
  check(input, slots);
  const bool wants_rows = input.last_only && (input.len > 1 || !input.cu_seqlens.empty());
  const std::vector<int32_t> wanted = wants_rows ? last_rows(input) : std::vector<int32_t>();
  const std::span<const int32_t> parts[] = {input.ids, input.targets, input.cu_seqlens, input.slots,
                                            wanted};
  int64_t total = 0;
  for (const auto& part : parts) total += padded(part.size());
  turn_ = 1 - turn_;
  Staging& staging = staging_[turn_];
  wait(staging);
  int32_t* staged = staging.memory.hold(total);
  int32_t* device = device_.hold(total);
  const int32_t* at[std::size(parts)] = {};
  int64_t next = 0;
  for (size_t p = 0; p < std::size(parts); ++p) {
    std::copy(parts[p].begin(), parts[p].end(), staged + next);
    if (!parts[p].empty()) at[p] = device + next;
    next += padded(parts[p].size());
  }
  copy_elements(context_, device, staged, total);
  staging.copied = context_.backend().mark(context_.stream);

  TokenBatch batch;
  batch.layout.batch = input.batch;
  batch.layout.len = input.len;
  batch.layout.cu_seqlens = at[2];
  if (at[2] != nullptr) batch.layout.sequences = static_cast<int64_t>(input.cu_seqlens.size()) - 1;
  batch.layout.state_index = at[3];
  batch.ids = at[0];
  batch.targets = at[1];
  batch.wanted = at[4];
  batch.wanted_rows = static_cast<int64_t>(wanted.size());
  return batch;
}

}  // namespace adder
