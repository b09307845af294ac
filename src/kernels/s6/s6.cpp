#include "kernels/s6/s6.h"

#include <algorithm>

#include "core/context.h"
#include "core/door.h"
#include "kernels/s6/s6_lines.h"
#include "kernels/s6/s6_plan.h"

namespace adder {
namespace {

constexpr Door kDoor("s6");

template <class T>
void check_inputs(const S6Shape& shape, const S6Inputs<T>& in) {
  kDoor.sequence_arrays(shape, in);
  if (!(in.dt_min <= in.dt_max)) {
    kDoor.bad("dt_min", "<= dt_max " + std::to_string(in.dt_max), std::to_string(in.dt_min));
  }
  if (shape.empty()) return;
  kDoor.given("u", in.u);
  kDoor.given("dt", in.dt);
  kDoor.given("B", in.B);
  kDoor.given("C", in.C);
  if (shape.gated) kDoor.given("z", in.z);
  kDoor.given("A", in.A != nullptr);
  kDoor.unit_stride("B", in.B);
  kDoor.unit_stride("C", in.C);
}

template <class T>
void check_outputs(const S6Shape& shape, const S6Forward<T>& args) {
  if (!shape.empty()) kDoor.given("y", args.y);
}
template <class T>
void check_outputs(const S6Shape& shape, const S6Backward<T>& args) {
  kDoor.unit_stride("dB", args.dB);
  kDoor.unit_stride("dC", args.dC);
  if (shape.empty()) return;
  kDoor.given("gy", args.gy);
  kDoor.given("saved", args.saved != nullptr);
}

template <class T>
Layout layout_of_call(const S6Forward<T>& args) {
  const S6Inputs<T>& in = args.in;
  return sequence_layout(in, in.u, in.dt, in.B, in.C, in.z, args.y);
}
template <class T>
Layout layout_of_call(const S6Backward<T>& args) {
  const S6Inputs<T>& in = args.in;
  return sequence_layout(in, in.u, in.dt, in.B, in.C, in.z, args.gy, args.du, args.ddt, args.dB,
                         args.dC, args.dz);
}

template <class T, class Args>
void run(Context& context, S6Shape shape, Direction direction, const Args& args,
         const Choice& choice) {
  shape.check();
  check_inputs(shape, args.in);
  check_outputs(shape, args);
  shape.layout = layout_of_call(args);
  run_line(context, kDoor.family(), s6_lines<T>(), shape, direction, args, choice);
}

bool accepts_real(const Caps&, const S6Shape& shape) { return !shape.complex; }
bool accepts_complex(const Caps&, const S6Shape& shape) { return shape.complex; }

/// Nanoseconds of one token of one word of channels on one core (measured on Sapphire Rapids, the
/// same for 16 lanes as for 8): states, then softplus, gate and traffic.
template <class T>
double word_ns(const S6Shape& shape, Direction direction) {
  const double states = static_cast<double>(s6::padded_states(shape.state));
  const double width = sizeof(accumulate_t<T>) == 8 ? 2.2 : 1.0;
  return width * (direction == Direction::backward ? 40 + 5.0 * states : 16 + 1.75 * states);
}

/// Microseconds when `items` equal items go over the threads, `ns` altogether on one.
double spread_us(double ns, int64_t items) {
  if (items == 0) return 1.0;
  const int64_t rounds = s6::ceil_div(items, kPredictedThreads);
  return 1.0 + ns * 1e-3 * static_cast<double>(rounds) / static_cast<double>(items);
}

template <class T>
double whole_ns(const Caps& caps, const S6Shape& shape, Direction direction) {
  const int64_t lanes = std::max<int64_t>(1, caps.vector_bytes / int64_t{sizeof(accumulate_t<T>)});
  const double words = static_cast<double>(s6::Cut(shape, lanes).words());
  return word_ns<T>(shape, direction) * words * static_cast<double>(shape.batch) *
         static_cast<double>(shape.len);
}

template <class T>
double predict_sequential_us(const Caps& caps, const S6Shape& shape, Direction direction) {
  const int64_t bundles = std::min(shape.state_rows(), s6::kMaxBundles);
  return spread_us(whole_ns<T>(caps, shape, direction), bundles * s6::Cut(shape, 1).tiles());
}

template <class T>
double predict_chunked_us(const Caps& caps, const S6Shape& shape, Direction direction) {
  const int64_t bundles = std::min(shape.state_rows(), s6::kMaxBundles);
  return 1.03 * spread_us(whole_ns<T>(caps, shape, direction), bundles * s6::Cut(shape, 1).tiles());
}

template <class T>
double predict_parallel_us(const Caps& caps, const S6Shape& shape, Direction direction) {
  const int64_t segments = s6::max_segments(shape, s6::parallel_segment_tokens(shape));
  return 10.0 +
         1.8 * spread_us(whole_ns<T>(caps, shape, direction), segments * s6::Cut(shape, 1).tiles());
}

}  // namespace

void S6Shape::check() const {
  kDoor.at_least("batch", batch, 0);
  kDoor.at_least("len", len, 0);
  kDoor.at_least("dim", dim, 1);
  kDoor.at_least("state", state, 1);
  kDoor.divides("groups", groups, "dim", dim);
  kDoor.at_least("sequences", sequences, 0);
  if (packed() && batch != 1) kDoor.bad("batch", "1 (packed)", std::to_string(batch));
}

Cost S6Shape::cost(Direction direction, Dtype dtype) const {
  // math.md 3.7, with every optional argument but h0, hT and their gradients.
  const double tokens = static_cast<double>(batch) * static_cast<double>(len);
  const double points = tokens * static_cast<double>(dim);
  // A complex multiply-add is four real ones, and e^(delta A) has a sine and a cosine besides.
  const double states = static_cast<double>(complex ? 4 * state : state);
  const double size = static_cast<double>(dtype_bytes(dtype));
  const double acc = dtype == Dtype::f64 ? 8 : 4;
  const double shared =
      tokens * static_cast<double>(2 * groups * state_numbers()) * size;  // B and C
  const double saved = static_cast<double>(saved_elements()) * acc;
  const bool backward = direction == Direction::backward;
  Cost cost;
  cost.flops = points * (backward ? 20 * states + 24 : 6 * states + 12);
  cost.exps = points * (static_cast<double>(complex ? 3 * state : state) + (softplus ? 1 : 0) +
                        (gated ? 1 : 0));
  cost.bytes = points * size * (backward ? (gated ? 7 : 5) : (gated ? 4 : 3)) +
               shared * (backward ? 2 : 1) + static_cast<double>(dim * state_numbers()) * acc;
  if (direction != Direction::step) cost.bytes += saved;
  if (!backward) cost.saved_bytes = saved_elements() * static_cast<int64_t>(acc);
  return cost;
}

std::string S6Shape::describe() const {
  std::string text = "batch " + std::to_string(batch) + " len " + std::to_string(len) + " dim " +
                     std::to_string(dim) + " state " + std::to_string(state);
  if (groups != 1) text += " groups " + std::to_string(groups);
  if (packed()) text += " sequences " + std::to_string(sequences);
  if (!softplus) text += " softplus off";
  if (gated) text += " gated";
  if (complex) text += " complex";
  return text;
}

template <class T>
std::span<const S6Line<T>> s6_lines() {
  static const S6Line<T> lines[] = {
      {cpu_line<T>("sequential", 1),
       accepts_real,
       predict_sequential_us<T>,
       s6::sequential_scratch<T>,
       {s6::sequential_forward<T>, s6::chunked_backward<T>}},
      {cpu_line<T>("chunked", 1),
       accepts_real,
       predict_chunked_us<T>,
       s6::sequential_scratch<T>,
       {s6::chunked_forward<T>, s6::chunked_backward<T>}},
      // Where segments begin depends on the length: no exact class.
      {cpu_line<T>("parallel", 0),
       accepts_real,
       predict_parallel_us<T>,
       s6::parallel_scratch<T>,
       {s6::parallel_forward<T>, s6::parallel_backward<T>}},
      {cpu_line<T>("complex", 1),
       accepts_complex,
       predict_sequential_us<T>,
       s6::complex_scratch<T>,
       {s6::complex_forward<T>, s6::complex_backward<T>}},
  };
  return lines;
}

template <class Acc>
void check_decay(const S6Shape& shape, std::span<const Acc> A) {
  for (size_t i = 0; i < A.size(); i += shape.complex ? 2 : 1) {
    if (A[i] > 0) kDoor.bad("A", "(real parts of) entries <= 0", std::to_string(A[i]));
  }
}

template <class T>
void s6_forward(Context& context, const S6Shape& shape, const S6Forward<T>& args,
                const Choice& choice) {
  run<T>(context, shape, Direction::forward, args, choice);
}

template <class T>
void s6_backward(Context& context, const S6Shape& shape, const S6Backward<T>& args,
                 const Choice& choice) {
  run<T>(context, shape, Direction::backward, args, choice);
}

template <class T>
void s6_step(Context& context, const S6Shape& shape, S6Forward<T> args, const Choice& choice) {
  if (shape.len != 1 || shape.packed()) {
    kDoor.bad("len", "1, not packed (a step)", shape.describe());
  }
  args.saved = nullptr;
  s6_forward(context, shape, args, choice);
}

#define ADDER_S6(T)                                                                            \
  template std::span<const S6Line<T>> s6_lines<T>();                                           \
  template void s6_forward<T>(Context&, const S6Shape&, const S6Forward<T>&, const Choice&);   \
  template void s6_backward<T>(Context&, const S6Shape&, const S6Backward<T>&, const Choice&); \
  template void s6_step<T>(Context&, const S6Shape&, S6Forward<T>, const Choice&);
ADDER_S6(double)
ADDER_S6(float)
ADDER_S6(Bf16)
#undef ADDER_S6
template void check_decay(const S6Shape&, std::span<const double>);
template void check_decay(const S6Shape&, std::span<const float>);

}  // namespace adder
