// Scratch memory of the chunked lines: the arrays of one worker and of one call. Pointers only.
#pragma once

#include "core/dtype.h"
#include "kernels/ssd/ssd_chunk_plan.h"

namespace adder::ssd {

/// Steps of one chunk, all heads of a block. cs is the inclusive sum of delta A, kept as a pair
/// cs + cs_low: a difference of two sums keeps its digits after a large step (math.md 0.5).
template <class C>
struct ChunkSteps {
  C* by_token;  // (4, tokens, head_row): scratch; the last is the slope, kept for backward
  C *delta, *cs, *cs_low;  // (head_row, tokens)

  static void carve(const ChunkSizes& sizes, Carver& carver, ChunkSteps* out) {
    const int64_t count = sizes.tokens * sizes.head_row;
    carver.take(out->by_token, 4 * count);
    carver.take(out->delta, count);
    carver.take(out->cs, count);
    carver.take(out->cs_low, count);
  }
};

/// While no sum of a chunk lies further than this from the middle, mid = cs_last / 2, the decay
/// e^(cs_i - cs_j) is the product of rise_i = e^(cs_i - mid) and fall_j = e^(mid - cs_j): both far
/// inside the range of a float, so that rows and columns are scaled in place of scores. Steep
/// chunks form every decay.
inline constexpr double kMildRange = 40;

/// Decays of one head in one chunk. Every array has (tokens) elements.
///
///               mild                steep
///   rise_i      e^(cs_i - mid)      e^cs_i
///   fall_j      e^(mid - cs_j)      e^(cs_last - cs_j)
///   entering    e^mid               1
///   leaving     e^(cs_last - mid)   1
///
/// The entering state reaches token i with the factor entering rise_i, and the input of token j
/// reaches the leaving state with the factor fall_j leaving, in both kinds of chunks.
template <class C>
struct ChunkDecays {
  C *rise, *fall;
  C* weight;  // delta_j fall_j
  C* across;  // scratch of form_decays
  const C *delta, *cs, *cs_low;
  C whole;  // e^cs_last
  C entering, leaving;
  bool mild;

  static void carve(const ChunkSizes& sizes, Carver& carver, ChunkDecays* out) {
    carver.take(out->rise, sizes.tokens);
    carver.take(out->fall, sizes.tokens);
    carver.take(out->weight, sizes.tokens);
    carver.take(out->across, sizes.tokens);
  }
};

/// Scratch of one worker.
template <class C>
struct ForwardSpace {
  ChunkSteps<C> steps;
  ChunkDecays<C> decays;
  C *B, *C_rows;                   // (tokens, state_row)
  C* scores;                       // (tokens, token_row): C_i . B_j
  C *x, *y;                        // (tokens, channel_row)
  C* added;                        // (channels, state_row)
  C *masked, *C_scaled, *x_steep;  // steep chunks
  C *masked_left, *C_scaled_left;
  C *B_t, *C_left, *B_right, *scores_left;  // operands of a group
  C *x_right, *x_left, *entering;           // operands of a head

  static void carve(const ChunkSizes& sizes, Carver& carver, ForwardSpace* out) {
    ChunkSteps<C>::carve(sizes, carver, &out->steps);
    ChunkDecays<C>::carve(sizes, carver, &out->decays);
    for (C** scores : {&out->scores, &out->masked, &out->scores_left, &out->masked_left}) {
      carver.take(*scores, sizes.scores());
    }
    for (C** rows : {&out->B, &out->C_rows, &out->C_scaled, &out->C_left, &out->B_right,
                     &out->C_scaled_left}) {
      carver.take(*rows, sizes.token_states());
    }
    for (C** rows : {&out->x, &out->y, &out->x_right, &out->x_steep}) {
      carver.take(*rows, sizes.token_channels());
    }
    carver.take(out->B_t, sizes.states * sizes.token_row);
    carver.take(out->x_left, sizes.channels * sizes.token_row);
    carver.take(out->added, sizes.channel_states());
    carver.take(out->entering, sizes.states * sizes.channel_row);
  }
};

/// Chunks of a call, and the index of the first one of each row.
struct ChunkList {
  Chunk* chunks;
  int64_t* first;  // (state_rows + 1)
  int64_t count = 0;

  static void carve(const SsdShape& shape, Carver& carver, ChunkList* out) {
    carver.take(out->chunks, max_chunks(shape));
    carver.take(out->first, shape.state_rows() + 1);
  }
  void fill(const SsdShape& shape, const int32_t* cu_seqlens) {
    count = list_chunks(shape, cu_seqlens, chunks);
    int64_t row = 0;
    for (int64_t i = 0; i < count; ++i) {
      if (chunks[i].first) first[row++] = i;
    }
    first[row] = count;
  }
};

/// The scratch of every worker.
template <class Space>
struct WorkerSpaces {
  ChunkSizes sizes;
  int64_t bytes;
  std::byte* base;

  WorkerSpaces(const SsdShape& shape, Carver& carver) : sizes(shape) {
    Space space;
    Carver one(nullptr);
    Space::carve(sizes, one, &space);
    bytes = one.used();
    carver.take(base, chunk_workers() * bytes);
  }
  Space of(int worker) const {
    Space out;
    Carver carver(base + worker * bytes);
    Space::carve(sizes, carver, &out);
    return out;
  }
};

/// Scratch of a forward call: counts it where base is nullptr.
template <class T>
struct ForwardScratch {
  using C = accumulate_t<T>;
  Carver carver;
  ChunkList list;
  C* states;      // entering states, where the caller does not keep them: one a row or one a chunk
  C* last_added;  // (state_rows, state_elements): the last chunks add this to hT
  C* whole;       // (chunks, heads): e^cs_last
  WorkerSpaces<ForwardSpace<C>> workers;

  ForwardScratch(const SsdShape& shape, std::byte* base)
      : carver(base), workers(carve(shape), carver) {}

 private:
  const SsdShape& carve(const SsdShape& shape) {
    const bool walks = chunk_walks(shape, chunk_workers());
    const int64_t rows = shape.state_rows() * shape.state_elements();
    ChunkList::carve(shape, carver, &list);
    carver.take(states, walks ? rows : std::max(rows, shape.saved_elements()));
    carver.take(last_added, walks ? 0 : rows);
    carver.take(whole, walks ? 0 : max_chunks(shape) * shape.heads);
    return shape;
  }
};

/// Scratch of one worker in backward.
template <class C>
struct BackwardSpace {
  ChunkSteps<C> steps;
  ChunkDecays<C> decays;
  C *B, *C_rows, *dB, *dC, *through;  // (tokens, state_row)
  C *scores, *dscores;                // (tokens, token_row): C_i . B_j and its gradient
  C* pairs;                           // (tokens, token_row): gy_i . x_j, scaled
  C *x, *gy, *dx, *y;                 // (tokens, channel_row)
  C *entering, *added;                // (channels, state_row)
  C *x_steep, *gy_steep, *decay, *masked, *B_scaled;   // steep chunks
  C *column, *crossing, *out_part, *in_part, *direct;  // (tokens): of one head
  C* ddelta;                                           // (head_row, tokens)
  // Operands.
  C *B_t, *C_left, *B_left, *C_right, *B_right, *scores_left, *scores_left_t;
  C *x_left, *x_t, *x_right, *gy_left, *gy_left_t, *gy_right, *gy_steep_left;
  C *masked_left, *B_scaled_left, *entering_right, *entering_t, *leaving_right, *leaving_t;

  static void carve(const ChunkSizes& sizes, Carver& carver, BackwardSpace* out) {
    ChunkSteps<C>::carve(sizes, carver, &out->steps);
    ChunkDecays<C>::carve(sizes, carver, &out->decays);
    for (C** rows :
         {&out->B, &out->C_rows, &out->dB, &out->dC, &out->through, &out->B_scaled, &out->C_left,
          &out->B_left, &out->C_right, &out->B_right, &out->B_scaled_left}) {
      carver.take(*rows, sizes.token_states());
    }
    for (C** scores : {&out->scores, &out->dscores, &out->pairs, &out->decay, &out->masked,
                       &out->scores_left, &out->scores_left_t, &out->masked_left}) {
      carver.take(*scores, sizes.scores());
    }
    for (C** rows :
         {&out->x, &out->gy, &out->dx, &out->y, &out->x_steep, &out->gy_steep, &out->x_left,
          &out->x_right, &out->gy_left, &out->gy_right, &out->gy_steep_left}) {
      carver.take(*rows, sizes.token_channels());
    }
    for (C** channels : {&out->x_t, &out->gy_left_t}) {
      carver.take(*channels, sizes.channels * sizes.token_row);
    }
    for (C** states : {&out->entering, &out->added, &out->entering_right, &out->leaving_right}) {
      carver.take(*states, sizes.channel_states());
    }
    for (C** states : {&out->entering_t, &out->leaving_t}) {
      carver.take(*states, sizes.states * sizes.channel_row);
    }
    carver.take(out->B_t, sizes.states * sizes.token_row);
    for (C** tokens : {&out->column, &out->crossing, &out->out_part, &out->in_part, &out->direct}) {
      carver.take(*tokens, sizes.tokens);
    }
    carver.take(out->ddelta, sizes.head_row * sizes.tokens);
  }
};

/// Scratch of a backward call.
template <class T>
struct BackwardScratch {
  using C = accumulate_t<T>;
  Carver carver;
  ChunkList list;
  C* gradients;          // (rows or chunks, heads, head_dim, state_row): of the state that leaves
  C* whole;              // (chunks, heads): e^cs_last
  C *dA, *dt_bias, *dD;  // (chunks, heads), (chunks, d_elements): parts
  C *dB, *dC;            // (blocks of a group, batch, len, groups * state): parts, if not one
  WorkerSpaces<BackwardSpace<C>> workers;

  BackwardScratch(const SsdShape& shape, std::byte* base)
      : carver(base), workers(carve(shape), carver) {}

 private:
  const SsdShape& carve(const SsdShape& shape) {
    const bool walks = chunk_walks(shape, chunk_workers());
    const int64_t most = max_chunks(shape), blocks = HeadBlocks(shape).per_group;
    ChunkList::carve(shape, carver, &list);
    carver.take(gradients, (walks ? shape.state_rows() : most) * shape.heads * shape.head_dim *
                               ChunkSizes(shape).state_row);
    carver.take(whole, walks ? 0 : most * shape.heads);
    carver.take(dA, most * shape.heads);
    carver.take(dt_bias, most * shape.heads);
    carver.take(dD, most * shape.d_elements());
    const int64_t shared = shape.batch * shape.len * shape.groups * shape.state;
    carver.take(dB, blocks > 1 ? blocks * shared : 0);
    carver.take(dC, blocks > 1 ? blocks * shared : 0);
    return shape;
  }
};

}  // namespace adder::ssd
