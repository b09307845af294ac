#include "kernels/norm/norm.h"

#include "kernels/norm/norm_lines.h"

namespace adder {
namespace {

[[noreturn]] void bad(const std::string& field, std::string expected, std::string got) {
  throw Error({"bad shape", field, std::move(expected), std::move(got)});
}

void at_least(const std::string& field, int64_t value, int64_t least) {
  if (value < least) bad(field, ">= " + std::to_string(least), std::to_string(value));
}

void check_eps(const char* field, double eps) {
  if (!(eps >= 0)) bad(field, ">= 0", std::to_string(eps));
}

template <class Pointer>
void present(const char* field, Pointer pointer) {
  if (pointer == nullptr) bad(field, "an array", "none");
}

void check_stride(const char* field, int64_t stride, int64_t rows, int64_t width) {
  if (rows > 1) at_least(field, stride, width);
}

// 22 GB/s and 0.5 ns a sigmoid on one core (AVX-512 Xeon with 2 MiB of L2, f32, 2048 rows of 768).
double predict_us(const Caps& caps, const Cost& cost) {
  return 0.3 + (cost.bytes * 0.045e-3 + cost.exps * 0.5e-3) / caps.threads;
}

template <class Shape>
bool accepts_any(const Caps&, const Shape&) {
  return true;
}

template <class T>
double predict_norm_us(const Caps& caps, const NormShape& shape, Direction direction) {
  return predict_us(caps, shape.cost(direction, dtype_of<T>));
}

template <class T>
double predict_gated_us(const Caps& caps, const GatedNormShape& shape, Direction direction) {
  return predict_us(caps, shape.cost(direction, dtype_of<T>));
}

template <class T>
int64_t rows_bytes(const NormBlocks& cut, int64_t rows) {
  return align_up(cut.blocks * rows * cut.padded * static_cast<int64_t>(sizeof(accumulate_t<T>)));
}

template <class T>
int64_t norm_scratch(const NormShape& shape, Direction direction) {
  const NormBlocks cut(shape.rows, shape.width);
  if (direction == Direction::forward) return rows_bytes<T>(cut, NormScratch::kForward);
  return rows_bytes<T>(cut, NormScratch::kBackwardRows) +
         rows_bytes<T>(cut, NormScratch::kBackwardSums);
}

template <class T>
int64_t gated_scratch(const GatedNormShape& shape, Direction direction) {
  const NormBlocks cut(shape.rows, shape.width);
  if (direction == Direction::forward) return rows_bytes<T>(cut, NormScratch::kGatedForward);
  return rows_bytes<T>(cut, NormScratch::kGatedBackwardRows) +
         rows_bytes<T>(cut, NormScratch::kGatedBackwardSums);
}

double product(int64_t a, int64_t b) { return static_cast<double>(a) * static_cast<double>(b); }

}  // namespace

void NormShape::check() const {
  at_least("norm: rows", rows, 0);
  at_least("norm: width", width, 1);
  check_eps("norm: eps", eps);
}

// x, y and both gradients in the storage type, the residual in fp32 (math.md 6.3).
Cost NormShape::cost(Direction direction, Dtype dtype) const {
  const bool backward = direction == Direction::backward;
  const double elements = product(rows, width);
  const double residual = dtype == Dtype::f64 ? 8 : 4;
  const auto storage = static_cast<double>(dtype_bytes(dtype));
  Cost cost;
  cost.flops = elements * (backward ? 8 : 4);
  cost.bytes = elements * (2 * storage + (backward ? 3 : 2) * residual);
  cost.saved_bytes =
      rows * (width + (kind == NormKind::layer ? 2 : 1)) * static_cast<int64_t>(residual);
  return cost;
}

std::string NormShape::describe() const {
  return std::string(kind == NormKind::rms ? "rms" : "layer") + " rows " + std::to_string(rows) +
         " width " + std::to_string(width);
}

void GatedNormShape::check() const {
  at_least("gated_norm: rows", rows, 0);
  at_least("gated_norm: width", width, 1);
  at_least("gated_norm: group", group, 0);
  if (width % group_width() != 0) {
    bad("gated_norm: group", "a divisor of width " + std::to_string(width), std::to_string(group));
  }
  check_eps("gated_norm: eps", eps);
}

Cost GatedNormShape::cost(Direction direction, Dtype dtype) const {
  const bool backward = direction == Direction::backward;
  const double elements = product(rows, width);
  Cost cost;
  cost.flops = elements * (backward ? 16 : 6);
  cost.exps = elements;
  cost.bytes = elements * static_cast<double>(dtype_bytes(dtype)) * (backward ? 5 : 3);
  cost.saved_bytes = rows * (2 * width * dtype_bytes(dtype) + width / group_width() * 4);
  return cost;
}

std::string GatedNormShape::describe() const {
  return "gated rows " + std::to_string(rows) + " width " + std::to_string(width) + " group " +
         std::to_string(group_width()) + (norm_before_gate ? " norm_before_gate" : "");
}

template <class T, class R>
std::span<const NormLine<T, R>> norm_lines() {
  static const NormLine<T, R> lines[] = {
      {{"rows", Device::cpu, dtype_of<T>, 1},
       accepts_any<NormShape>,
       predict_norm_us<T>,
       norm_scratch<T>,
       {norm_rows_forward, norm_rows_backward},
       has_direction},
  };
  return lines;
}

template <class T, class R>
void norm_forward(Context& context, const NormShape& shape, const NormForward<T, R>& args,
                  const Choice& choice) {
  shape.check();
  if (!context.arena->measuring() && shape.rows > 0) {
    if (args.x == nullptr) present("norm: x and residual_in", args.residual_in);
    if (args.x != nullptr) check_stride("norm: x_stride", args.x_stride, shape.rows, shape.width);
    present("norm: y", args.y);
  }
  const auto& line =
      pick_line("norm", norm_lines<T, R>(), context.caps(), shape, Direction::forward, choice);
  run_line(context, line, shape, Direction::forward,
           [&](Exec exec) { line.run.forward(shape, args, exec); });
}

template <class T, class R>
void norm_backward(Context& context, const NormShape& shape, const NormBackward<T, R>& args,
                   const Choice& choice) {
  shape.check();
  if (!context.arena->measuring() && shape.rows > 0) {
    present("norm: r", args.r);
    present("norm: rstd", args.rstd);
    if (shape.kind == NormKind::layer) present("norm: mean", args.mean);
    present("norm: gy", args.gy);
    present("norm: dr", args.dr);
  }
  const auto& line =
      pick_line("norm", norm_lines<T, R>(), context.caps(), shape, Direction::backward, choice);
  run_line(context, line, shape, Direction::backward,
           [&](Exec exec) { line.run.backward(shape, args, exec); });
}

template <class T>
std::span<const GatedNormLine<T>> gated_norm_lines() {
  static const GatedNormLine<T> lines[] = {
      {{"rows", Device::cpu, dtype_of<T>, 1},
       accepts_any<GatedNormShape>,
       predict_gated_us<T>,
       gated_scratch<T>,
       {gated_norm_rows_forward, gated_norm_rows_backward},
       has_direction},
  };
  return lines;
}

template <class T>
void gated_norm_forward(Context& context, const GatedNormShape& shape,
                        const GatedNormForward<T>& args, const Choice& choice) {
  shape.check();
  if (!context.arena->measuring()) {
    check_stride("gated_norm: y_stride", args.y_stride, shape.rows, shape.width);
    check_stride("gated_norm: z_stride", args.z_stride, shape.rows, shape.width);
    check_stride("gated_norm: out_stride", args.out_stride, shape.rows, shape.width);
    if (shape.rows > 0) present("gated_norm: w", args.w);
  }
  const auto& line = pick_line("gated_norm", gated_norm_lines<T>(), context.caps(), shape,
                               Direction::forward, choice);
  run_line(context, line, shape, Direction::forward,
           [&](Exec exec) { line.run.forward(shape, args, exec); });
}

template <class T>
void gated_norm_backward(Context& context, const GatedNormShape& shape,
                         const GatedNormBackward<T>& args, const Choice& choice) {
  shape.check();
  if (!context.arena->measuring()) {
    check_stride("gated_norm: y_stride", args.y_stride, shape.rows, shape.width);
    check_stride("gated_norm: z_stride", args.z_stride, shape.rows, shape.width);
    check_stride("gated_norm: gout_stride", args.gout_stride, shape.rows, shape.width);
    check_stride("gated_norm: dy_stride", args.dy_stride, shape.rows, shape.width);
    check_stride("gated_norm: dz_stride", args.dz_stride, shape.rows, shape.width);
    if (shape.rows > 0) present("gated_norm: rstd", args.rstd);
    if (shape.rows > 0) present("gated_norm: w", args.w);
  }
  const auto& line = pick_line("gated_norm", gated_norm_lines<T>(), context.caps(), shape,
                               Direction::backward, choice);
  run_line(context, line, shape, Direction::backward,
           [&](Exec exec) { line.run.backward(shape, args, exec); });
}

#define ADDER_NORM_INSTANTIATE(T, R)                                                       \
  template std::span<const NormLine<T, R>> norm_lines<T, R>();                             \
  template void norm_forward<T, R>(Context&, const NormShape&, const NormForward<T, R>&,   \
                                   const Choice&);                                         \
  template void norm_backward<T, R>(Context&, const NormShape&, const NormBackward<T, R>&, \
                                    const Choice&);
ADDER_NORM_INSTANTIATE(double, double)
ADDER_NORM_INSTANTIATE(float, float)
ADDER_NORM_INSTANTIATE(Bf16, float)
ADDER_NORM_INSTANTIATE(Bf16, Bf16)
#undef ADDER_NORM_INSTANTIATE

#define ADDER_GATED_NORM_INSTANTIATE(T)                                                            \
  template std::span<const GatedNormLine<T>> gated_norm_lines<T>();                                \
  template void gated_norm_forward<T>(Context&, const GatedNormShape&, const GatedNormForward<T>&, \
                                      const Choice&);                                              \
  template void gated_norm_backward<T>(Context&, const GatedNormShape&,                            \
                                       const GatedNormBackward<T>&, const Choice&);
ADDER_GATED_NORM_INSTANTIATE(double)
ADDER_GATED_NORM_INSTANTIATE(float)
ADDER_GATED_NORM_INSTANTIATE(Bf16)
#undef ADDER_GATED_NORM_INSTANTIATE

}  // namespace adder
