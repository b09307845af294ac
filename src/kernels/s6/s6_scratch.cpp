// Scratch of the lines: what their functions carve, counted for the widest SIMD target.
#include <algorithm>

#include "kernels/s6/s6_lines.h"
#include "kernels/s6/s6_plan.h"

namespace adder::s6 {
namespace {

template <class C>
int64_t block_bytes(int64_t count) {
  return align_up(count * static_cast<int64_t>(sizeof(C)));
}

/// A log2(e), `parts` states or gradients of states, and in backward `parts` sets of partial sums
/// and the partial rows of dB and dC.
template <class C>
int64_t common_bytes(const S6Shape& shape, Direction direction, int64_t parts) {
  const int64_t channels = padded_channels<C>(shape);
  const int64_t plane = channels * padded_states(shape.state);
  int64_t bytes = block_bytes<C>(plane) + block_bytes<C>(parts * plane);
  if (direction == Direction::backward) {
    const int64_t group_dim = shape.dim / shape.groups;
    const int64_t tiles = ceil_div(group_dim, tile_channels(group_dim));
    const int64_t rows = shape.batch * shape.len * shape.groups * shape.state;
    bytes += 2 * block_bytes<C>(tiles * rows);
    parts = std::max<int64_t>(parts, 1);
    bytes += block_bytes<C>(parts * plane) + 2 * block_bytes<C>(parts * channels);
  }
  return bytes;
}

}  // namespace

template <class T>
int64_t sequential_scratch(const Caps&, const S6Shape& shape, Direction direction) {
  const int64_t segments = max_segments(shape, kWholeSequence);
  return block_bytes<Segment>(segments) +
         common_bytes<accumulate_t<T>>(shape, direction, std::min(segments, kMaxBundles));
}

template <class T>
int64_t complex_scratch(const Caps& caps, const S6Shape& shape, Direction direction) {
  S6Shape flat = shape;  // a complex state is two numbers of the layout
  flat.state *= 2;
  return sequential_scratch<T>(caps, flat, direction);
}

template <class T>
int64_t parallel_scratch(const Caps&, const S6Shape& shape, Direction direction) {
  using C = accumulate_t<T>;
  const int64_t segments = max_segments(shape, parallel_segment_tokens(shape));
  const int64_t channels = padded_channels<C>(shape);
  return block_bytes<Segment>(segments) + common_bytes<C>(shape, direction, segments) +
         block_bytes<C>(segments * channels) +
         block_bytes<C>(channels * padded_states(shape.state));
}

#define ADDER_S6_SCRATCH(T)                                                       \
  template int64_t sequential_scratch<T>(const Caps&, const S6Shape&, Direction); \
  template int64_t complex_scratch<T>(const Caps&, const S6Shape&, Direction);    \
  template int64_t parallel_scratch<T>(const Caps&, const S6Shape&, Direction);
ADDER_S6_SCRATCH(double)
ADDER_S6_SCRATCH(float)
ADDER_S6_SCRATCH(Bf16)
#undef ADDER_S6_SCRATCH

}  // namespace adder::s6
