// Work and memory of the chunked lines. No arithmetic here.
//
//   block  a few heads of one group: they share the scores C_i . B_j of a chunk
//   walk   an item is (row, block): it takes the chunks of its row one after the other and keeps
//          the states of its heads at hand
//   split  where rows are too few: an item is (chunk, block), in three passes: what each chunk adds
//          to the state, the pass over chunks, what each chunk gives out
//
// Blocks depend on the shape alone; walk and split do the same sums in the same order, so that the
// bits do not depend on which one runs.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/buffer.h"
#include "core/context.h"
#include "kernels/ssd/ssd_plan.h"

namespace adder::ssd {

/// Longest chunk of the chunked lines: scores of a chunk stay in the second cache.
inline constexpr int64_t kMaxChunk = 512;
/// Rows times groups from which on a block is a whole group, and the heads of a block below that.
inline constexpr int64_t kManyRows = 8;
inline constexpr int64_t kBlockHeads = 6;
/// Rows and columns of scratch are whole words of every target and whole blocks of a matrix unit.
inline constexpr int64_t kRowBlock = 32;
inline constexpr int64_t kColumnBlock = 32;

constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
/// Elements from row to row: whole multiples of 256 bytes would share few sets of the first cache.
constexpr int64_t padded_row(int64_t cols) {
  const int64_t whole = round_up(cols, kColumnBlock);
  return whole % 64 == 0 ? whole + 16 : whole;
}

/// The heads of a group are cut into blocks.
struct HeadBlocks {
  explicit HeadBlocks(const SsdShape& shape) : group_heads(shape.heads / shape.groups) {
    const bool many = shape.state_rows() * shape.groups >= kManyRows;
    per_group = many ? 1 : ceil_div(group_heads, kBlockHeads);
    heads = ceil_div(group_heads, per_group);
    per_group = ceil_div(group_heads, heads);
    count = shape.groups * per_group;
  }
  int64_t group_heads;
  int64_t per_group;  // blocks
  int64_t heads;      // of a block; the last one of a group may have fewer
  int64_t count;      // blocks of all groups
};

struct ChunkSizes {
  explicit ChunkSizes(const SsdShape& shape)
      : tokens(round_up(std::max<int64_t>(std::min(shape.chunk, shape.len), 1), kRowBlock)),
        head_dim(shape.head_dim),
        state(shape.state),
        channels(round_up(shape.head_dim, kColumnBlock)),
        states(round_up(shape.state, kColumnBlock)),
        token_row(padded_row(tokens)),
        channel_row(padded_row(shape.head_dim)),
        state_row(padded_row(shape.state)),
        head_row(round_up(HeadBlocks(shape).heads, kColumnBlock)) {}

  int64_t tokens;                             // of the longest chunk, padded
  int64_t head_dim;                           // P
  int64_t state;                              // N
  int64_t channels;                           // P, padded
  int64_t states;                             // N, padded
  int64_t token_row, channel_row, state_row;  // elements from row to row of scratch matrices
  int64_t head_row;                           // heads of a block, padded

  int64_t token_channels() const { return tokens * channel_row; }
  int64_t token_states() const { return tokens * state_row; }
  int64_t scores() const { return tokens * token_row; }
  int64_t channel_states() const { return channels * state_row; }
};

/// Scratch is held for so many workers, whatever the number of threads, so that a plan serves any:
/// threads beyond the cores gain nothing, and a call leaves them idle.
inline int chunk_workers() {
  static const int cores = available_threads();
  return cores;
}
/// True where rows are enough for `threads` (at most chunk_workers()) to walk. Packed rows differ
/// in length: then it takes more of them.
inline bool chunk_walks(const SsdShape& shape, int threads) {
  const int64_t items = shape.state_rows() * HeadBlocks(shape).count;
  return threads <= 1 || items >= (shape.packed() ? 8 : 2) * threads;
}

/// Takes arrays one after the other from a block, or only counts (base == nullptr).
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <class U>
  void take(U*& out, int64_t count) {
    out = base_ == nullptr ? nullptr : reinterpret_cast<U*>(base_ + used_);
    used_ += align_up(count * static_cast<int64_t>(sizeof(U)));
  }
  int64_t used() const { return used_; }

 private:
  std::byte* base_;
  int64_t used_ = 0;
};

}  // namespace adder::ssd
