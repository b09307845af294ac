// Scratch of the linear form's backward: one list of arrays, counted and carved alike. Rows of
// states and channels are padded to whole words of every target.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "kernels/ssd/ssd_recurrent_plan.h"

namespace adder::ssd {

/// Words of the widest target that a row of the checkpoints may take (16 registers).
inline constexpr int64_t kCheckpointWords = 16;

/// Takes arrays one after the other, or only counts their bytes.
template <class C>
class ArrayList {
 public:
  explicit ArrayList(std::byte* base) : base_(base) {}
  C* take(int64_t count) {
    C* array = base_ == nullptr ? nullptr : reinterpret_cast<C*>(base_ + bytes_);
    bytes_ += block_bytes<C>(count);
    return array;
  }
  int64_t bytes() const { return bytes_; }

 private:
  std::byte* base_;
  int64_t bytes_ = 0;
};

/// One item works on these: a chunk of one head, and the gradients of its heads' states.
template <class C>
struct BackwardItemSpace {
  int64_t state_row, channel_row;
  C* mu;           // (heads of the share, head_dim, state_row)
  C* entering;     // (head_dim, state_row)
  C* B;            // (tokens, state_row), pass after pass
  C* weights;      // as B
  C* delta;        // (tokens)
  C* decay;        // (tokens)
  C* slope;        // (tokens)
  C* dx;           // (tokens, channel_row)
  C* gy;           // (tokens, channel_row)
  C* v;            // (tokens, channel_row)
  C* y;            // (tokens, channel_row)
  C* through;      // (tokens, one word of the widest target)
  C* checkpoints;  // (runs, kCheckpointWords words of the widest target)
  int64_t bytes;

  BackwardItemSpace(const SsdShape& shape, const RecurrentBackwardCut& cut, std::byte* base)
      : state_row(padded_states<C>(shape)), channel_row(padded_channels<C>(shape)) {
    constexpr int64_t kWord = kAlignment / static_cast<int64_t>(sizeof(C));
    ArrayList<C> list(base);
    const int64_t tokens = cut.tokens(), whole = ceil_div(tokens, kWord) * kWord;
    mu = list.take(cut.share_heads() * shape.head_dim * state_row);
    entering = list.take(shape.head_dim * state_row);
    for (C** rows : {&B, &weights}) *rows = list.take(tokens * state_row);
    for (C** steps : {&delta, &decay, &slope}) *steps = list.take(whole);
    for (C** rows : {&dx, &gy, &v, &y}) *rows = list.take(tokens * channel_row);
    through = list.take(tokens * kWord);
    checkpoints = list.take(ceil_div(tokens, kSweepRun) * kCheckpointWords * kWord);
    bytes = list.bytes();
  }
};

/// Sums of all items, and where each item works.
template <class C>
struct RecurrentBackwardSpace {
  int64_t state_row, channel_row;
  C* dB;         // (shares, batch, len, state_row)
  C* dC;         // as dB
  C* head_sums;  // (bundles, heads, 2): dA, ddt_bias
  C* dD;         // (bundles, heads, channel_row)

  RecurrentBackwardSpace(const SsdShape& shape, const RecurrentBackwardCut& cut, Exec* exec)
      : state_row(padded_states<C>(shape)),
        channel_row(padded_channels<C>(shape)),
        shape_(shape),
        cut_(cut) {
    ArrayList<C> list(exec != nullptr ? exec->scratch : nullptr);
    const int64_t rows = cut.shares() * shape.batch * shape.len * state_row;
    dB = list.take(rows);
    dC = list.take(rows);
    head_sums = list.take(cut.bundles() * shape.heads * 2);
    dD = list.take(cut.bundles() * shape.heads * channel_row);
    items_ = exec != nullptr ? exec->scratch + list.bytes() : nullptr;
    bytes_ = list.bytes() + cut.items() * item(0).bytes;
  }
  BackwardItemSpace<C> item(int64_t index) const {
    const BackwardItemSpace<C> counted(shape_, cut_, nullptr);
    if (items_ == nullptr) return counted;
    return BackwardItemSpace<C>(shape_, cut_, items_ + index * counted.bytes);
  }
  int64_t bytes() const { return bytes_; }

 private:
  const SsdShape& shape_;
  const RecurrentBackwardCut& cut_;
  std::byte* items_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace adder::ssd
