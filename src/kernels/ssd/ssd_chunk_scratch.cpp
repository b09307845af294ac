// What the chunked lines accept, hold and are expected to cost.
#include "kernels/ssd/ssd_chunk_space.h"
#include "kernels/ssd/ssd_lines.h"

namespace adder::ssd {

bool chunked_accepts(const Caps&, const SsdShape& shape) {
  return std::min(shape.chunk, shape.len) <= kMaxChunk;
}

template <class T>
int64_t chunked_scratch(const Caps&, const SsdShape& shape, Direction direction) {
  if (direction != Direction::backward) {
    return ForwardScratch<T>(shape, nullptr).carver.used();
  }
  return BackwardScratch<T>(shape, nullptr).carver.used();
}

namespace {

/// Of one core with 64-byte words, measured on Sapphire Rapids at 3.65 GHz.
struct Speed {
  double forward_flops, backward_flops;  // a nanosecond, upper triangles not counted
  double state_ns;                       // of an element of the states that enter and leave a row
};

double predicted_us(const SsdShape& shape, Direction direction, Speed speed) {
  const bool backward = direction == Direction::backward;
  const auto tokens = static_cast<double>(shape.batch * shape.len);
  const auto heads = static_cast<double>(shape.heads);
  const auto groups = static_cast<double>(HeadBlocks(shape).count);  // each forms its scores
  // Columns are whole words.
  const auto p = static_cast<double>(round_up(shape.head_dim, 16));
  const auto n = static_cast<double>(round_up(shape.state, 16));
  const auto q = static_cast<double>(std::min(shape.chunk, std::max<int64_t>(shape.len, 1)));
  const double flops = backward ? q * (2 * p * heads + 3 * n * groups) + 8 * p * n * heads
                                : q * (p * heads + n * groups) + 4 * p * n * heads;
  const double rate = backward ? speed.backward_flops : speed.forward_flops;
  const double states = static_cast<double>(shape.state_rows() * shape.state_elements());
  const double ns = tokens * flops / rate + states * speed.state_ns * (backward ? 2 : 1);
  const int64_t rows =
      chunk_walks(shape, kPredictedThreads) ? shape.state_rows() : max_chunks(shape);
  const int64_t items = std::max<int64_t>(rows * HeadBlocks(shape).count, 1);
  const auto rounds = static_cast<double>(ceil_div(items, kPredictedThreads));
  return 2.0 + ns * 1e-3 * rounds / static_cast<double>(items);
}

}  // namespace

template <class T>
double chunked_us(const Caps& caps, const SsdShape& shape, Direction direction) {
  const double width = caps.vector_bytes / 64.0 * (sizeof(accumulate_t<T>) == 8 ? 0.5 : 1.0);
  return predicted_us(shape, direction, {120 * width, 112 * width, 0.4 / width});
}
double amx_us(const Caps&, const SsdShape& shape, Direction direction) {
  return predicted_us(shape, direction, {400, 280, 0.5});
}
double avx512bf16_us(const Caps& caps, const SsdShape& shape, Direction direction) {
  // Where there is a matrix unit (Intel) the dot product is slower than multiply-adds in float;
  // elsewhere (Zen 5) it has twice their rate.
  if (caps.amx_bf16) return predicted_us(shape, direction, {88, 83, 0.5});
  return predicted_us(shape, direction, {180, 150, 0.5});
}

#define ADDER_SSD_CHUNKED(T)                                                    \
  template int64_t chunked_scratch<T>(const Caps&, const SsdShape&, Direction); \
  template double chunked_us<T>(const Caps&, const SsdShape&, Direction);
ADDER_SSD_CHUNKED(double)
ADDER_SSD_CHUNKED(float)
ADDER_SSD_CHUNKED(Bf16)
#undef ADDER_SSD_CHUNKED

}  // namespace adder::ssd

namespace adder {

int64_t ssd_chunk_for(int64_t head_dim, int64_t state) {
  return state < 64 || head_dim < 32 ? 64 : 128;
}

}  // namespace adder
