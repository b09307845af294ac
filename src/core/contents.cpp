#include "core/contents.h"

#include <vector>

#include "core/error.h"

namespace adder {
namespace {

std::string below(int64_t end) { return "[0, " + std::to_string(end) + ")"; }

// Every value is in [0, end) and none is there twice.
void check_distinct(std::span<const int32_t> values, int64_t end, const char* out_of_range,
                    const char* twice, const std::string& where) {
  std::vector<bool> seen(static_cast<size_t>(end));
  for (const int32_t value : values) {
    if (value < 0 || value >= end) {
      throw Error({out_of_range, where, below(end), std::to_string(value)});
    }
    if (seen[static_cast<size_t>(value)]) throw Error({twice, where, "", std::to_string(value)});
    seen[static_cast<size_t>(value)] = true;
  }
}

}  // namespace

void check_ids(std::span<const int32_t> ids, int64_t vocab, const std::string& where,
               int64_t first) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocab) continue;
    throw Error({"token id out of range",
                 where + ": position " + std::to_string(first + static_cast<int64_t>(i)),
                 below(vocab), std::to_string(ids[i])});
  }
}

void check_targets(std::span<const int32_t> targets, int64_t vocab, int32_t ignored,
                   const std::string& where) {
  for (size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] == ignored || (targets[i] >= 0 && targets[i] < vocab)) continue;
    throw Error({"target out of range", where + ": position " + std::to_string(i),
                 below(vocab) + " or " + std::to_string(ignored), std::to_string(targets[i])});
  }
}

void check_boundaries(std::span<const int32_t> cu, int64_t len, const std::string& where) {
  const std::string at = where + ": cu_seqlens";
  if (cu.size() < 2)
    throw Error({"too short", at, "at least 2 entries", std::to_string(cu.size())});
  if (cu.front() != 0) throw Error({"wrong first entry", at, "0", std::to_string(cu.front())});
  for (size_t q = 1; q < cu.size(); ++q) {
    if (cu[q] >= cu[q - 1]) continue;
    throw Error({"falls", at, "a non-decreasing array",
                 std::to_string(cu[q]) + " after " + std::to_string(cu[q - 1])});
  }
  if (cu.back() != len) {
    throw Error(
        {"wrong last entry", at, std::to_string(len) + " (len)", std::to_string(cu.back())});
  }
}

void check_slots(std::span<const int32_t> slots, int64_t count, const std::string& where) {
  check_distinct(slots, count, "slot out of range", "slot named twice", where);
}

void check_order(std::span<const int32_t> order, int64_t len, const std::string& where) {
  if (static_cast<int64_t>(order.size()) != len) {
    throw Error({"wrong number of tokens", where + ": order", std::to_string(len),
                 std::to_string(order.size())});
  }
  check_distinct(order, len, "token out of range", "token visited twice", where + ": order");
}

}  // namespace adder
