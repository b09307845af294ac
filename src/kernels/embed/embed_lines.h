// Private to the room: how the work is cut, and the functions behind the table lines.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/simd_line.h"
#include "kernels/embed/embed.h"

namespace adder {

/// Cuts by shape only. forward: rows. backward: stretches of the rows sorted by id, times columns
/// (a frequent id must not keep one core busy alone); an element of dtable has one writer.
struct EmbedBlocks {
  static constexpr int64_t kElements = 1 << 14;  // least work worth an item
  static constexpr int64_t kColumns = 256;       // of one item of backward
  static constexpr int64_t kSerial = 1 << 15;    // elements below which a thread team costs more

  int64_t rows;  // of one item
  int64_t row_items;
  int64_t column_items;

  EmbedBlocks(const EmbedShape& shape, int64_t columns)
      : rows(std::max<int64_t>(1, kElements / std::min(columns, shape.width))),
        row_items((shape.rows + rows - 1) / rows),
        column_items((shape.width + columns - 1) / columns) {}

  static int threads(const EmbedShape& shape, int available) {
    return shape.rows * shape.width < kSerial ? 1 : available;
  }
};

template <class T, class P>
void embed_gather_forward(const EmbedShape&, const EmbedForward<T, P>&, Exec);
template <class T>
void embed_sorted_backward(const EmbedShape&, const EmbedBackward<T>&, Exec);

}  // namespace adder
