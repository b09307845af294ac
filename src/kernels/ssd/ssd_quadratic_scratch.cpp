// What the quadratic form asks for, and how long it expects to take.
#include "kernels/ssd/ssd_lines.h"
#include "kernels/ssd/ssd_quadratic_space.h"

namespace adder::ssd {

bool quadratic_accepts(const Caps&, const SsdShape& shape) { return shape.len <= kQuadraticTokens; }

template <class T>
int64_t quadratic_scratch(const Caps&, const SsdShape& shape, Direction direction) {
  return QuadraticSpace<accumulate_t<T>>(shape, direction, nullptr).bytes;
}

template <class T>
double quadratic_us(const Caps& caps, const SsdShape& shape, Direction direction) {
  const bool backward = direction == Direction::backward;
  const int64_t lanes =
      std::max<int64_t>(1, caps.vector_bytes / static_cast<int64_t>(sizeof(accumulate_t<T>)));
  const auto rows = static_cast<double>(shape.state_rows());
  const auto tokens = static_cast<double>(shape.batch * shape.len);
  const double len = tokens / std::max(rows, 1.0);  // packed: as if all were alike
  const double pairs = rows * 0.5 * len * (len + kBlock);
  const auto states = static_cast<double>(shape.groups * shape.state);
  const auto channels = static_cast<double>(shape.inner() + 8 * shape.heads);
  const double terms = backward ? 4 * states + 3 * channels : states + channels;
  // Nanoseconds on one core (Sapphire Rapids): 5 operations a lane in products over pairs; of a
  // word of states for each token (states, copies), and for each row.
  const auto words = static_cast<double>(ceil_div(shape.state, lanes) * shape.inner());
  const double ns = 2 * pairs * terms / (5.0 * static_cast<double>(lanes)) +
                    words * (tokens * (backward ? 1.0 : 0.37) + rows * (backward ? 20.0 : 10.0));
  return 1.0 + ns * 1e-3 / kPredictedThreads;
}

#define ADDER_SSD_QUADRATIC(T)                                                    \
  template int64_t quadratic_scratch<T>(const Caps&, const SsdShape&, Direction); \
  template double quadratic_us<T>(const Caps&, const SsdShape&, Direction);
ADDER_SSD_QUADRATIC(double)
ADDER_SSD_QUADRATIC(float)
ADDER_SSD_QUADRATIC(Bf16)
#undef ADDER_SSD_QUADRATIC

}  // namespace adder::ssd
