#include "kernels/conv1d/conv1d.h"

#include "core/door.h"
#include "kernels/conv1d/conv1d_lines.h"

namespace adder {
namespace {

constexpr Door kDoor("conv1d");

bool accepts_unit(const Caps&, const Conv1dShape& shape) { return shape.layout.unit_stride; }

double work_us(const Conv1dShape& shape, double ns) {
  const double elements =
      static_cast<double>(shape.batch) * static_cast<double>(shape.len * shape.channels);
  return elements * ns * 1e-3 / kPredictedThreads;
}
// Nanoseconds an element on one core (AVX-512 Xeon with 2 MiB of L2, f32, 2048 tokens of 512
// channels, width 4, SiLU): tiled 0.7 and 1.5, direct 1.3 and 4.1.
double predict_tiled_us(const Caps&, const Conv1dShape& shape, Direction direction) {
  return 1.0 + work_us(shape, direction == Direction::backward ? 1.5 : 0.7);
}
double predict_direct_us(const Caps&, const Conv1dShape& shape, Direction direction) {
  return 2.0 + work_us(shape, direction == Direction::backward ? 4.1 : 1.3);
}

template <class T>
int64_t scratch_bytes(const Caps&, const Conv1dShape& shape, Direction direction) {
  const Conv1dTiles tiles(shape);
  int64_t bytes = 0;
  if (direction == Direction::backward) {
    const int64_t partials = shape.batch * tiles.time_tiles * (shape.width + 1) * tiles.padded;
    bytes += align_up(partials * static_cast<int64_t>(sizeof(accumulate_t<T>)));
  }
  if (shape.width > Conv1dTiles::kStackWidth) {
    bytes += tiles.items(shape) * Conv1dTiles::work_rows(tiles.piece, shape.width) *
             Conv1dTiles::kRowBytes;
  }
  return bytes;
}

template <class T>
void check_inputs(const Conv1dShape& shape, const Conv1dInputs<T>& in) {
  shape.check();
  kDoor.sequence_arrays(shape, in);
  kDoor.array("x", in.x.data, shape.batch * shape.len);
  kDoor.given("w", in.w != nullptr);
}

}  // namespace

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
  if (!layout.unit_stride) text += " strided";
  return text;
}

template <class T>
std::span<const Conv1dLine<T>> conv1d_lines() {
  static constexpr Conv1dLine<T> kLines[] = {{cpu_line<T>("tiled", 1),
                                              accepts_unit,
                                              predict_tiled_us,
                                              scratch_bytes<T>,
                                              {conv1d_tiled_forward, conv1d_tiled_backward}},
                                             {cpu_line<T>("direct", 1),
                                              accepts_all,
                                              predict_direct_us,
                                              scratch_bytes<T>,
                                              {conv1d_direct_forward, conv1d_direct_backward}}};
  return kLines;
}

template <class T>
void conv1d_forward(Context& context, const Conv1dShape& given, const Conv1dForward<T>& args,
                    const Choice& choice) {
  check_inputs(given, args.in);
  kDoor.array("y", args.y.data, given.batch * given.len);
  Conv1dShape shape = given;
  shape.layout = sequence_layout(args.in, args.in.x, args.y);
  run_line(context, kDoor.family(), conv1d_lines<T>(), shape, Direction::forward, args, choice);
}

template <class T>
void conv1d_backward(Context& context, const Conv1dShape& given, const Conv1dBackward<T>& args,
                     const Choice& choice) {
  check_inputs(given, args.in);
  kDoor.array("gy", args.gy.data, given.batch * given.len);
  kDoor.array("dx", args.dx.data, given.batch * given.len);
  Conv1dShape shape = given;
  shape.layout = sequence_layout(args.in, args.in.x, args.gy, args.dx);
  run_line(context, kDoor.family(), conv1d_lines<T>(), shape, Direction::backward, args, choice);
}

#define ADDER_CONV1D_INSTANTIATE(T)                          \
  template std::span<const Conv1dLine<T>> conv1d_lines<T>(); \
  ADDER_DOOR(conv1d_forward, Conv1dShape, Conv1dForward<T>)  \
  ADDER_DOOR(conv1d_backward, Conv1dShape, Conv1dBackward<T>)
ADDER_CONV1D_INSTANTIATE(double)
ADDER_CONV1D_INSTANTIATE(float)
ADDER_CONV1D_INSTANTIATE(Bf16)
#undef ADDER_CONV1D_INSTANTIATE

}  // namespace adder
