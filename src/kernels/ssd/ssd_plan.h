// How a call of SSD is cut into chunks of tokens: by shape (and cu_seqlens) alone, so that the bits
// do not depend on the number of threads. Shared by all lines; no arithmetic here.
//
// A chunk is up to shape.chunk consecutive steps of one sequence; none straddles a boundary, so
// that no masks are needed and every sequence has its own h0 and hT (math.md 0.6).
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/ssd/ssd.h"

namespace adder::ssd {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Chunk {
  int64_t row;    // of ghT and dh0; of h0 and hT through state_index
  int64_t batch;  // of the token views
  int64_t begin;  // steps [begin, end) of that batch row
  int64_t end;
  // Index of its entering state in `saved`, counted over all batch rows. That of a chunk without
  // tokens is never read or written.
  int64_t saved;
  bool first;  // of its sequence
  bool last;

  int64_t count() const { return end - begin; }
};

/// Index in `saved` of the state that enters a sequence, counted over all batch rows.
inline int64_t first_saved(const SsdShape& shape, int64_t begin, int64_t row) {
  return shape.packed() ? begin / shape.chunk + row : row * shape.saved_chunks();
}

/// How many entries list_chunks may write: an upper bound, exact when not packed. Every sequence
/// has at least one chunk; that of an empty sequence has no tokens.
inline int64_t max_chunks(const SsdShape& shape) {
  const int64_t full = ceil_div(shape.len, shape.chunk);
  return shape.packed() ? full + shape.sequences : shape.batch * std::max<int64_t>(full, 1);
}

/// Writes the chunks of all sequences in order and returns their number. The chunks of one
/// sequence follow each other, `first` at its head and `last` at its tail.
inline int64_t list_chunks(const SsdShape& shape, const int32_t* cu_seqlens, Chunk* out) {
  int64_t count = 0;
  for (int64_t row = 0; row < shape.state_rows(); ++row) {
    const int64_t begin = shape.packed() ? cu_seqlens[row] : 0;
    const int64_t end = shape.packed() ? cu_seqlens[row + 1] : shape.len;
    int64_t at = begin, saved = first_saved(shape, begin, row);
    do {
      const int64_t stop = std::min(at + shape.chunk, end);
      out[count++] = {row, shape.packed() ? 0 : row, at, stop, saved++, at == begin, stop == end};
      at = stop;
    } while (at < end);
  }
  return count;
}

/// The whole sequence of a row, as one entry: saved is that of its first chunk.
inline Chunk whole_sequence(const SsdShape& shape, const int32_t* cu_seqlens, int64_t row) {
  const int64_t begin = shape.packed() ? cu_seqlens[row] : 0;
  const int64_t end = shape.packed() ? cu_seqlens[row + 1] : shape.len;
  return {row, shape.packed() ? 0 : row, begin, end, first_saved(shape, begin, row), true, true};
}

/// Stores a gradient that a call writes or, where it accumulates, adds to what is there.
template <class C>
void put_gradient(bool accumulate, C sum, C* to) {
  *to = accumulate ? *to + sum : sum;
}

}  // namespace adder::ssd
