#include "kernels/loss/loss.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "kernels/loss/fused.h"

namespace adder {
namespace {

void check_at_least(const char* name, int64_t least, int64_t got) {
  if (got < least) {
    throw Error({"wrong extent", fmt::format("loss {}", name), fmt::format(">= {}", least),
                 std::to_string(got)});
  }
}

void check_present(const char* name, bool needed, const void* data) {
  if (needed && data == nullptr) {
    throw Error({"argument absent", fmt::format("loss {}", name), "a pointer", "null"});
  }
}

void check_targets(const LossShape& shape, const int32_t* targets) {
  for (int64_t row = 0; row < shape.rows; ++row) {
    const int32_t target = targets[row];
    if (target == kIgnoreIndex || (target >= 0 && target < shape.vocab)) continue;
    throw Error({"target out of range", fmt::format("loss targets[{}]", row),
                 fmt::format("an id below the vocabulary of {}, or {}", shape.vocab, kIgnoreIndex),
                 std::to_string(target)});
  }
}

template <class T>
void check_args(const LossShape& shape, const LossForward<T>& args) {
  check_present("logits", true, args.logits);
  check_present("targets", true, args.targets);
  check_present("row_loss", true, args.row_loss);
  if (shape.rows > 1) {
    check_at_least("logit_stride", shape.columns, args.logit_stride);
    if (args.dlogits != nullptr) check_at_least("dlogit_stride", shape.columns, args.dlogit_stride);
  }
  check_targets(shape, args.targets);
}

bool accepts(const Caps&, const LossShape&) { return true; }

double predict_us(const Caps& caps, const LossShape& shape, Direction) {
  return 2.0 + static_cast<double>(shape.rows) * static_cast<double>(shape.columns) /
                   (40.0 * caps.vector_bytes);
}

int64_t scratch_bytes(const LossShape&, Direction) { return 0; }

template <class T>
bool has(const LossFunctions<T>&, Direction direction) {
  return direction == Direction::forward;
}

}  // namespace

void LossShape::check() const {
  check_at_least("rows", 0, rows);
  check_at_least("vocab", 1, vocab);
  check_at_least("columns", vocab, columns);
  if (!(label_smoothing >= 0 && label_smoothing < 1)) {
    throw Error({"option out of range", "loss label_smoothing", "in [0, 1)",
                 fmt::format("{}", label_smoothing)});
  }
  if (!(z_loss >= 0 && std::isfinite(z_loss))) {
    throw Error({"option out of range", "loss z_loss", ">= 0", fmt::format("{}", z_loss)});
  }
}

Cost LossShape::cost(Direction direction, Dtype dtype) const {
  const bool gradient = direction == Direction::backward;
  const double elements = static_cast<double>(rows) * static_cast<double>(vocab);
  const double padded = static_cast<double>(rows) * static_cast<double>(columns);
  const auto width = static_cast<double>(dtype_bytes(dtype));
  Cost cost;
  cost.exps = elements * (gradient ? 2 : 1);
  cost.flops = elements * (gradient ? 6 : 3);  // maximum, shift, sum; shift, scale, subtract
  cost.bytes = elements * width + (gradient ? padded * width : 0) + static_cast<double>(rows) * 12;
  return cost;
}

std::string LossShape::describe() const {
  std::string text = fmt::format("rows{} vocab{} columns{}", rows, vocab, columns);
  if (label_smoothing > 0) text += fmt::format(" smoothing{}", label_smoothing);
  if (z_loss > 0) text += fmt::format(" z{}", z_loss);
  return text;
}

template <class T>
std::span<const LossLine<T>> loss_lines() {
  static const std::array lines = {LossLine<T>{{"fused", Device::cpu, dtype_of<T>, 1},
                                               accepts,
                                               predict_us,
                                               scratch_bytes,
                                               {fused_cross_entropy},
                                               has<T>}};
  return lines;
}

template <class T>
void softmax_cross_entropy(Context& context, const LossShape& shape, const LossForward<T>& args,
                           const Choice& choice) {
  shape.check();
  ADDER_CHECK(context.arena != nullptr);
  if (shape.rows == 0) return;
  if (!context.arena->measuring()) check_args(shape, args);
  const auto& line =
      pick_line("loss", loss_lines<T>(), context.caps(), shape, Direction::forward, choice);
  run_line(context, line, shape, Direction::forward,
           [&](Exec exec) { line.run.forward(shape, args, exec); });
}

#define ADDER_LOSS(T)                                                                       \
  template std::span<const LossLine<T>> loss_lines<T>();                                    \
  template void softmax_cross_entropy<T>(Context&, const LossShape&, const LossForward<T>&, \
                                         const Choice&);
ADDER_LOSS(double)
ADDER_LOSS(float)
ADDER_LOSS(Bf16)
#undef ADDER_LOSS

}  // namespace adder
