#include "kernels/conv1d/conv1d.h"

#include "core/door.h"
#include "kernels/conv1d/conv1d_lines.h"

namespace adder {
namespace {

constexpr Door kDoor("conv1d");

bool accepts_unit(const Caps&, const Conv1dShape& shape) { return !shape.strided; }
bool accepts_any(const Caps&, const Conv1dShape&) { return true; }

// Nanoseconds an element on one core (AVX-512 Xeon with 2 MiB of L2, f32, 2048 tokens of 512
// channels, width 4, SiLU): tiled 0.7 and 1.5, direct 1.3 and 4.1.
template <class T>
double predict_tiled_us(const Caps& caps, const Conv1dShape& shape, Direction direction) {
  const double elements =
      static_cast<double>(shape.batch) * static_cast<double>(shape.len * shape.channels);
  const double ns = direction == Direction::backward ? 1.5 : 0.7;
  return 1.0 + elements * ns * 1e-3 / caps.threads;
}

template <class T>
double predict_direct_us(const Caps& caps, const Conv1dShape& shape, Direction direction) {
  const double elements =
      static_cast<double>(shape.batch) * static_cast<double>(shape.len * shape.channels);
  const double ns = direction == Direction::backward ? 4.1 : 1.3;
  return 2.0 + elements * ns * 1e-3 / caps.threads;
}

template <class T>
int64_t scratch_of(const Conv1dShape& shape, Direction direction) {
  return conv1d_scratch_bytes(shape, direction, dtype_of<accumulate_t<T>>);
}

template <class T, class View>
bool unit(const View& view) {
  return !view || view.channel_stride == 1;
}

}  // namespace

int64_t conv1d_scratch_bytes(const Conv1dShape& shape, Direction direction, Dtype dtype) {
  const Conv1dTiles tiles(shape);
  int64_t bytes = 0;
  if (direction == Direction::backward) {
    const int64_t partials = shape.batch * tiles.time_tiles * (shape.width + 1) * tiles.padded;
    bytes += align_up(partials * dtype_bytes(dtype));
  }
  if (shape.width > Conv1dTiles::kStackWidth) {
    bytes += tiles.items(shape) * Conv1dTiles::work_rows(tiles.piece, shape.width) *
             Conv1dTiles::kRowBytes;
  }
  return bytes;
}

void Conv1dShape::check() const {
  kDoor.at_least("batch", batch, 0);
  kDoor.at_least("len", len, 0);
  kDoor.at_least("channels", channels, 1);
  kDoor.at_least("width", width, 1);
  kDoor.at_least("sequences", sequences, 0);
  if (packed() && batch != 1) kDoor.bad("batch", "1 (packed)", std::to_string(batch));
}

Cost Conv1dShape::cost(Direction direction, Dtype dtype) const {
  const bool backward = direction == Direction::backward;
  const double elements = static_cast<double>(batch) * static_cast<double>(len * channels);
  const double taps = static_cast<double>(width);
  Cost cost;
  cost.flops = elements * taps * (backward ? 6 : 2);
  cost.exps = silu ? elements : 0;
  cost.bytes = elements * static_cast<double>(dtype_bytes(dtype)) * (backward ? 3 : 2) +
               static_cast<double>(channels) * (taps + 1) * 4 * (backward ? 2 : 1);
  cost.saved_bytes = batch * len * channels * dtype_bytes(dtype);
  return cost;
}

std::string Conv1dShape::describe() const {
  std::string text = "batch " + std::to_string(batch) + " len " + std::to_string(len) +
                     " channels " + std::to_string(channels) + " width " + std::to_string(width);
  if (packed()) text += " sequences " + std::to_string(sequences);
  if (silu) text += " silu";
  if (strided) text += " strided";
  return text;
}

template <class T>
std::span<const Conv1dLine<T>> conv1d_lines() {
  static const Conv1dLine<T> lines[] = {
      {{"tiled", Device::cpu, dtype_of<T>, 1},
       accepts_unit,
       predict_tiled_us<T>,
       scratch_of<T>,
       {conv1d_tiled_forward, conv1d_tiled_backward},
       has_direction},
      {{"direct", Device::cpu, dtype_of<T>, 1},
       accepts_any,
       predict_direct_us<T>,
       scratch_of<T>,
       {conv1d_direct_forward, conv1d_direct_backward},
       has_direction},
  };
  return lines;
}

template <class T>
void conv1d_forward(Context& context, const Conv1dShape& given, const Conv1dForward<T>& args,
                    const Choice& choice) {
  given.check();
  if (!context.arena->measuring()) kDoor.sequence_arrays(given, args.in);
  Conv1dShape shape = given;
  shape.strided = !unit<T>(args.in.x) || !unit<T>(args.y);
  const auto& line =
      pick_line("conv1d", conv1d_lines<T>(), context.caps(), shape, Direction::forward, choice);
  run_line(context, line, shape, Direction::forward,
           [&](Exec exec) { line.run.forward(shape, args, exec); });
}

template <class T>
void conv1d_backward(Context& context, const Conv1dShape& given, const Conv1dBackward<T>& args,
                     const Choice& choice) {
  given.check();
  if (!context.arena->measuring()) kDoor.sequence_arrays(given, args.in);
  Conv1dShape shape = given;
  shape.strided = !unit<T>(args.in.x) || !unit<T>(args.gy) || !unit<T>(args.dx);
  const auto& line =
      pick_line("conv1d", conv1d_lines<T>(), context.caps(), shape, Direction::backward, choice);
  run_line(context, line, shape, Direction::backward,
           [&](Exec exec) { line.run.backward(shape, args, exec); });
}

#define ADDER_CONV1D_INSTANTIATE(T)                                                        \
  template std::span<const Conv1dLine<T>> conv1d_lines<T>();                               \
  template void conv1d_forward<T>(Context&, const Conv1dShape&, const Conv1dForward<T>&,   \
                                  const Choice&);                                          \
  template void conv1d_backward<T>(Context&, const Conv1dShape&, const Conv1dBackward<T>&, \
                                   const Choice&);
ADDER_CONV1D_INSTANTIATE(double)
ADDER_CONV1D_INSTANTIATE(float)
ADDER_CONV1D_INSTANTIATE(Bf16)
#undef ADDER_CONV1D_INSTANTIATE

}  // namespace adder
