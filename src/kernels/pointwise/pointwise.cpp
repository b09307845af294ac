#include "kernels/pointwise/pointwise.h"

#include "core/threads.h"
#include "kernels/pointwise/pointwise_lines.h"

namespace adder {
namespace {

bool accepts_any(const Caps&, const PointwiseShape&) { return true; }
double rowwise_us(const Caps& caps, const PointwiseShape& shape, Direction) {
  const auto elements = static_cast<double>(shape.rows * shape.width);
  return 1.0 + elements / (1e3 * std::max(1, caps.threads));
}
int64_t no_scratch(const PointwiseShape&, Direction) { return 0; }
template <class T>
bool has_gate(const GateFunctions<T>&, Direction direction) {
  return direction != Direction::step;
}
template <class T>
constexpr GateLine<T> kRowwise[] = {{{"rowwise", Device::cpu, dtype_of<T>, 1},
                                     accepts_any,
                                     rowwise_us,
                                     no_scratch,
                                     {gate_forward_rowwise, gate_backward_rowwise},
                                     has_gate<T>}};

// body(first, count) over blocks of [0, count); nothing runs while memory is only planned.
template <class Body>
void in_blocks(Context& context, int64_t count, const Body& body) {
  if (context.arena != nullptr && context.arena->measuring()) return;
  parallel_for(context.threads, pointwise_blocks(count), [&](int64_t block) {
    const int64_t first = block * kPointwiseBlock;
    body(first, std::min(kPointwiseBlock, count - first));
  });
}

void check_extent(const char* field, int64_t value) {
  if (value < 0) {
    throw Error(
        {"negative extent", std::string("pointwise: ") + field, ">= 0", std::to_string(value)});
  }
}

// Rows that overlap would be written twice.
void check_stride(const char* field, int64_t stride, const PointwiseShape& shape) {
  if (shape.rows > 1 && stride < shape.width) {
    throw Error({"bad shape", std::string("pointwise: ") + field,
                 ">= " + std::to_string(shape.width) + " (width)", std::to_string(stride)});
  }
}

}  // namespace

void PointwiseShape::check() const {
  check_extent("rows", rows);
  check_extent("width", width);
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
void convert(Context& context, int64_t count, const From* from, To* to) {
  in_blocks(context, count,
            [&](int64_t first, int64_t n) { convert_block(n, from + first, to + first); });
}

template <class T>
void add_into(Context& context, int64_t count, const T* x, T* sum) {
  in_blocks(context, count,
            [&](int64_t first, int64_t n) { add_block(n, x + first, sum + first); });
}

template <class T>
void column_sum(Context& context, const PointwiseShape& shape, const T* g, int64_t g_stride,
                accumulate_t<T>* out, bool accumulate) {
  using Acc = accumulate_t<T>;
  shape.check();
  Arena::Scope scope(*context.arena);
  const int64_t blocks = (shape.rows + kColumnSumRows - 1) / kColumnSumRows;
  Acc* partial = context.arena->take<Acc>(blocks * shape.width);
  if (context.arena->measuring()) return;
  parallel_for(context.threads, blocks, [&](int64_t block) {
    const int64_t first = block * kColumnSumRows;
    column_sum_block(std::min(kColumnSumRows, shape.rows - first), shape.width,
                     g + first * g_stride, g_stride, partial + block * shape.width);
  });
  if (!accumulate) std::fill(out, out + shape.width, Acc(0));
  for (int64_t block = 0; block < blocks; ++block) {
    add_block(shape.width, partial + block * shape.width, out);
  }
}

template <class Acc>
void decay_from_log(Context& context, int64_t count, const Acc* a_log, Acc* a) {
  in_blocks(context, count,
            [&](int64_t first, int64_t n) { decay_block(n, a_log + first, a + first); });
}

template <class Acc>
void decay_log_gradient(Context& context, int64_t count, const Acc* a, const Acc* da, Acc* da_log,
                        bool accumulate) {
  in_blocks(context, count, [&](int64_t first, int64_t n) {
    multiply_block(n, a + first, da + first, accumulate, da_log + first);
  });
}

template <>
std::span<const GateLine<double>> gate_lines<double>() {
  return kRowwise<double>;
}
template <>
std::span<const GateLine<float>> gate_lines<float>() {
  return kRowwise<float>;
}
template <>
std::span<const GateLine<Bf16>> gate_lines<Bf16>() {
  return kRowwise<Bf16>;
}

template <class T>
void gate_forward(Context& context, const PointwiseShape& shape, const GateForward<T>& args,
                  const Choice& choice) {
  shape.check();
  if (!context.arena->measuring()) {
    check_stride("y_stride", args.y_stride, shape);
    check_stride("gate_stride", args.gate_stride, shape);
    check_stride("out_stride", args.out_stride, shape);
  }
  const auto& line =
      pick_line("pointwise", gate_lines<T>(), context.caps(), shape, Direction::forward, choice);
  run_line(context, line, shape, Direction::forward,
           [&](Exec exec) { line.run.forward(shape, args, exec); });
}

template <class T>
void gate_backward(Context& context, const PointwiseShape& shape, const GateBackward<T>& args,
                   const Choice& choice) {
  shape.check();
  if (!context.arena->measuring()) {
    check_stride("y_stride", args.y_stride, shape);
    check_stride("gate_stride", args.gate_stride, shape);
    check_stride("gout_stride", args.gout_stride, shape);
    check_stride("dy_stride", args.dy_stride, shape);
    check_stride("dgate_stride", args.dgate_stride, shape);
  }
  const auto& line =
      pick_line("pointwise", gate_lines<T>(), context.caps(), shape, Direction::backward, choice);
  run_line(context, line, shape, Direction::backward,
           [&](Exec exec) { line.run.backward(shape, args, exec); });
}

#define ADDER_CONVERT(From)                                                     \
  template void convert<From, double>(Context&, int64_t, const From*, double*); \
  template void convert<From, float>(Context&, int64_t, const From*, float*);   \
  template void convert<From, Bf16>(Context&, int64_t, const From*, Bf16*);     \
  template void convert<From, F16>(Context&, int64_t, const From*, F16*);
ADDER_CONVERT(double)
ADDER_CONVERT(float)
ADDER_CONVERT(Bf16)
ADDER_CONVERT(F16)
#undef ADDER_CONVERT

#define ADDER_POINTWISE(T)                                                                \
  template void add_into<T>(Context&, int64_t, const T*, T*);                             \
  template void column_sum<T>(Context&, const PointwiseShape&, const T*, int64_t,         \
                              accumulate_t<T>*, bool);                                    \
  template void gate_forward<T>(Context&, const PointwiseShape&, const GateForward<T>&,   \
                                const Choice&);                                           \
  template void gate_backward<T>(Context&, const PointwiseShape&, const GateBackward<T>&, \
                                 const Choice&);
ADDER_POINTWISE(double)
ADDER_POINTWISE(float)
ADDER_POINTWISE(Bf16)
#undef ADDER_POINTWISE

#define ADDER_DECAY(Acc)                                                  \
  template void decay_from_log<Acc>(Context&, int64_t, const Acc*, Acc*); \
  template void decay_log_gradient<Acc>(Context&, int64_t, const Acc*, const Acc*, Acc*, bool);
ADDER_DECAY(double)
ADDER_DECAY(float)
#undef ADDER_DECAY

}  // namespace adder
