#include <memory>

#include "kernels/pointwise/pointwise.h"
#include "kernels/ref/pointwise_ref.h"
#include "measure/evaluation.h"
#include "measure/variant.h"

namespace adder::measure {
namespace {

struct Case {
  PointwiseShape shape;
  int64_t gap = 0;   // elements between rows beyond the width
  double scale = 1;  // of the gate
};

template <class T>
struct Problem {
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
  template <class U>
  Problem<U> converted() const {
    Problem<U> other(given);
    other.y = y.template converted<U>();
    other.gate = gate.template converted<U>();
    other.gout = gout.template converted<U>();
    return other;
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
  all.push_back({{0, 7}, 0, 1});
  all.push_back({{127, 131}, 0, 1});
  all.push_back({{200, 64}, 3, 1e4});
  all.push_back({{20, 64}, 3, 30});
  return all;
}

template <class T>
void run(Problem<T>& problem, Context& context, Direction direction, const char* line) {
  const PointwiseShape& shape = problem.given.shape;
  if (direction == Direction::forward) {
    gate_forward(context, shape, problem.forward(), Choice{line, 0});
  } else {
    gate_backward(context, shape, problem.backward(), Choice{line, 0});
  }
}

template <class T>
void run_reference(Problem<T>& problem, Direction direction, bool absolute = false) {
  if (direction == Direction::forward) {
    ref::gate_forward(problem.given.shape, problem.forward(), absolute);
  } else {
    ref::gate_backward(problem.given.shape, problem.backward(), absolute);
  }
}

template <class T>
Comparison check(const Case& c, Direction direction, const char* line, const RunOptions& options) {
  Problem<T> got(c, options.seed);
  Problem<T> evaluated(c, options.seed);
  auto expected = got.template converted<double>();
  auto absolute = got.template converted<double>();
  Comparison comparison;
  InputWatch watch;
  watch.watch("y", got.y);
  watch.watch("gate", got.gate);
  watch.watch("gout", got.gout);
  run_planned(options.threads, [&](Context& context) { run(got, context, direction, line); });
  run_reference(evaluated, direction);
  run_reference(expected, direction);
  run_reference(absolute, direction, true);
  if (direction == Direction::forward) {
    compare_output(comparison, "out", got.out, expected.out, evaluated.out, absolute.out);
  } else {
    compare_output(comparison, "dy", got.dy, expected.dy, evaluated.dy, absolute.dy);
    compare_output(comparison, "dgate", got.dgate, expected.dgate, evaluated.dgate, absolute.dgate);
  }
  watch.check(comparison);
  if (c.shape.rows == 0) comparison.elements = 1;
  return comparison;
}

template <class T>
Variant variant_of(const GateLine<T>& line, const Case& c, Direction direction) {
  Variant variant;
  variant.family = "pointwise";
  variant.line = line.info;
  variant.direction = direction;
  variant.shape = c.shape.describe() + " gap " + std::to_string(c.gap);
  variant.cost = c.shape.cost(dtype_of<T>, dtype_of<T>);
  variant.cost.bytes *= direction == Direction::forward ? 1.5 : 2.5;
  variant.cost.exps = static_cast<double>(c.shape.rows * c.shape.width);
  const char* name = line.info.name;
  variant.check = [c, direction, name](const RunOptions& options) {
    return check<T>(c, direction, name, options);
  };
  variant.prepare = [c, direction, name](const RunOptions& options) -> std::unique_ptr<Prepared> {
    return std::make_unique<PreparedCall<Problem<T>>>(
        std::make_unique<Problem<T>>(c, options.seed), options.threads,
        [direction, name](Problem<T>& problem, Context& context) {
          run(problem, context, direction, name);
        });
  };
  variant.prepare_reference = [c, direction](const RunOptions& o) -> std::unique_ptr<Prepared> {
    return std::make_unique<PreparedCall<Problem<T>>>(
        std::make_unique<Problem<T>>(c, o.seed), 1,
        [direction](Problem<T>& problem, Context& context) {
          if (!context.arena->measuring()) run_reference(problem, direction);
        });
  };
  return variant;
}

template <class T>
void append(std::vector<Variant>& out, Purpose purpose) {
  for (const auto& line : gate_lines<T>()) {
    for (const Case& c : cases(purpose)) {
      for (const Direction direction : {Direction::forward, Direction::backward}) {
        out.push_back(variant_of<T>(line, c, direction));
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
