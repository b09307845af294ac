#include "kernels/norm/norm.h"

#include "core/door.h"
#include "kernels/norm/norm_lines.h"

namespace adder {
namespace {

constexpr Door kDoor("norm");
constexpr Door kGatedDoor("gated_norm");

// 22 GB/s and 0.5 ns a sigmoid on one core (AVX-512 Xeon with 2 MiB of L2, f32, 2048 rows of 768).
double predict_us(const Cost& cost) {
  return 0.3 + (cost.bytes * 0.045e-3 + cost.exps * 0.5e-3) / kPredictedThreads;
}

template <class T>
double predict_norm_us(const Caps&, const NormShape& shape, Direction direction) {
  return predict_us(shape.cost(direction, dtype_of<T>));
}

template <class T>
double predict_gated_us(const Caps&, const GatedNormShape& shape, Direction direction) {
  return predict_us(shape.cost(direction, dtype_of<T>));
}

template <class T>
int64_t rows_bytes(const NormBlocks& cut, int64_t rows) {
  return align_up(cut.blocks * rows * cut.padded * static_cast<int64_t>(sizeof(accumulate_t<T>)));
}

template <class T>
int64_t norm_scratch(const Caps&, const NormShape& shape, Direction direction) {
  const NormBlocks cut(shape.rows, shape.width);
  if (direction == Direction::forward) return rows_bytes<T>(cut, NormScratch::kForward);
  return rows_bytes<T>(cut, NormScratch::kBackwardRows) +
         rows_bytes<T>(cut, NormScratch::kBackwardSums);
}

template <class T>
int64_t gated_scratch(const Caps&, const GatedNormShape& shape, Direction direction) {
  const NormBlocks cut(shape.rows, shape.width);
  if (direction == Direction::forward) return rows_bytes<T>(cut, NormScratch::kGatedForward);
  return rows_bytes<T>(cut, NormScratch::kGatedBackwardRows) +
         rows_bytes<T>(cut, NormScratch::kGatedBackwardSums);
}

void check_matrix(const char* field, const void* data, int64_t stride,
                  const GatedNormShape& shape) {
  kGatedDoor.matrix(field, data, stride, shape.rows, shape.width);
}

double product(int64_t a, int64_t b) { return static_cast<double>(a) * static_cast<double>(b); }

}  // namespace

void NormShape::check() const {
  kDoor.at_least("rows", rows, 0);
  kDoor.at_least("width", width, 1);
  kDoor.number("eps", eps, 0);
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
  kGatedDoor.at_least("rows", rows, 0);
  kGatedDoor.at_least("width", width, 1);
  kGatedDoor.at_least("group", group, 0);
  kGatedDoor.divides("group", group_width(), "width", width);
  kGatedDoor.number("eps", eps, 0);
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
  static constexpr NormLine<T, R> kLines[] = {{cpu_line<T>("rows", 1),
                                               accepts_all,
                                               predict_norm_us<T>,
                                               norm_scratch<T>,
                                               {norm_rows_forward, norm_rows_backward}}};
  return kLines;
}

template <class T, class R>
void norm_forward(Context& context, const NormShape& shape, const NormForward<T, R>& args,
                  const Choice& choice) {
  shape.check();
  if (args.x == nullptr) kDoor.array("x and residual_in", args.residual_in, shape.rows);
  if (args.x != nullptr) kDoor.row_stride("x_stride", args.x_stride, shape.rows, shape.width);
  kDoor.array("y", args.y, shape.rows);
  run_line(context, kDoor.family(), norm_lines<T, R>(), shape, Direction::forward, args, choice);
}

template <class T, class R>
void norm_backward(Context& context, const NormShape& shape, const NormBackward<T, R>& args,
                   const Choice& choice) {
  shape.check();
  kDoor.array("r", args.r, shape.rows);
  kDoor.array("rstd", args.rstd, shape.rows);
  if (shape.kind == NormKind::layer) kDoor.array("mean", args.mean, shape.rows);
  kDoor.array("gy", args.gy, shape.rows);
  kDoor.array("dr", args.dr, shape.rows);
  run_line(context, kDoor.family(), norm_lines<T, R>(), shape, Direction::backward, args, choice);
}

template <class T>
std::span<const GatedNormLine<T>> gated_norm_lines() {
  static constexpr GatedNormLine<T> kLines[] = {
      {cpu_line<T>("rows", 1),
       accepts_all,
       predict_gated_us<T>,
       gated_scratch<T>,
       {gated_norm_rows_forward, gated_norm_rows_backward}}};
  return kLines;
}

template <class T>
void gated_norm_forward(Context& context, const GatedNormShape& shape,
                        const GatedNormForward<T>& args, const Choice& choice) {
  shape.check();
  check_matrix("y", args.y, args.y_stride, shape);
  check_matrix("z", args.z, args.z_stride, shape);
  check_matrix("out", args.out, args.out_stride, shape);
  kGatedDoor.array("w", args.w, shape.rows);
  run_line(context, kGatedDoor.family(), gated_norm_lines<T>(), shape, Direction::forward, args,
           choice);
}

template <class T>
void gated_norm_backward(Context& context, const GatedNormShape& shape,
                         const GatedNormBackward<T>& args, const Choice& choice) {
  shape.check();
  check_matrix("y", args.y, args.y_stride, shape);
  check_matrix("z", args.z, args.z_stride, shape);
  check_matrix("gout", args.gout, args.gout_stride, shape);
  check_matrix("dy", args.dy, args.dy_stride, shape);
  check_matrix("dz", args.dz, args.dz_stride, shape);
  kGatedDoor.array("rstd", args.rstd, shape.rows);
  kGatedDoor.array("w", args.w, shape.rows);
  run_line(context, kGatedDoor.family(), gated_norm_lines<T>(), shape, Direction::backward, args,
           choice);
}

#define ADDER_NORM_INSTANTIATE(T, R)                           \
  template std::span<const NormLine<T, R>> norm_lines<T, R>(); \
  ADDER_DOOR(norm_forward, NormShape, NormForward<T, R>)       \
  ADDER_DOOR(norm_backward, NormShape, NormBackward<T, R>)
ADDER_NORM_INSTANTIATE(double, double)
ADDER_NORM_INSTANTIATE(float, float)
ADDER_NORM_INSTANTIATE(Bf16, float)
ADDER_NORM_INSTANTIATE(Bf16, Bf16)
#undef ADDER_NORM_INSTANTIATE

#define ADDER_GATED_NORM_INSTANTIATE(T)                               \
  template std::span<const GatedNormLine<T>> gated_norm_lines<T>();   \
  ADDER_DOOR(gated_norm_forward, GatedNormShape, GatedNormForward<T>) \
  ADDER_DOOR(gated_norm_backward, GatedNormShape, GatedNormBackward<T>)
ADDER_GATED_NORM_INSTANTIATE(double)
ADDER_GATED_NORM_INSTANTIATE(float)
ADDER_GATED_NORM_INSTANTIATE(Bf16)
#undef ADDER_GATED_NORM_INSTANTIATE

}  // namespace adder
