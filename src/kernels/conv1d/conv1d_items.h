// Private to the room: items of work and the stretches of sequences inside them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/conv1d/conv1d_lines.h"

namespace adder {

// Tokens [first, last) of the sequence [begin, end) in batch row b; r is its state row.
struct Conv1dSpan {
  int64_t b, r, begin, end, first, last;
  int64_t tokens() const { return last - first; }
};

// One (row, time tile, channel tile).
struct Conv1dItem {
  int64_t b, time_tile, first, last, channel, channel_end;

  Conv1dItem(const Conv1dShape& shape, const Conv1dTiles& tiles, int64_t item) {
    const int64_t channel_tile = item % tiles.channel_tiles;
    time_tile = item / tiles.channel_tiles;
    b = time_tile / tiles.time_tiles;
    first = time_tile % tiles.time_tiles * tiles.tokens;
    last = std::min(first + tiles.tokens, shape.len);
    channel = channel_tile * Conv1dTiles::kChannels;
    channel_end = std::min(channel + Conv1dTiles::kChannels, shape.channels);
  }
};

// Calls visit(span) for every piece of a sequence inside the item, in order of tokens.
template <class Visit>
void visit_spans(const Conv1dShape& shape, const int32_t* cu, const Conv1dItem& item, int64_t piece,
                 const Visit& visit) {
  const auto visit_pieces = [&](Conv1dSpan span, int64_t last) {
    for (; span.first < last; span.first += piece) {
      span.last = std::min(span.first + piece, last);
      visit(span);
    }
  };
  if (!shape.packed()) {
    visit_pieces({item.b, item.b, 0, shape.len, item.first, 0}, item.last);
    return;
  }
  const auto* after =
      std::upper_bound(cu, cu + shape.sequences + 1, static_cast<int32_t>(item.first));
  for (int64_t q = after - cu - 1; q < shape.sequences && cu[q] < item.last; ++q) {
    const int64_t begin = cu[q], end = cu[q + 1];
    visit_pieces({0, q, begin, end, std::max(begin, item.first), 0}, std::min(end, item.last));
  }
}

template <class T>
int64_t state_slot(const Conv1dInputs<T>& in, int64_t r) {
  return in.state_index != nullptr ? in.state_index[r] : r;
}

template <class T>
T* token_row(const TokenView<T>& view, const int32_t* order, int64_t b, int64_t t) {
  return view.row(b, order != nullptr ? order[t] : t);
}

}  // namespace adder
