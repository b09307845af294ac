#include "kernels/pointwise/pointwise.h"

#include "core/door.h"
#include "core/threads.h"
#include "kernels/pointwise/pointwise_lines.h"

namespace adder {
namespace {

constexpr Door kDoor("pointwise");

// A nanosecond an element of one core.
double predict_us(const Caps&, const PointwiseShape& shape, Direction) {
  return 1.0 + static_cast<double>(shape.rows * shape.width) / (1e3 * kPredictedThreads);
}

// body(first, count) over blocks of the elements.
template <class Body>
void in_blocks(const PointwiseShape& shape, int threads, const Body& body) {
  const int64_t count = shape.rows * shape.width;
  parallel_for(threads, pointwise_blocks(count), [&](int64_t block) {
    const int64_t first = block * kPointwiseBlock;
    body(first, std::min(kPointwiseBlock, count - first));
  });
}

template <class From, class To>
void convert_elements(const PointwiseShape& shape, const ConvertArgs<From, To>& args, Exec exec) {
  in_blocks(shape, exec.threads, [&](int64_t first, int64_t n) {
    convert_block(n, args.from + first, args.to + first);
  });
}

template <class Acc>
void decay_elements(const PointwiseShape& shape, const DecayForward<Acc>& args, Exec exec) {
  in_blocks(shape, exec.threads,
            [&](int64_t first, int64_t n) { decay_block(n, args.a_log + first, args.a + first); });
}
template <class Acc>
void decay_gradients(const PointwiseShape& shape, const DecayBackward<Acc>& args, Exec exec) {
  in_blocks(shape, exec.threads, [&](int64_t first, int64_t n) {
    multiply_block(n, args.a + first, args.da + first, args.accumulate, args.da_log + first);
  });
}

int64_t column_sum_blocks(const PointwiseShape& shape) {
  return (shape.rows + kColumnSumRows - 1) / kColumnSumRows;
}
template <class T>
int64_t column_sum_scratch(const Caps&, const PointwiseShape& shape, Direction) {
  return column_sum_blocks(shape) * shape.width * static_cast<int64_t>(sizeof(accumulate_t<T>));
}
template <class T>
void column_sum_of_blocks(const PointwiseShape& shape, const ColumnSumArgs<T>& args, Exec exec) {
  using Acc = accumulate_t<T>;
  const int64_t blocks = column_sum_blocks(shape);
  Acc* partial = exec.carve<Acc>(blocks * shape.width);
  parallel_for(exec.threads, blocks, [&](int64_t block) {
    const int64_t first = block * kColumnSumRows;
    column_sum_block(std::min(kColumnSumRows, shape.rows - first), shape.width,
                     args.g + first * args.g_stride, args.g_stride, partial + block * shape.width);
  });
  if (!args.accumulate) std::fill(args.out, args.out + shape.width, Acc(0));
  for (int64_t block = 0; block < blocks; ++block) {
    add_block(shape.width, partial + block * shape.width, args.out);
  }
}

void check_matrix(const char* field, const void* data, int64_t stride,
                  const PointwiseShape& shape) {
  kDoor.matrix(field, data, stride, shape.rows, shape.width);
}
void check_dense(const char* field, const void* data, const PointwiseShape& shape) {
  kDoor.array(field, data, shape.rows * shape.width);
}

}  // namespace

void PointwiseShape::check() const {
  kDoor.at_least("rows", rows, 0);
  kDoor.at_least("width", width, 0);
}

Cost PointwiseShape::cost(Dtype from, Dtype to) const {
  const auto elements = static_cast<double>(rows) * static_cast<double>(width);
  Cost cost;
  cost.flops = elements;
  cost.bytes = elements * static_cast<double>(dtype_bytes(from) + dtype_bytes(to));
  return cost;
}

std::string PointwiseShape::describe() const {
  return "rows " + std::to_string(rows) + " width " + std::to_string(width);
}

template <class From, class To>
std::span<const ConvertLine<From, To>> convert_lines() {
  static constexpr ConvertLine<From, To> kLines[] = {{cpu_line<From>("elementwise", 1),
                                                      accepts_all,
                                                      predict_us,
                                                      no_scratch,
                                                      {convert_elements<From, To>}}};
  return kLines;
}

template <class From, class To>
void convert(Context& context, const PointwiseShape& shape, const ConvertArgs<From, To>& args,
             const Choice& choice) {
  shape.check();
  check_dense("from", args.from, shape);
  check_dense("to", args.to, shape);
  run_line(context, kDoor.family(), convert_lines<From, To>(), shape, Direction::forward, args,
           choice);
}

template <class T>
std::span<const ColumnSumLine<T>> column_sum_lines() {
  static constexpr ColumnSumLine<T> kLines[] = {{cpu_line<T>("row_blocks", 1),
                                                 accepts_all,
                                                 predict_us,
                                                 column_sum_scratch<T>,
                                                 {column_sum_of_blocks<T>}}};
  return kLines;
}

template <class T>
void column_sum(Context& context, const PointwiseShape& shape, const ColumnSumArgs<T>& args,
                const Choice& choice) {
  shape.check();
  check_matrix("g", args.g, args.g_stride, shape);
  kDoor.array("out", args.out, shape.width);
  run_line(context, kDoor.family(), column_sum_lines<T>(), shape, Direction::forward, args, choice);
}

template <class Acc>
std::span<const DecayLine<Acc>> decay_lines() {
  static constexpr DecayLine<Acc> kLines[] = {{cpu_line<Acc>("elementwise", 1),
                                               accepts_all,
                                               predict_us,
                                               no_scratch,
                                               {decay_elements<Acc>, decay_gradients<Acc>}}};
  return kLines;
}

template <class Acc>
void decay_forward(Context& context, const PointwiseShape& shape, const DecayForward<Acc>& args,
                   const Choice& choice) {
  shape.check();
  check_dense("a_log", args.a_log, shape);
  check_dense("a", args.a, shape);
  run_line(context, kDoor.family(), decay_lines<Acc>(), shape, Direction::forward, args, choice);
}

template <class Acc>
void decay_backward(Context& context, const PointwiseShape& shape, const DecayBackward<Acc>& args,
                    const Choice& choice) {
  shape.check();
  check_dense("a", args.a, shape);
  check_dense("da", args.da, shape);
  check_dense("da_log", args.da_log, shape);
  run_line(context, kDoor.family(), decay_lines<Acc>(), shape, Direction::backward, args, choice);
}

template <class T>
std::span<const GateLine<T>> gate_lines() {
  static constexpr GateLine<T> kLines[] = {{cpu_line<T>("rowwise", 1),
                                            accepts_all,
                                            predict_us,
                                            no_scratch,
                                            {gate_forward_rowwise, gate_backward_rowwise}}};
  return kLines;
}

template <class T>
void gate_forward(Context& context, const PointwiseShape& shape, const GateForward<T>& args,
                  const Choice& choice) {
  shape.check();
  check_matrix("y", args.y, args.y_stride, shape);
  check_matrix("gate", args.gate, args.gate_stride, shape);
  check_matrix("out", args.out, args.out_stride, shape);
  run_line(context, kDoor.family(), gate_lines<T>(), shape, Direction::forward, args, choice);
}

template <class T>
void gate_backward(Context& context, const PointwiseShape& shape, const GateBackward<T>& args,
                   const Choice& choice) {
  shape.check();
  check_matrix("y", args.y, args.y_stride, shape);
  check_matrix("gate", args.gate, args.gate_stride, shape);
  check_matrix("gout", args.gout, args.gout_stride, shape);
  check_matrix("dy", args.dy, args.dy_stride, shape);
  check_matrix("dgate", args.dgate, args.dgate_stride, shape);
  run_line(context, kDoor.family(), gate_lines<T>(), shape, Direction::backward, args, choice);
}

#define ADDER_CONVERT(From, To)                                              \
  template std::span<const ConvertLine<From, To>> convert_lines<From, To>(); \
  ADDER_DOOR(convert, PointwiseShape, ConvertArgs<From, To>)
#define ADDER_CONVERT_FROM(From) \
  ADDER_CONVERT(From, double)    \
  ADDER_CONVERT(From, float)     \
  ADDER_CONVERT(From, Bf16)      \
  ADDER_CONVERT(From, F16)
ADDER_CONVERT_FROM(double)
ADDER_CONVERT_FROM(float)
ADDER_CONVERT_FROM(Bf16)
ADDER_CONVERT_FROM(F16)
#undef ADDER_CONVERT_FROM
#undef ADDER_CONVERT

#define ADDER_POINTWISE(T)                                          \
  template std::span<const ColumnSumLine<T>> column_sum_lines<T>(); \
  ADDER_DOOR(column_sum, PointwiseShape, ColumnSumArgs<T>)          \
  template std::span<const GateLine<T>> gate_lines<T>();            \
  ADDER_DOOR(gate_forward, PointwiseShape, GateForward<T>)          \
  ADDER_DOOR(gate_backward, PointwiseShape, GateBackward<T>)
ADDER_POINTWISE(double)
ADDER_POINTWISE(float)
ADDER_POINTWISE(Bf16)
#undef ADDER_POINTWISE

#define ADDER_DECAY(Acc)                                       \
  template std::span<const DecayLine<Acc>> decay_lines<Acc>(); \
  ADDER_DOOR(decay_forward, PointwiseShape, DecayForward<Acc>) \
  ADDER_DOOR(decay_backward, PointwiseShape, DecayBackward<Acc>)
ADDER_DECAY(double)
ADDER_DECAY(float)
#undef ADDER_DECAY

}  // namespace adder
