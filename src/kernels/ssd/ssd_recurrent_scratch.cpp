// The linear form: its scratch, and the time that it expects to take.
#include "kernels/ssd/ssd_lines.h"
#include "kernels/ssd/ssd_recurrent_plan.h"
#include "kernels/ssd/ssd_recurrent_space.h"

namespace adder::ssd {

template <class T>
int64_t recurrent_scratch(const Caps&, const SsdShape& shape, Direction direction) {
  using C = accumulate_t<T>;
  if (direction == Direction::backward) {
    return RecurrentBackwardSpace<C>(shape, RecurrentBackwardCut(shape), nullptr).bytes();
  }
  const RecurrentCut cut(shape);
  return block_bytes<C>(cut.bundles() * shape.inner() * padded_states<C>(shape)) +
         block_bytes<C>(cut.items() * 2 * cut.run() * padded_states<C>(shape));
}

template <class T>
double recurrent_us(const Caps& caps, const SsdShape& shape, Direction direction) {
  const bool backward = direction == Direction::backward;
  const int64_t items =
      backward ? RecurrentBackwardCut(shape).items() : RecurrentCut(shape).items();
  if (items == 0) return 1.0;
  using C = accumulate_t<T>;
  const int64_t lanes = std::max<int64_t>(1, caps.vector_bytes / int64_t{sizeof(C)});
  // Nanoseconds on one core (Sapphire Rapids): of a channel and of a word of its states for each
  // token, and of a word for a sequence's state to come and go.
  const auto channels = static_cast<double>(shape.inner());
  const double words = static_cast<double>(ceil_div(shape.state, lanes)) * channels;
  const auto tokens = static_cast<double>(shape.batch * shape.len);
  const auto rows = static_cast<double>(shape.state_rows());
  const double ns = backward ? tokens * (1.5 * channels + 2.65 * words) + 6.0 * rows * words
                             : tokens * (0.9 * channels + 0.8 * words) + 4.0 * rows * words;
  const int64_t rounds = ceil_div(items, kPredictedThreads);
  return 1.0 + ns * 1e-3 * static_cast<double>(rounds) / static_cast<double>(items);
}

#define ADDER_SSD_RECURRENT(T)                                                    \
  template int64_t recurrent_scratch<T>(const Caps&, const SsdShape&, Direction); \
  template double recurrent_us<T>(const Caps&, const SsdShape&, Direction);
ADDER_SSD_RECURRENT(double)
ADDER_SSD_RECURRENT(float)
ADDER_SSD_RECURRENT(Bf16)
#undef ADDER_SSD_RECURRENT

}  // namespace adder::ssd
