// What the chunked lines accept, hold and are expected to cost.
#include "kernels/ssd/ssd_chunk_space.h"
#include "kernels/ssd/ssd_lines.h"

namespace adder::ssd {

bool chunked_accepts(const Caps&, const SsdShape& shape) {
  return std::min(shape.chunk, shape.len) <= kMaxChunk;
}

template <class T>
int64_t chunked_scratch(const SsdShape& shape, Direction direction) {
  if (direction != Direction::backward) {
    return ForwardScratch<T>(shape, nullptr).carver.used();
  }
  return BackwardScratch<T>(shape, nullptr).carver.used();
}

template <class T>
double chunked_us(const Caps& caps, const SsdShape& shape, Direction direction) {
  const bool backward = direction == Direction::backward;
  const auto tokens = static_cast<double>(shape.batch * shape.len);
  const auto heads = static_cast<double>(shape.heads);
  const auto groups = static_cast<double>(shape.groups);
  // Columns are whole words.
  const auto p = static_cast<double>(round_up(shape.head_dim, 16));
  const auto n = static_cast<double>(round_up(shape.state, 16));
  const auto q = static_cast<double>(std::min(shape.chunk, std::max<int64_t>(shape.len, 1)));
  const double flops = backward ? q * (2 * p * heads + 3 * n * groups) + 8 * p * n * heads
                                : q * (p * heads + n * groups) + 4 * p * n * heads;
  const double words = std::max(1.0, caps.vector_bytes / static_cast<double>(kAlignment));
  const double rate = 100e3 * words * (sizeof(accumulate_t<T>) == 8 ? 0.5 : 1.0);  // a us
  const double threads = std::min(caps.threads, chunk_workers());
  // Steps, decays and packing of one head in one chunk.
  const double calls = tokens / q * heads * (backward ? 6.0 : 2.0);
  return 5 + (tokens * flops / rate + calls) / threads;
}

double amx_us(const Caps& caps, const SsdShape& shape, Direction direction) {
  return 0.5 * chunked_us<Bf16>(caps, shape, direction);
}
double avx512bf16_us(const Caps& caps, const SsdShape& shape, Direction direction) {
  return 0.9 * chunked_us<Bf16>(caps, shape, direction);
}

#define ADDER_SSD_CHUNKED(T)                                       \
  template int64_t chunked_scratch<T>(const SsdShape&, Direction); \
  template double chunked_us<T>(const Caps&, const SsdShape&, Direction);
ADDER_SSD_CHUNKED(double)
ADDER_SSD_CHUNKED(float)
ADDER_SSD_CHUNKED(Bf16)
#undef ADDER_SSD_CHUNKED

}  // namespace adder::ssd
