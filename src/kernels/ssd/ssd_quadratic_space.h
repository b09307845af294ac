// Work and scratch of the quadratic form: by shape alone. Rows of the batch (or packed sequences)
// are taken one after the other; a row's matrix is taken in blocks of kBlock rows, shared out over
// kSlots items, in strips of kStrip columns, so that scratch grows with the length, never with its
// square.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/context.h"
#include "kernels/ssd/ssd_plan.h"
#include "kernels/ssd/ssd_recurrent_space.h"

namespace adder::ssd {

/// Longest row that the line takes.
inline constexpr int64_t kQuadraticTokens = 65536;
inline constexpr int64_t kBlock = 32;
inline constexpr int64_t kSlots = 8;
inline constexpr int64_t kStrip = 1024;
/// Added to rows whose length is a power of two: those would share few sets of the caches.
inline constexpr int64_t kRowPadding = 16;

/// Rows of a matrix whose rows are `stride` elements apart.
template <class C>
struct Matrix {
  C* at = nullptr;
  int64_t stride = 0;

  C* row(int64_t i) const { return at + i * stride; }
  Matrix from(int64_t first_row) const { return {row(first_row), stride}; }
  Matrix columns(int64_t first) const { return {at + first, stride}; }
};

/// One row of the batch in the compute type, dense: one matrix for each head or group, and what the
/// items of a group work on.
template <class C>
struct QuadraticSpace {
  int64_t len, tokens, states, channels;  // the last three in whole words
  int64_t token_row, strip_row;           // elements from row to row of (.., tokens) and of strips
  int64_t head_dim, group_heads;
  // By head, (tokens): delta, d delta / d dt, delta A, e^(its sum up to t), e^(its sum after t).
  C *delta, *slope, *log_decay, *entering, *fall;
  C *x, *gy, *v, *y;     // by head, (len, channels)
  C *xt, *gyt;           // by head, (channels, token_row)
  C *h0, *u;             // by head, (head_dim, states): u the gradient of hT
  C *h0t, *ut;           // by head, (states, channels)
  C *B, *weights;        // by group, (len, states): weights are C of the equations
  C *Bt, *weights_t;     // by group, (states, token_row)
  C *dB, *dC;            // by group, (len, states)
  C *across, *out, *in;  // by head, (tokens): what crosses into token m; of h0; of hT
  C* straddle;           // by slot and head, (tokens): of pairs of tokens
  C* columns;            // by slot and head of a group, (tokens)
  C *diagonal, *rows;    // by slot and head of a group, (kBlock, kBlock), (2, kBlock)
  C *scores, *form, *products, *group_form;  // by slot, (kBlock, strip_row)
  C *column_sums, *state_rows;               // by slot, (kStrip), (kBlock, channels)
  C* sums;                                   // by head: dA, ddt_bias, then (channels) of dD
  int64_t bytes;

  QuadraticSpace(const SsdShape& shape, Direction direction, std::byte* base)
      : len(shape.len), head_dim(shape.head_dim), group_heads(shape.heads / shape.groups) {
    constexpr int64_t kWord = kAlignment / static_cast<int64_t>(sizeof(C));
    tokens = ceil_div(std::max<int64_t>(len, 1), kBlock) * kBlock;
    states = padded_states<C>(shape);
    channels = padded_channels<C>(shape);
    token_row = tokens + kRowPadding;
    strip_row = std::min(tokens, kStrip) + kRowPadding;
    const bool backward = direction == Direction::backward;
    const int64_t H = shape.heads, G = shape.groups;
    ArrayList<C> list(base);
    for (C** steps : {&delta, &slope, &log_decay, &entering, &fall}) *steps = list.take(H * tokens);
    for (C** by_token : {&x, &y}) *by_token = list.take(H * tokens * channels);
    for (C** by_token : {&gy, &v}) *by_token = list.take(backward ? H * tokens * channels : 0);
    for (C** turned : {&xt, &gyt}) *turned = list.take(backward ? H * channels * token_row : 0);
    for (C** state : {&h0, &u}) *state = list.take(H * head_dim * states);
    for (C** state : {&h0t, &ut}) *state = list.take(H * states * channels);
    for (C** shared : {&B, &weights}) *shared = list.take(G * tokens * states);
    for (C** shared : {&Bt, &weights_t}) *shared = list.take(G * states * token_row);
    for (C** shared : {&dB, &dC}) *shared = list.take(backward ? G * tokens * states : 0);
    for (C** sum : {&across, &out, &in}) *sum = list.take(backward ? H * tokens : 0);
    straddle = list.take(backward ? kSlots * H * tokens : 0);
    columns = list.take(kSlots * group_heads * tokens);
    diagonal = list.take(kSlots * group_heads * kBlock * kBlock);
    rows = list.take(kSlots * group_heads * 2 * kBlock);
    for (C** block : {&scores, &form, &products, &group_form}) {
      *block = list.take(kSlots * kBlock * strip_row);
    }
    column_sums = list.take(kSlots * kStrip);
    state_rows = list.take(kSlots * kBlock * channels);
    sums = list.take(H * (kWord + channels));
    bytes = list.bytes();
  }

  C* by_head(C* base, int64_t head) const { return base + head * tokens; }
  Matrix<C> token_channels(C* base, int64_t head) const {
    return {base + head * tokens * channels, channels};
  }
  Matrix<C> channel_tokens(C* base, int64_t head) const {
    return {base + head * channels * token_row, token_row};
  }
  Matrix<C> channel_states(C* base, int64_t head) const {
    return {base + head * head_dim * states, states};
  }
  Matrix<C> state_channels(C* base, int64_t head) const {
    return {base + head * states * channels, channels};
  }
  Matrix<C> token_states(C* base, int64_t group) const {
    return {base + group * tokens * states, states};
  }
  Matrix<C> state_tokens(C* base, int64_t group) const {
    return {base + group * states * token_row, token_row};
  }
  Matrix<C> block(C* base, int64_t slot) const {
    return {base + slot * kBlock * strip_row, strip_row};
  }
  C* slot_sums(int64_t slot, int64_t head, int64_t heads) const {
    return straddle + (slot * heads + head) * tokens;
  }
  C* head_sums(int64_t head) const {
    constexpr int64_t kWord = kAlignment / static_cast<int64_t>(sizeof(C));
    return sums + head * (kWord + channels);
  }
};

}  // namespace adder::ssd
