#include "kernels/optim/optim.h"

#include <fmt/format.h>

#include "core/door.h"
#include "kernels/optim/fused.h"

namespace adder {
namespace {

constexpr Door kDoor("optim");
constexpr OptimShape kOneState = {1};  // of decide_step

void below_one(const char* field, double value) {
  kDoor.number(field, value, 0);
  if (value >= 1) kDoor.bad(field, "< 1", fmt::format("{}", value));
}

// Bound by memory: 28 bytes an element in fp32 for AdamW, 4 for the squares.
template <int kBytes>
double predict_us(const Caps&, const OptimShape& shape, Direction) {
  return 2.0 + static_cast<double>(shape.count) * kBytes / 17e3;
}

int64_t squares_scratch(const Caps&, const OptimShape& shape, Direction) {
  return squares_blocks(shape.count) * static_cast<int64_t>(sizeof(double));
}

}  // namespace

void OptimShape::check() const { kDoor.at_least("count", count, 0); }

Cost OptimShape::cost(Dtype dtype) const {
  Cost cost;
  cost.flops = 14.0 * static_cast<double>(count);
  cost.bytes =
      7.0 * static_cast<double>(count * dtype_bytes(dtype));  // reads g p m v, writes p m v
  return cost;
}

std::string OptimShape::describe() const { return fmt::format("count{}", count); }

template <class Acc>
std::span<const AdamWLine<Acc>> adamw_lines() {
  static constexpr AdamWLine<Acc> kLines[] = {
      {cpu_line<Acc>("fused", 1), accepts_all, predict_us<28>, no_scratch, {fused_adamw}}};
  return kLines;
}

template <class Acc>
void adamw_step(Context& context, const OptimShape& shape, const AdamWArgs<Acc>& args,
                const Choice& choice) {
  shape.check();
  below_one("beta1", args.constants.beta1);
  below_one("beta2", args.constants.beta2);
  kDoor.number("eps", args.constants.eps, 0);
  kDoor.number("weight_decay", args.constants.weight_decay, 0);
  kDoor.given("state", args.state != nullptr);
  kDoor.array("g", args.g, shape.count);
  kDoor.array("p", args.p, shape.count);
  kDoor.array("m", args.m, shape.count);
  kDoor.array("v", args.v, shape.count);
  run_line(context, kDoor.family(), adamw_lines<Acc>(), shape, Direction::forward, args, choice);
}

template <class Acc>
std::span<const SquaresLine<Acc>> squares_lines() {
  static constexpr SquaresLine<Acc> kLines[] = {
      {cpu_line<Acc>("blocks", 1), accepts_all, predict_us<4>, squares_scratch, {block_squares}}};
  return kLines;
}

template <class Acc>
void sum_of_squares(Context& context, const OptimShape& shape, const SquaresArgs<Acc>& args,
                    const Choice& choice) {
  shape.check();
  kDoor.array("g", args.g, shape.count);
  kDoor.given("sum", args.sum != nullptr);
  run_line(context, kDoor.family(), squares_lines<Acc>(), shape, Direction::forward, args, choice);
}

std::span<const DecisionLine> decision_lines() {
  static constexpr DecisionLine kLines[] = {
      {cpu_line<double>("scalar", 1), accepts_all, predict_us<0>, no_scratch, {decide}}};
  return kLines;
}

void decide_step(Context& context, const DecisionArgs& args, const Choice& choice) {
  kDoor.number("clip_norm", args.clip_norm, 0);
  kDoor.given("state", args.state != nullptr);
  run_line(context, kDoor.family(), decision_lines(), kOneState, Direction::forward, args, choice);
}

#define ADDER_OPTIM(Acc)                                           \
  template std::span<const AdamWLine<Acc>> adamw_lines<Acc>();     \
  ADDER_DOOR(adamw_step, OptimShape, AdamWArgs<Acc>)               \
  template std::span<const SquaresLine<Acc>> squares_lines<Acc>(); \
  ADDER_DOOR(sum_of_squares, OptimShape, SquaresArgs<Acc>)
ADDER_OPTIM(double)
ADDER_OPTIM(float)
#undef ADDER_OPTIM

}  // namespace adder
