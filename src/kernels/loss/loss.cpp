#include "kernels/loss/loss.h"

#include <fmt/format.h>

#include "core/door.h"
#include "kernels/loss/fused.h"

namespace adder {
namespace {

constexpr Door kDoor("loss");

double predict_us(const Caps& caps, const LossShape& shape, Direction) {
  return 2.0 + static_cast<double>(shape.rows) * static_cast<double>(shape.columns) /
                   (20.0 * kPredictedThreads * caps.vector_bytes);
}
double predict_sum_us(const Caps&, const LossSumShape& shape, Direction) {
  return static_cast<double>(shape.rows) * 1e-3;
}

}  // namespace

void LossShape::check() const {
  kDoor.at_least("rows", rows, 0);
  kDoor.at_least("vocab", vocab, 1);
  kDoor.at_least("columns", columns, vocab);
  kDoor.number("label_smoothing", label_smoothing, 0);
  if (label_smoothing >= 1) {
    kDoor.bad("label_smoothing", "< 1", fmt::format("{}", label_smoothing));
  }
  kDoor.number("z_loss", z_loss, 0);
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

template <class L, class D>
std::span<const LossLine<L, D>> loss_lines() {
  static constexpr LossLine<L, D> kLines[] = {
      {cpu_line<L>("fused", 1), accepts_all, predict_us, no_scratch, {fused_cross_entropy}}};
  return kLines;
}

template <class L, class D>
void softmax_cross_entropy(Context& context, const LossShape& shape, const LossForward<L, D>& args,
                           const Choice& choice) {
  shape.check();
  kDoor.array("logits", args.logits, shape.rows);
  kDoor.array("targets", args.targets, shape.rows);
  kDoor.array("row_loss", args.row_loss, shape.rows);
  kDoor.row_stride("logit_stride", args.logit_stride, shape.rows, shape.columns);
  if (args.dlogits != nullptr) {
    kDoor.row_stride("dlogit_stride", args.dlogit_stride, shape.rows, shape.columns);
  }
  run_line(context, kDoor.family(), loss_lines<L, D>(), shape, Direction::forward, args, choice);
}

void LossSumShape::check() const { kDoor.at_least("rows", rows, 0); }

Cost LossSumShape::cost() const {
  Cost cost;
  cost.flops = static_cast<double>(rows);
  cost.bytes = static_cast<double>(rows) * sizeof(double);
  return cost;
}

std::string LossSumShape::describe() const { return fmt::format("rows{}", rows); }

std::span<const LossSumLine> loss_sum_lines() {
  static constexpr LossSumLine kLines[] = {{cpu_line<double>("sequential", 1),
                                            accepts_all,
                                            predict_sum_us,
                                            no_scratch,
                                            {sequential_sum}}};
  return kLines;
}

void sum_losses(Context& context, const LossSumShape& shape, const LossSumArgs& args,
                const Choice& choice) {
  shape.check();
  kDoor.array("row_loss", args.row_loss, shape.rows);
  kDoor.given("sum", args.sum != nullptr);
  run_line(context, kDoor.family(), loss_sum_lines(), shape, Direction::forward, args, choice);
}

#define ADDER_LOSS(L, D)                                       \
  template std::span<const LossLine<L, D>> loss_lines<L, D>(); \
  ADDER_DOOR(softmax_cross_entropy, LossShape, LossForward<L, D>)
ADDER_LOSS(double, double)
ADDER_LOSS(float, float)
ADDER_LOSS(float, Bf16)
#undef ADDER_LOSS

}  // namespace adder
