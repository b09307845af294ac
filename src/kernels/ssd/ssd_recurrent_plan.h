// How the linear form is cut into work: by shape alone. No arithmetic here.
//
//   run     up to kRun consecutive tokens of one chunk
//   block   up to kChannels channels of one head
//   share   consecutive blocks of one group: they read the same rows of B and C
//   bundle  consecutive sequences that one item takes one after the other; an item is a bundle of
//           one share
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/buffer.h"
#include "kernels/ssd/ssd_plan.h"

namespace adder::ssd {

inline constexpr int64_t kRun = 32;
/// Backward keeps the states of a run: with B, C and their gradients they fit the first cache.
inline constexpr int64_t kSweepRun = 16;
inline constexpr int64_t kChannels = 32;
/// Words of partial sums that wait for their sum over lanes.
inline constexpr int64_t kSums = 128;
/// Enough items for any CPU, few enough states in scratch.
inline constexpr int64_t kMaxBundles = 32;

/// Items that a call should have at least: B and C are read once for each.
inline constexpr int64_t kItems = 8;

/// Some channels of one head.
struct Block {
  int64_t head;
  int64_t first;  // channel within the head
  int64_t count;
};

class RecurrentCut {
 public:
  explicit RecurrentCut(const SsdShape& shape)
      : shape_(shape),
        head_blocks_(ceil_div(shape.head_dim, kChannels)),
        group_blocks_(shape.heads / shape.groups * head_blocks_),
        bundles_(std::min(shape.state_rows(), kMaxBundles)) {
    const int64_t all = bundles_ * shape.groups * group_blocks_;
    // A token alone reads little of B and C: then every block is an item.
    share_ = shape.len <= 1 ? 1 : std::clamp<int64_t>(all / kItems, 1, group_blocks_);
    group_shares_ = ceil_div(group_blocks_, share_);
  }
  int64_t bundles() const { return bundles_; }
  int64_t shares() const { return shape_.groups * group_shares_; }
  int64_t items() const { return bundles_ * shares(); }
  int64_t group(int64_t share) const { return share / group_shares_; }
  /// Blocks of a share: block(share, 0) to block(share, blocks(share) - 1).
  int64_t blocks(int64_t share) const {
    return std::min(share_, group_blocks_ - share % group_shares_ * share_);
  }
  Block block(int64_t share, int64_t index) const {
    const int64_t at = share % group_shares_ * share_ + index;
    const int64_t first = at % head_blocks_ * kChannels;
    return {group(share) * (shape_.heads / shape_.groups) + at / head_blocks_, first,
            std::min(kChannels, shape_.head_dim - first)};
  }
  /// Sequences of bundle i: [first_row(i), first_row(i + 1)).
  int64_t first_row(int64_t bundle) const { return bundle * shape_.state_rows() / bundles_; }
  /// Longest run.
  int64_t run() const { return std::min({kRun, shape_.chunk, std::max<int64_t>(shape_.len, 1)}); }

 private:
  const SsdShape& shape_;
  int64_t head_blocks_, group_blocks_, bundles_;
  int64_t share_ = 1, group_shares_ = 1;
};

/// Backward: an item is a bundle of some heads of one group, since gradients of delta sum over the
/// channels of a head and those of B and C over the heads of a group. Each share of a group keeps
/// its own sums over heads; they are added in order.
class RecurrentBackwardCut {
 public:
  explicit RecurrentBackwardCut(const SsdShape& shape)
      : shape_(shape),
        group_heads_(shape.heads / shape.groups),
        bundles_(std::min(shape.state_rows(), kMaxBundles)) {
    const int64_t wanted = ceil_div(kItems, std::max<int64_t>(bundles_ * shape.groups, 1));
    share_heads_ = ceil_div(group_heads_, std::min(group_heads_, wanted));
    group_shares_ = ceil_div(group_heads_, share_heads_);
  }
  int64_t bundles() const { return bundles_; }
  int64_t group_shares() const { return group_shares_; }
  int64_t share_heads() const { return share_heads_; }
  int64_t shares() const { return shape_.groups * group_shares_; }
  int64_t items() const { return bundles_ * shares(); }
  int64_t group(int64_t share) const { return share / group_shares_; }
  int64_t first_head(int64_t share) const {
    return group(share) * group_heads_ + share % group_shares_ * share_heads_;
  }
  int64_t heads(int64_t share) const {
    return std::min(share_heads_, group_heads_ - share % group_shares_ * share_heads_);
  }
  int64_t first_row(int64_t bundle) const { return bundle * shape_.state_rows() / bundles_; }
  /// Longest chunk.
  int64_t tokens() const { return std::min(shape_.chunk, std::max<int64_t>(shape_.len, 1)); }

 private:
  const SsdShape& shape_;
  int64_t group_heads_, bundles_;
  int64_t share_heads_ = 1, group_shares_ = 1;
};

/// States in whole words of the widest target: an upper bound for every target.
template <class C>
int64_t padded_states(const SsdShape& shape) {
  const int64_t lanes = kAlignment / static_cast<int64_t>(sizeof(C));
  return ceil_div(shape.state, lanes) * lanes;
}

/// Channels of a head in whole words of every target.
template <class C>
int64_t padded_channels(const SsdShape& shape) {
  const int64_t lanes = kAlignment / static_cast<int64_t>(sizeof(C));
  return ceil_div(shape.head_dim, lanes) * lanes;
}

template <class C>
int64_t block_bytes(int64_t count) {
  return align_up(count * static_cast<int64_t>(sizeof(C)));
}

}  // namespace adder::ssd
