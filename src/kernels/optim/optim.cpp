#include "kernels/optim/optim.h"

#include <algorithm>

#include "core/threads.h"
#include "kernels/optim/optim_lines.h"

namespace adder {
namespace {

bool accepts_any(const Caps&, const OptimShape&) { return true; }
// Seven streams (read p, g, m, v; write p, m, v) at about 10 GB/s a thread.
double fused_us(const Caps& caps, const OptimShape& shape, Direction) {
  return 1.0 + static_cast<double>(shape.count) * 28.0 / (10e3 * std::max(1, caps.threads));
}
int64_t no_scratch(const OptimShape&, Direction) { return 0; }
template <class Acc>
bool has_step(const OptimFunctions<Acc>&, Direction direction) {
  return direction == Direction::step;
}
template <class Acc>
constexpr OptimLine<Acc> kFused[] = {{{"fused", Device::cpu, dtype_of<Acc>, 1},
                                      accepts_any,
                                      fused_us,
                                      no_scratch,
                                      {adamw_fused},
                                      has_step<Acc>}};

void require(bool ok, const char* field, const std::string& expected, const std::string& got) {
  if (!ok) throw Error({"out of range", std::string("adamw: ") + field, expected, got});
}

void check_constants(const AdamWConstants& c) {
  require(c.beta1 >= 0 && c.beta1 < 1, "beta1", "in [0, 1)", std::to_string(c.beta1));
  require(c.beta2 >= 0 && c.beta2 < 1, "beta2", "in [0, 1)", std::to_string(c.beta2));
  require(c.eps >= 0, "eps", ">= 0", std::to_string(c.eps));
}

}  // namespace

void OptimShape::check() const {
  if (count < 0) throw Error({"negative extent", "adamw: count", ">= 0", std::to_string(count)});
}

Cost OptimShape::cost(Dtype dtype) const {
  Cost cost;
  const auto n = static_cast<double>(count);
  cost.flops = 13 * n;
  cost.bytes = 7 * n * static_cast<double>(dtype_bytes(dtype));
  return cost;
}

std::string OptimShape::describe() const { return "count " + std::to_string(count); }

template <>
std::span<const OptimLine<float>> optim_lines<float>() {
  return kFused<float>;
}
template <>
std::span<const OptimLine<double>> optim_lines<double>() {
  return kFused<double>;
}

template <class Acc>
void adamw_step(Context& context, const OptimShape& shape, const AdamWArgs<Acc>& args,
                const Choice& choice) {
  shape.check();
  check_constants(args.constants);
  const auto& line = pick_line("optim", optim_lines<Acc>(), context.caps(), shape, Direction::step,
                               choice);
  run_line(context, line, shape, Direction::step,
           [&](Exec exec) { line.run.adamw(shape, args, exec); });
}

template <class Acc>
double sum_of_squares(Context& context, int64_t count, const Acc* g) {
  if (count <= 0) return 0;
  Arena::Scope scope(*context.arena);
  const int64_t blocks = (count + kOptimBlock - 1) / kOptimBlock;
  double* partial = context.arena->take<double>(blocks);
  if (context.arena->measuring()) return 0;
  parallel_for(context.threads, blocks, [&](int64_t block) {
    const int64_t first = block * kOptimBlock;
    partial[block] = block_sum_of_squares(g + first, std::min(kOptimBlock, count - first));
  });
  double total = 0;
  for (int64_t block = 0; block < blocks; ++block) total += partial[block];
  return total;
}

#define ADDER_OPTIM(Acc)                                                              \
  template void adamw_step<Acc>(Context&, const OptimShape&, const AdamWArgs<Acc>&,   \
                                const Choice&);                                       \
  template double sum_of_squares<Acc>(Context&, int64_t, const Acc*);
ADDER_OPTIM(float)
ADDER_OPTIM(double)
#undef ADDER_OPTIM

}  // namespace adder
