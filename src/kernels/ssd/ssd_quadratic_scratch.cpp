// What the quadratic form asks for, and how long it expects to take.
#include "kernels/ssd/ssd_lines.h"
#include "kernels/ssd/ssd_quadratic_space.h"

namespace adder::ssd {

bool quadratic_accepts(const Caps&, const SsdShape& shape) { return shape.len <= kQuadraticTokens; }

template <class T>
int64_t quadratic_scratch(const SsdShape& shape, Direction direction) {
  return QuadraticSpace<accumulate_t<T>>(shape, direction, nullptr).bytes;
}

template <class T>
double quadratic_us(const Caps& caps, const SsdShape& shape, Direction direction) {
  const bool backward = direction == Direction::backward;
  const double rows = static_cast<double>(shape.batch);
  const double pairs = 0.5 * static_cast<double>(shape.len) * static_cast<double>(shape.len + 32);
  const double states = static_cast<double>(shape.groups * shape.state);
  const double channels = static_cast<double>(shape.inner() + 8 * shape.heads);
  const double flops =
      2 * rows * pairs * (backward ? 4 * states + 3 * channels : states + channels);
  const double rate = 1.0 * caps.vector_bytes / static_cast<double>(sizeof(accumulate_t<T>));
  return 20.0 + flops * 1e-3 / (5 * rate * std::min(caps.threads, static_cast<int>(kSlots)));
}

#define ADDER_SSD_QUADRATIC(T)                                       \
  template int64_t quadratic_scratch<T>(const SsdShape&, Direction); \
  template double quadratic_us<T>(const Caps&, const SsdShape&, Direction);
ADDER_SSD_QUADRATIC(double)
ADDER_SSD_QUADRATIC(float)
ADDER_SSD_QUADRATIC(Bf16)
#undef ADDER_SSD_QUADRATIC

}  // namespace adder::ssd
