#include "kernels/conv1d/conv1d.h"

#include "kernels/conv1d/conv1d_lines.h"

namespace adder {
namespace {

[[noreturn]] void bad(const char* field, std::string expected, std::string got) {
  throw Error({"bad shape", std::string("conv1d: ") + field, std::move(expected), std::move(got)});
}

void at_least(const char* field, int64_t value, int64_t least) {
  if (value < least) bad(field, ">= " + std::to_string(least), std::to_string(value));
}

// The integer arrays, which no shape can vouch for.
template <class T>
void check_inputs(const Conv1dShape& shape, const Conv1dInputs<T>& in) {
  if (shape.packed()) {
    if (in.cu_seqlens == nullptr) bad("cu_seqlens", "an array (sequences > 0)", "none");
    const int32_t* cu = in.cu_seqlens;
    if (cu[0] != 0) bad("cu_seqlens[0]", "0", std::to_string(cu[0]));
    for (int64_t q = 0; q < shape.sequences; ++q) {
      if (cu[q + 1] < cu[q]) {
        bad("cu_seqlens", "a non-decreasing array",
            std::to_string(cu[q + 1]) + " after " + std::to_string(cu[q]));
      }
    }
    if (cu[shape.sequences] != shape.len) {
      bad("cu_seqlens[sequences]", std::to_string(shape.len) + " (len)",
          std::to_string(cu[shape.sequences]));
    }
  }
  for (int64_t r = 0; in.state_index != nullptr && r < shape.state_rows(); ++r) {
    at_least("state_index", in.state_index[r], 0);
  }
  for (int64_t t = 0; in.order != nullptr && t < shape.len; ++t) {
    if (in.order[t] < 0 || in.order[t] >= shape.len) {
      bad("order", "0 <= token < " + std::to_string(shape.len), std::to_string(in.order[t]));
    }
  }
}

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

template <class T>
bool has_direction(const Conv1dFunctions<T>& run, Direction direction) {
  return (direction == Direction::forward && run.forward != nullptr) ||
         (direction == Direction::backward && run.backward != nullptr);
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
  at_least("batch", batch, 0);
  at_least("len", len, 0);
  at_least("channels", channels, 1);
  at_least("width", width, 1);
  at_least("sequences", sequences, 0);
  if (packed() && batch != 1) bad("batch", "1 (packed)", std::to_string(batch));
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
       has_direction<T>},
      {{"direct", Device::cpu, dtype_of<T>, 1},
       accepts_any,
       predict_direct_us<T>,
       scratch_of<T>,
       {conv1d_direct_forward, conv1d_direct_backward},
       has_direction<T>},
  };
  return lines;
}

template <class T>
void conv1d_forward(Context& context, const Conv1dShape& given, const Conv1dForward<T>& args,
                    const Choice& choice) {
  given.check();
  if (!context.arena->measuring()) check_inputs(given, args.in);
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
  if (!context.arena->measuring()) check_inputs(given, args.in);
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
