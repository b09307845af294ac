// How a call of the selective scan is cut into work: by shape (and cu_seqlens) alone, so that the
// bits do not depend on the number of threads. Shared by all lines; no arithmetic here.
//
//   word     the channels of one SIMD register; no word straddles a group of B and C
//   tile     consecutive channels of one group, tile_channels() of them or what is left: shares
//            B_t and C_t
//   segment  consecutive tokens of one sequence that one work item scans in order
//   bundle   consecutive segments scanned one after another by one item for each tile
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "core/buffer.h"
#include "kernels/s6/s6.h"

namespace adder::s6 {

inline constexpr int64_t kMaxTileChannels = 256;
/// Wide tiles read longer pieces of a row and leave fewer partial sums of dB and dC (backward, f32,
/// 8 x 256 x 512: 128 channels 6.7 ms, 256 6.4 ms; 2048 x 1536: 26 and 24 ms); narrow groups keep
/// more items to share out.
constexpr int64_t tile_channels(int64_t group_dim) { return group_dim < 512 ? 128 : 256; }
/// Bundles of the sequential cut: enough items for any CPU, few enough partial sums.
inline constexpr int64_t kMaxBundles = 32;
/// Shortest segment of the parallel cut, in tokens (a multiple of kS6Chunk).
inline constexpr int64_t kSegmentTokens = 512;
/// Longest row of segments: beyond it segments grow.
inline constexpr int64_t kMaxSegments = 64;
/// States are handled in blocks of four; rows of states are padded to whole blocks with zeros.
inline constexpr int64_t kStateBlock = 4;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t padded_states(int64_t state) {
  return ceil_div(state, kStateBlock) * kStateBlock;
}

struct Segment {
  int64_t row;    // of h0 and hT
  int64_t batch;  // of the token views
  int64_t begin;  // steps [begin, end) of that batch row
  int64_t end;
  int64_t saved;  // index in its batch row of the state that enters the segment's first chunk
  bool first;     // of its sequence
  bool last;
};

struct Tile {
  int64_t group;
  int64_t index_in_group;
  int64_t channel;   // first
  int64_t channels;  // 1 .. tile_channels()
  int64_t word;      // first, in the padded arrays
  int64_t words;
};

/// Channels as words of `lanes`.
class Cut {
 public:
  Cut(const S6Shape& shape, int64_t lanes)
      : lanes_(lanes),
        group_dim_(shape.dim / shape.groups),
        groups_(shape.groups),
        group_words_(ceil_div(group_dim_, lanes)),
        tile_channels_(s6::tile_channels(group_dim_)),
        group_tiles_(ceil_div(group_dim_, tile_channels_)) {}

  int64_t lanes() const { return lanes_; }
  int64_t words() const { return groups_ * group_words_; }
  int64_t tiles() const { return groups_ * group_tiles_; }
  int64_t group_tiles() const { return group_tiles_; }
  Tile tile(int64_t index) const {
    Tile tile;
    tile.group = index / group_tiles_;
    tile.index_in_group = index % group_tiles_;
    const int64_t first = tile.index_in_group * tile_channels_;
    tile.channel = tile.group * group_dim_ + first;
    tile.channels = std::min(tile_channels_, group_dim_ - first);
    tile.word = tile.group * group_words_ + first / lanes_;
    tile.words = ceil_div(tile.channels, lanes_);
    return tile;
  }

 private:
  int64_t lanes_;
  int64_t group_dim_;
  int64_t groups_;
  int64_t group_words_;
  int64_t tile_channels_;
  int64_t group_tiles_;
};

/// Channels rounded up to whole words of the widest target: an upper bound for every target.
template <class C>
int64_t padded_channels(const S6Shape& shape) {
  const int64_t lanes = kAlignment / static_cast<int64_t>(sizeof(C));
  return shape.groups * ceil_div(shape.dim / shape.groups, lanes) * lanes;
}

/// Tokens of a segment: the whole sequence in the sequential cut.
inline constexpr int64_t kWholeSequence = std::numeric_limits<int64_t>::max();
inline int64_t parallel_segment_tokens(const S6Shape& shape) {
  const int64_t even = ceil_div(ceil_div(shape.len, kMaxSegments), kS6Chunk) * kS6Chunk;
  return std::max(kSegmentTokens, even);
}

/// An upper bound of the number of segments (exact when not packed).
inline int64_t max_segments(const S6Shape& shape, int64_t segment_tokens) {
  const int64_t rows = shape.state_rows();
  if (segment_tokens == kWholeSequence) return rows;
  const int64_t full = ceil_div(shape.len, segment_tokens);
  return shape.packed() ? full + rows : std::max<int64_t>(full, 1) * rows;
}

/// Index, in its batch row, of the state that enters a sequence: S6Shape::saved_chunks().
inline int64_t first_saved(const S6Shape& shape, int64_t begin, int64_t row) {
  return shape.packed() ? begin / kS6Chunk + row : 0;
}

/// Writes the segments of all sequences in order; an empty sequence has one empty segment.
inline int64_t list_segments(const S6Shape& shape, const int32_t* cu_seqlens,
                             int64_t segment_tokens, Segment* out) {
  int64_t count = 0;
  for (int64_t row = 0; row < shape.state_rows(); ++row) {
    const int64_t begin = shape.packed() ? cu_seqlens[row] : 0;
    const int64_t end = shape.packed() ? cu_seqlens[row + 1] : shape.len;
    const int64_t saved = first_saved(shape, begin, row);
    int64_t at = begin;
    do {
      const int64_t stop = segment_tokens < end - at ? at + segment_tokens : end;
      out[count++] = {row,        shape.packed() ? 0 : row,        at,
                      stop,       saved + (at - begin) / kS6Chunk, at == begin,
                      stop == end};
      at = stop;
    } while (at < end);
  }
  return count;
}

/// Segments of bundle i of `bundles`: [first_of(i), first_of(i + 1)).
inline int64_t first_of_bundle(int64_t bundle, int64_t bundles, int64_t segments) {
  return bundle * segments / bundles;
}

}  // namespace adder::s6
