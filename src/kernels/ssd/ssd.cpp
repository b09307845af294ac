#include "kernels/ssd/ssd.h"

#include <algorithm>
#include <vector>

#include "core/context.h"
#include "core/door.h"
#include "kernels/ssd/ssd_lines.h"

namespace adder {
namespace {

constexpr Door kDoor("ssd");

template <class T>
void check_inputs(const SsdShape& shape, const SsdInputs<T>& in) {
  kDoor.sequence_arrays(shape, in);
  if (!(in.dt_min <= in.dt_max)) {
    kDoor.bad("dt_min", "<= dt_max " + std::to_string(in.dt_max), std::to_string(in.dt_min));
  }
  if (shape.empty()) return;
  kDoor.given("x", in.x);
  kDoor.given("dt", in.dt);
  kDoor.given("B", in.B);
  kDoor.given("C", in.C);
  kDoor.given("A", in.A != nullptr);
  if (shape.gated) kDoor.given("z", in.z);
  kDoor.unit_stride("x", in.x);
  kDoor.unit_stride("dt", in.dt);
  kDoor.unit_stride("B", in.B);
  kDoor.unit_stride("C", in.C);
  kDoor.unit_stride("z", in.z);
}

template <class T>
void check_outputs(const SsdShape& shape, const SsdForward<T>& args) {
  kDoor.unit_stride("y", args.y);
  if (!shape.empty()) kDoor.given("y", args.y);
}
template <class T>
void check_outputs(const SsdShape& shape, const SsdBackward<T>& args) {
  kDoor.unit_stride("gy", args.gy);
  kDoor.unit_stride("dx", args.dx);
  kDoor.unit_stride("ddt", args.ddt);
  kDoor.unit_stride("dB", args.dB);
  kDoor.unit_stride("dC", args.dC);
  kDoor.unit_stride("dz", args.dz);
  if (shape.empty()) return;
  kDoor.given("gy", args.gy);
  kDoor.given("saved", args.saved != nullptr);
}

template <class T>
Layout layout_of_call(const SsdForward<T>& args) {
  const SsdInputs<T>& in = args.in;
  return sequence_layout(in, in.x, in.dt, in.B, in.C, in.z, args.y);
}
template <class T>
Layout layout_of_call(const SsdBackward<T>& args) {
  const SsdInputs<T>& in = args.in;
  return sequence_layout(in, in.x, in.dt, in.B, in.C, in.z, args.gy, args.dx, args.ddt, args.dB,
                         args.dC, args.dz);
}

template <class T, class Args>
void run(Context& context, SsdShape shape, Direction direction, const Args& args,
         const Choice& choice) {
  shape.check();
  check_inputs(shape, args.in);
  check_outputs(shape, args);
  shape.layout = layout_of_call(args);
  run_line(context, kDoor.family(), ssd_lines<T>(), shape, direction, args, choice);
}

/// Adds and multiplies of one token, all heads: the smaller of the recurrence and of chunks whose
/// upper triangles are skipped (math.md 4.8 with its Q terms halved).
double token_flops(const SsdShape& shape, bool backward) {
  const auto heads = static_cast<double>(shape.heads);
  const auto groups = static_cast<double>(shape.groups);
  const auto p = static_cast<double>(shape.head_dim);
  const auto n = static_cast<double>(shape.state);
  const auto q = static_cast<double>(std::min(shape.chunk, std::max<int64_t>(shape.len, 1)));
  if (!backward) {
    return std::min(5 * p * n * heads, q * n * groups + heads * (q * p + 4 * p * n));
  }
  // Recurrence: the states again 3, lam 2, its decay 1, and 2 for each of dC, dB, dx and dA.
  return std::min(14 * p * n * heads, 2 * q * p * heads + 3 * q * n * groups + 10 * p * n * heads);
}

}  // namespace

void SsdShape::check() const {
  kDoor.at_least("batch", batch, 0);
  kDoor.at_least("len", len, 0);
  kDoor.at_least("heads", heads, 1);
  kDoor.at_least("head_dim", head_dim, 1);
  kDoor.at_least("state", state, 1);
  kDoor.divides("groups", groups, "heads", heads);
  kDoor.at_least("chunk", chunk, 1);
  kDoor.at_least("sequences", sequences, 0);
  if (packed() && batch != 1) kDoor.bad("batch", "1 (packed)", std::to_string(batch));
}

Cost SsdShape::cost(Direction direction, Dtype dtype) const {
  // math.md 4.8. The states h0 and hT count for single tokens, which exist to carry them; saved
  // chunk states count otherwise. Gradients of h0 and hT do not count.
  const double tokens = static_cast<double>(batch) * static_cast<double>(len);
  const auto size = static_cast<double>(dtype_bytes(dtype));
  const double acc = dtype == Dtype::f64 ? 8 : 4;
  const auto channels = static_cast<double>(inner());
  const auto shared = static_cast<double>(2 * groups * state);  // B and C
  const bool backward = direction == Direction::backward;
  const bool single = direction == Direction::step || (len == 1 && !backward);
  Cost cost;
  cost.flops = tokens * (token_flops(*this, backward) + 2 * channels);
  cost.exps = tokens * (static_cast<double>(heads) * (softplus ? 2 : 1) + (gated ? channels : 0));
  // x, y, z; in backward x, gy, dx, z, dz. dt and B, C once forward, with their gradients backward.
  cost.bytes = tokens * size *
               (channels * (backward ? (gated ? 5 : 3) : (gated ? 3 : 2)) +
                (shared + static_cast<double>(heads)) * (backward ? 2 : 1));
  cost.bytes += single ? 2 * acc * static_cast<double>(state_rows() * state_elements())
                       : acc * static_cast<double>(saved_elements());
  if (!backward) cost.saved_bytes = saved_elements() * static_cast<int64_t>(acc);
  return cost;
}

std::string SsdShape::describe() const {
  std::string text = "batch " + std::to_string(batch) + " len " + std::to_string(len) + " heads " +
                     std::to_string(heads) + " head_dim " + std::to_string(head_dim) + " state " +
                     std::to_string(state);
  if (groups != 1) text += " groups " + std::to_string(groups);
  if (chunk != SsdShape{}.chunk) text += " chunk " + std::to_string(chunk);
  if (packed()) text += " sequences " + std::to_string(sequences);
  if (!softplus) text += " softplus off";
  if (gated) text += " gated";
  if (d_per_channel) text += " D per channel";
  return text;
}

namespace {

template <class T>
std::vector<SsdLine<T>> list_lines() {
  std::vector<SsdLine<T>> lines = {
      {cpu_line<T>("recurrent", 1),
       accepts_all<SsdShape>,
       ssd::recurrent_us<T>,
       ssd::recurrent_scratch<T>,
       {ssd::recurrent_forward<T>, ssd::recurrent_backward<T>}},
      {cpu_line<T>("quadratic", 0),
       ssd::quadratic_accepts,
       ssd::quadratic_us<T>,
       ssd::quadratic_scratch<T>,
       {ssd::quadratic_forward<T>, ssd::quadratic_backward<T>}},
      // How products are cut depends on the chunk: no exact class.
      {cpu_line<T>("chunked", 0),
       ssd::chunked_accepts,
       ssd::chunked_us<T>,
       ssd::chunked_scratch<T>,
       {ssd::chunked_forward<T>, ssd::chunked_backward<T>}},
  };
  if constexpr (std::is_same_v<T, Bf16>) {
    const auto on_units = [](const char* name) {
      LineInfo info = cpu_line<T>(name, 0);
      info.matrix_units = true;
      info.rounds_operands = true;
      return info;
    };
    lines.push_back({on_units("chunked_amx"),
                     ssd::amx_accepts,
                     ssd::amx_us,
                     ssd::chunked_scratch<T>,
                     {ssd::amx_forward, ssd::amx_backward}});
    lines.push_back({on_units("chunked_avx512bf16"),
                     ssd::avx512bf16_accepts,
                     ssd::avx512bf16_us,
                     ssd::chunked_scratch<T>,
                     {ssd::avx512bf16_forward, ssd::avx512bf16_backward}});
  }
  return lines;
}

}  // namespace

template <class T>
std::span<const SsdLine<T>> ssd_lines() {
  static const std::vector<SsdLine<T>> lines = list_lines<T>();
  return lines;
}

template <class Acc>
void check_decay(const SsdShape&, std::span<const Acc> A) {
  for (const Acc rate : A) {
    if (rate > 0) kDoor.bad("A", "entries <= 0", std::to_string(rate));
  }
}

template <class T>
void ssd_forward(Context& context, const SsdShape& shape, const SsdForward<T>& args,
                 const Choice& choice) {
  run<T>(context, shape, Direction::forward, args, choice);
}

template <class T>
void ssd_backward(Context& context, const SsdShape& shape, const SsdBackward<T>& args,
                  const Choice& choice) {
  run<T>(context, shape, Direction::backward, args, choice);
}

template <class T>
void ssd_step(Context& context, const SsdShape& shape, SsdForward<T> args, const Choice& choice) {
  if (shape.len != 1 || shape.packed()) {
    kDoor.bad("len", "1, not packed (a step)", shape.describe());
  }
  args.saved = nullptr;
  ssd_forward(context, shape, args, choice);
}

#define ADDER_SSD(T)                                                                              \
  template std::span<const SsdLine<T>> ssd_lines<T>();                                            \
  template void ssd_forward<T>(Context&, const SsdShape&, const SsdForward<T>&, const Choice&);   \
  template void ssd_backward<T>(Context&, const SsdShape&, const SsdBackward<T>&, const Choice&); \
  template void ssd_step<T>(Context&, const SsdShape&, SsdForward<T>, const Choice&);
ADDER_SSD(double)
ADDER_SSD(float)
ADDER_SSD(Bf16)
#undef ADDER_SSD
template void check_decay(const SsdShape&, std::span<const double>);
template void check_decay(const SsdShape&, std::span<const float>);

}  // namespace adder
