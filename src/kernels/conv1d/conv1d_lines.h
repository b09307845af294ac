// Private to the room: how the work is cut, and the functions behind the table lines.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/simd_line.h"
#include "kernels/conv1d/conv1d.h"

namespace adder {

/// The cut into items, one per (row, time tile, channel tile): by shape only, so that the bits do
/// not depend on the thread count. An item works through panels of channels and pieces of tokens.
struct Conv1dTiles {
  static constexpr int64_t kChannels = 256;    // of one item
  static constexpr int64_t kMinTokens = 128;   // of one item
  static constexpr int64_t kStackWidth = 16;   // widest filter whose work arrays fit on the stack
  static constexpr int64_t kPanel = 128;       // channels: half a KiB of a float row
  static constexpr int64_t kPiece = 32;        // tokens: inputs and gradients of a panel fill L1
  static constexpr int64_t kRowBytes = 64;     // one vector of the widest target
  static constexpr int64_t kSerial = 1 << 14;  // elements below which a thread team costs more

  int64_t tokens;         // of one time tile: wide filters get longer tiles, the halo is recomputed
  int64_t time_tiles;     // of one row
  int64_t channel_tiles;  // of one token
  int64_t padded;         // channels rounded up to whole vectors of any target
  int64_t panel;          // channels; 1 stands for a single vector (wide filters)
  int64_t piece;          // tokens

  explicit Conv1dTiles(const Conv1dShape& shape)
      : tokens(std::max(kMinTokens, (4 * shape.width + 63) / 64 * 64)),
        time_tiles((shape.len + tokens - 1) / tokens),
        channel_tiles((shape.channels + kChannels - 1) / kChannels),
        padded((shape.channels + 15) / 16 * 16),
        panel(shape.width <= kStackWidth ? kPanel : 1),
        piece(shape.width <= kStackWidth ? kPiece : tokens) {}

  int64_t items(const Conv1dShape& shape) const { return shape.batch * time_tiles * channel_tiles; }
  /// Work rows of one column: inputs with both halos, ga with one, the taps both ways round.
  static constexpr int64_t work_rows(int64_t piece, int64_t width) {
    return 2 * piece + 3 * (width - 1) + 2 * width;
  }
  /// Threads worth waking: no influence on the bits.
  static int threads(const Conv1dShape& shape, int available) {
    return shape.batch * shape.len * shape.channels < kSerial ? 1 : available;
  }
};

// "tiled": channel stride 1 everywhere. "direct": any channel stride, lane-wise loads.
template <class T>
void conv1d_tiled_forward(const Conv1dShape&, const Conv1dForward<T>&, Exec);
template <class T>
void conv1d_tiled_backward(const Conv1dShape&, const Conv1dBackward<T>&, Exec);
template <class T>
void conv1d_direct_forward(const Conv1dShape&, const Conv1dForward<T>&, Exec);
template <class T>
void conv1d_direct_backward(const Conv1dShape&, const Conv1dBackward<T>&, Exec);

}  // namespace adder
