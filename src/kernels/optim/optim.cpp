#include "kernels/optim/optim.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "kernels/optim/fused.h"

namespace adder {
namespace {

void require(bool good, const char* field, const char* expected, const std::string& got) {
  if (!good) throw Error({"option out of range", fmt::format("optim {}", field), expected, got});
}

void check_present(const char* name, const void* data) {
  if (data == nullptr) {
    throw Error({"argument absent", fmt::format("optim {}", name), "a pointer", "null"});
  }
}

void check_constants(const AdamWConstants& c) {
  require(c.beta1 >= 0 && c.beta1 < 1, "beta1", "in [0, 1)", fmt::format("{}", c.beta1));
  require(c.beta2 >= 0 && c.beta2 < 1, "beta2", "in [0, 1)", fmt::format("{}", c.beta2));
  require(c.eps >= 0, "eps", ">= 0", fmt::format("{}", c.eps));
  require(c.weight_decay >= 0, "weight_decay", ">= 0", fmt::format("{}", c.weight_decay));
}

template <class Acc>
void check_args(const AdamWArgs<Acc>& args) {
  check_present("values", args.values);
  check_present("g", args.g);
  check_present("p", args.p);
  check_present("m", args.m);
  check_present("v", args.v);
  require(args.values->skip != 0 || args.values->step >= 1, "step", ">= 1",
          std::to_string(args.values->step));
}

bool accepts(const Caps&, const OptimShape&) { return true; }

// Bound by memory: 28 bytes an element in fp32.
double predict_us(const Caps&, const OptimShape& shape, Direction) {
  return 2.0 + static_cast<double>(shape.count) * 28.0 / 17e3;
}

int64_t scratch_bytes(const OptimShape&, Direction) { return 0; }

template <class Acc>
bool has(const OptimFunctions<Acc>&, Direction direction) {
  return direction == Direction::forward;
}

}  // namespace

void OptimShape::check() const {
  if (count < 0) {
    throw Error({"negative extent", "optim count", ">= 0", std::to_string(count)});
  }
}

Cost OptimShape::cost(Dtype dtype) const {
  Cost cost;
  cost.flops = 14.0 * static_cast<double>(count);
  cost.bytes =
      7.0 * static_cast<double>(count * dtype_bytes(dtype));  // reads g p m v, writes p m v
  return cost;
}

std::string OptimShape::describe() const { return fmt::format("count{}", count); }

template <class Acc>
std::span<const OptimLine<Acc>> optim_lines() {
  static const std::array lines = {OptimLine<Acc>{{"fused", Device::cpu, dtype_of<Acc>, 1},
                                                  accepts,
                                                  predict_us,
                                                  scratch_bytes,
                                                  {fused_adamw},
                                                  has<Acc>}};
  return lines;
}

template <class Acc>
void adamw_step(Context& context, const OptimShape& shape, const AdamWArgs<Acc>& args,
                const Choice& choice) {
  shape.check();
  check_constants(args.constants);
  ADDER_CHECK(context.arena != nullptr);
  if (shape.count == 0) return;
  if (!context.arena->measuring()) check_args(args);
  const auto& line =
      pick_line("optim", optim_lines<Acc>(), context.caps(), shape, Direction::forward, choice);
  run_line(context, line, shape, Direction::forward,
           [&](Exec exec) { line.run.adamw(shape, args, exec); });
}

template <class Acc>
double sum_of_squares(Context& context, int64_t count, const Acc* g) {
  OptimShape{count}.check();
  ADDER_CHECK(context.arena != nullptr);
  Arena::Scope scope(*context.arena);
  double* partial = context.arena->take<double>(squares_blocks(count));
  if (context.arena->measuring() || count == 0) return 0;
  check_present("g", g);
  block_squares(count, g, partial, context.threads);
  double sum = 0;
  for (int64_t block = 0; block < squares_blocks(count); ++block) sum += partial[block];
  return sum;
}

#define ADDER_OPTIM(Acc)                                                            \
  template std::span<const OptimLine<Acc>> optim_lines<Acc>();                      \
  template void adamw_step<Acc>(Context&, const OptimShape&, const AdamWArgs<Acc>&, \
                                const Choice&);                                     \
  template double sum_of_squares<Acc>(Context&, int64_t, const Acc*);
ADDER_OPTIM(double)
ADDER_OPTIM(float)
#undef ADDER_OPTIM

}  // namespace adder
