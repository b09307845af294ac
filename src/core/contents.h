// Checks of the integers in the arrays of a call: token ids, targets, boundaries, slots, orders.
// They are made once, on the host, where the arrays enter the engine; kernels and their doors rely
// on them. Every failure is an Error whose message begins with `where`. Thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace adder {

/// Every id is in [0, vocab); the message counts positions from `first` on.
void check_ids(std::span<const int32_t> ids, int64_t vocab, const std::string& where,
               int64_t first = 0);
/// Every target is in [0, vocab) or `ignored`.
void check_targets(std::span<const int32_t> targets, int64_t vocab, int32_t ignored,
                   const std::string& where);
/// cu_seqlens ascends from 0 to `len` and has at least two entries.
void check_boundaries(std::span<const int32_t> cu_seqlens, int64_t len, const std::string& where);
/// Every slot is in [0, slots) and none is named twice: two rows would write one state.
void check_slots(std::span<const int32_t> slots, int64_t count, const std::string& where);
/// `order` is a permutation of [0, len).
void check_order(std::span<const int32_t> order, int64_t len, const std::string& where);

}  // namespace adder
