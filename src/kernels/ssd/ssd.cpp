#include "kernels/ssd/ssd.h"

#include <algorithm>

#include "core/context.h"
#include "kernels/ssd/ssd_lines.h"

namespace adder {
namespace {

[[noreturn]] void bad(const char* field, std::string expected, std::string got) {
  throw Error({"bad shape", std::string("ssd: ") + field, std::move(expected), std::move(got)});
}

void at_least(const char* field, int64_t value, int64_t least) {
  if (value < least) bad(field, ">= " + std::to_string(least), std::to_string(value));
}

void check_boundaries(const SsdShape& shape, const int32_t* cu) {
  if (cu == nullptr) bad("cu_seqlens", "an array (sequences > 0)", "none");
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

void given(const char* field, bool present) {
  if (!present) bad(field, "an array", "none");
}

template <class View>
void unit_stride(const char* field, const View& view) {
  if (view && view.channel_stride != 1) {
    bad(field, "channel stride 1", std::to_string(view.channel_stride));
  }
}

template <class T>
void check_inputs(const SsdShape& shape, const SsdInputs<T>& in) {
  if (shape.packed()) check_boundaries(shape, in.cu_seqlens);
  for (int64_t r = 0; in.state_index != nullptr && r < shape.state_rows(); ++r) {
    at_least("state_index", in.state_index[r], 0);
  }
  for (int64_t t = 0; in.order != nullptr && t < shape.len; ++t) {
    if (in.order[t] < 0 || in.order[t] >= shape.len) {
      bad("order", "0 <= token < " + std::to_string(shape.len), std::to_string(in.order[t]));
    }
  }
  if (!(in.dt_min <= in.dt_max)) {
    bad("dt_min", "<= dt_max " + std::to_string(in.dt_max), std::to_string(in.dt_min));
  }
  if (shape.batch == 0 || shape.len == 0) return;
  given("x", static_cast<bool>(in.x));
  given("dt", static_cast<bool>(in.dt));
  given("B", static_cast<bool>(in.B));
  given("C", static_cast<bool>(in.C));
  given("A", in.A != nullptr);
  if (shape.gated) given("z", static_cast<bool>(in.z));
  unit_stride("x", in.x);
  unit_stride("dt", in.dt);
  unit_stride("B", in.B);
  unit_stride("C", in.C);
  unit_stride("z", in.z);
  for (int64_t head = 0; head < shape.heads; ++head) {
    // A NaN passes: it shows in the result, where the caller looks for it.
    if (in.A[head] > 0) bad("A", "entries <= 0", std::to_string(in.A[head]));
  }
}

template <class T>
void check_outputs(const SsdShape& shape, const SsdBackward<T>& args) {
  unit_stride("gy", args.gy);
  unit_stride("dx", args.dx);
  unit_stride("ddt", args.ddt);
  unit_stride("dB", args.dB);
  unit_stride("dC", args.dC);
  unit_stride("dz", args.dz);
  if (shape.batch == 0 || shape.len == 0) return;
  given("gy", static_cast<bool>(args.gy));
  given("saved", args.saved != nullptr);
}

bool accepts_all(const Caps&, const SsdShape&) { return true; }

template <class T>
bool has_direction(const SsdFunctions<T>& run, Direction direction) {
  return (direction == Direction::forward && run.forward != nullptr) ||
         (direction == Direction::backward && run.backward != nullptr);
}

template <class T>
LineInfo info(const char* name, int exact_class) {
  return {name, Device::cpu, dtype_of<T>, exact_class};
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
  at_least("batch", batch, 0);
  at_least("len", len, 0);
  at_least("heads", heads, 1);
  at_least("head_dim", head_dim, 1);
  at_least("state", state, 1);
  at_least("groups", groups, 1);
  at_least("chunk", chunk, 1);
  at_least("sequences", sequences, 0);
  if (heads % groups != 0) {
    bad("groups", "a divisor of heads " + std::to_string(heads), std::to_string(groups));
  }
  if (packed() && batch != 1) bad("batch", "1 (packed)", std::to_string(batch));
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

template <class T>
std::span<const SsdLine<T>> ssd_lines() {
  static const SsdLine<T> lines[] = {
      {info<T>("recurrent", 1),
       accepts_all,
       ssd::recurrent_us<T>,
       ssd::recurrent_scratch<T>,
       {ssd::recurrent_forward<T>, ssd::recurrent_backward<T>},
       has_direction<T>},
      // How products are cut depends on the chunk: no exact class.
      {info<T>("chunked", 0),
       [](const Caps& caps, const SsdShape& shape) { return ssd::chunked_accepts(caps, shape); },
       ssd::chunked_us<T>,
       ssd::chunked_scratch<T>,
       {ssd::chunked_forward<T>, ssd::chunked_backward<T>},
       has_direction<T>},
  };
  return lines;
}

template <class T>
void ssd_forward(Context& context, const SsdShape& shape, const SsdForward<T>& args,
                 const Choice& choice) {
  shape.check();
  if (!context.arena->measuring()) {
    check_inputs(shape, args.in);
    unit_stride("y", args.y);
    if (shape.batch != 0 && shape.len != 0) given("y", static_cast<bool>(args.y));
  }
  const auto& line =
      pick_line("ssd", ssd_lines<T>(), context.caps(), shape, Direction::forward, choice);
  run_line(context, line, shape, Direction::forward,
           [&](Exec exec) { line.run.forward(shape, args, exec); });
}

template <class T>
void ssd_backward(Context& context, const SsdShape& shape, const SsdBackward<T>& args,
                  const Choice& choice) {
  shape.check();
  if (!context.arena->measuring()) {
    check_inputs(shape, args.in);
    check_outputs(shape, args);
  }
  const auto& line =
      pick_line("ssd", ssd_lines<T>(), context.caps(), shape, Direction::backward, choice);
  run_line(context, line, shape, Direction::backward,
           [&](Exec exec) { line.run.backward(shape, args, exec); });
}

template <class T>
void ssd_step(Context& context, const SsdShape& shape, SsdForward<T> args, const Choice& choice) {
  if (shape.len != 1 || shape.packed()) {
    bad("len", "1, not packed (a step)", shape.describe());
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

}  // namespace adder
