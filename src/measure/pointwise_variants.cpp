#include "kernels/pointwise/pointwise.h"
#include "kernels/ref/pointwise_ref.h"
#include "measure/problem_variants.h"

namespace adder::measure {
namespace {

struct Case {
  PointwiseShape shape;
  int64_t gap = 0;   // elements between rows beyond the width
  double scale = 1;  // of the gate

  std::string describe() const { return shape.describe() + " gap " + std::to_string(gap); }
};

template <class T>
struct Problem {
  using Case = measure::Case;
  explicit Problem(const Case& c)
      : given(c),
        stride(c.shape.width + c.gap),
        y(c.shape.rows * stride),
        gate(y.count()),
        gout(y.count()),
        out(y.count()),
        dy(y.count()),
        dgate(y.count()) {}
  Problem(const Case& c, uint64_t seed) : Problem(c) {
    fill_normal(y, seed, "pointwise.y");
    fill_normal(gate, seed, "pointwise.gate", c.scale);
    fill_normal(gout, seed, "pointwise.gout");
  }
  Problem<double> wide() const {
    Problem<double> other(given);
    other.y = y.template converted<double>();
    other.gate = gate.template converted<double>();
    other.gout = gout.template converted<double>();
    return other;
  }
  void watch(InputWatch& inputs) const {
    inputs.watch("y", y);
    inputs.watch("gate", gate);
    inputs.watch("gout", gout);
  }
  template <class Visit>
  static void outputs(Direction direction, const Visit& visit) {
    if (direction == Direction::forward) {
      visit("out", [](auto& p) -> auto& { return p.out; });
    } else {
      visit("dy", [](auto& p) -> auto& { return p.dy; });
      visit("dgate", [](auto& p) -> auto& { return p.dgate; });
    }
  }
  GateForward<T> forward() { return {y.data(), stride, gate.data(), stride, out.data(), stride}; }
  GateBackward<T> backward() {
    return {y.data(), stride,    gate.data(), stride,       gout.data(),
            stride,   dy.data(), stride,      dgate.data(), stride};
  }
  Case given;
  int64_t stride;
  Guarded<T> y, gate, gout, out, dy, dgate;
};

std::vector<Case> cases(Purpose purpose) {
  if (purpose == Purpose::bench) return {{{2048, 512}, 0, 1}, {{2048, 1536}, 0, 1}};
  std::vector<Case> all;
  for (const int64_t width : {1, 2, 15, 16, 17, 63, 65, 1000}) all.push_back({{3, width}, 5, 1});
  all.push_back({{127, 131}, 0, 1});
  all.push_back({{200, 64}, 3, 1e4});
  all.push_back({{20, 64}, 3, 30});
  return all;
}

template <class T>
void run_door(Problem<T>& problem, Direction direction, Context& context, std::string_view line) {
  const PointwiseShape& shape = problem.given.shape;
  if (direction == Direction::forward) {
    gate_forward(context, shape, problem.forward(), Choice{line, 0});
  } else {
    gate_backward(context, shape, problem.backward(), Choice{line, 0});
  }
}

template <class T>
void run_reference(Problem<T>& problem, Direction direction, bool absolute, std::string_view) {
  if (direction == Direction::forward) {
    ref::gate_forward(problem.given.shape, problem.forward(), absolute);
  } else {
    ref::gate_backward(problem.given.shape, problem.backward(), absolute);
  }
}

template <class T>
void append(std::vector<Variant>& out, Purpose purpose) {
  for (const Case& given : cases(purpose)) {
    for (const auto& line : gate_lines<T>()) {
      for (const Direction direction : {Direction::forward, Direction::backward}) {
        Variant variant = problem_variant<Problem<T>>("pointwise", line.info, direction, given);
        variant.cost = given.shape.cost(dtype_of<T>, dtype_of<T>);
        variant.cost.bytes *= direction == Direction::forward ? 1.5 : 2.5;
        variant.cost.exps = static_cast<double>(given.shape.rows * given.shape.width);
        out.push_back(std::move(variant));
      }
    }
  }
}

}  // namespace

std::vector<Variant> pointwise_variants(Purpose purpose) {
  std::vector<Variant> out;
  append<float>(out, purpose);
  append<Bf16>(out, purpose);
  append<double>(out, purpose);
  return out;
}

}  // namespace adder::measure
