// Private to the room: how rows are cut into blocks, and the functions behind the table lines.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/simd_line.h"
#include "kernels/norm/norm.h"

namespace adder {

/// Blocks of rows: by shape only. A block owns a few row buffers and, in backward, the partial sums
/// of dw and db over its rows; the partials of all blocks are added in index order.
struct NormBlocks {
  static constexpr int64_t kMost = 128;          // bounds scratch; enough for many cores
  static constexpr int64_t kElements = 1 << 13;  // least work worth an item
  static constexpr int64_t kSerial = 1 << 15;    // elements below which a thread team costs more
  static constexpr int64_t kColumns = 256;       // of one item of the final sums

  int64_t rows;  // of one block
  int64_t blocks;
  int64_t padded;  // width rounded up to whole vectors of any target

  NormBlocks(int64_t all_rows, int64_t width)
      : rows(std::max((all_rows + kMost - 1) / kMost, (kElements + width - 1) / width)),
        blocks((all_rows + rows - 1) / rows),
        padded((width + 15) / 16 * 16) {}

  static int threads(int64_t all_rows, int64_t width, int available) {
    return all_rows * width < kSerial ? 1 : available;
  }
};

// Row buffers and partial rows of one block, in units of `padded` elements of accumulate_t<T>.
struct NormScratch {
  static constexpr int64_t kForward = 1;       // the values that are normalized
  static constexpr int64_t kBackwardRows = 2;  // xh and p
  static constexpr int64_t kBackwardSums = 2;  // dw and db
  static constexpr int64_t kGatedForward = 1;
  static constexpr int64_t kGatedBackwardRows = 4;  // silu(z), silu'(z), xh and p
  static constexpr int64_t kGatedBackwardSums = 1;  // dw
};

template <class T, class R>
void norm_rows_forward(const NormShape&, const NormForward<T, R>&, Exec);
template <class T, class R>
void norm_rows_backward(const NormShape&, const NormBackward<T, R>&, Exec);

template <class T>
void gated_norm_rows_forward(const GatedNormShape&, const GatedNormForward<T>&, Exec);
template <class T>
void gated_norm_rows_backward(const GatedNormShape&, const GatedNormBackward<T>&, Exec);

}  // namespace adder
