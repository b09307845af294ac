#include <memory>

#include "kernels/optim/optim.h"
#include "kernels/ref/optim_ref.h"
#include "measure/evaluation.h"
#include "measure/variant.h"

namespace adder::measure {
namespace {

struct Case {
  OptimShape shape;
  StepValues values;
  AdamWConstants constants;
  double scale = 1;  // of the gradient
};

template <class Acc>
struct Problem {
  explicit Problem(const Case& c)
      : given(c), g(c.shape.count), p(g.count()), m(g.count()), v(g.count()) {}
  Problem(const Case& c, uint64_t seed) : Problem(c) {
    fill_normal(g, seed, "optim.g", c.scale);
    fill_normal(p, seed, "optim.p");
    fill_normal(m, seed, "optim.m", 0.1 * c.scale);
    fill_uniform(v, seed, "optim.v", 0, c.scale * c.scale);
  }
  template <class U>
  Problem<U> converted() const {
    Problem<U> out(given);
    out.g = g.template converted<U>();
    out.p = p.template converted<U>();
    out.m = m.template converted<U>();
    out.v = v.template converted<U>();
    return out;
  }
  AdamWArgs<Acc> args() {
    return {given.constants, &given.values, g.data(), p.data(), m.data(), v.data()};
  }
  Case given;
  Guarded<Acc> g, p, m, v;
};

std::vector<Case> cases(Purpose purpose) {
  if (purpose == Purpose::bench) return {{{1817856}, {1e-3, 1, 100, 0}, {}, 1}};
  std::vector<Case> all;
  for (const int64_t count : {0, 1, 2, 15, 16, 17, 63, 1000, 16384, 16385, 40009}) {
    all.push_back({{count}, {3e-3, 0.7, 1, 0}, {}, 1});
  }
  all.push_back({{517}, {1e-2, 1, 1000000, 0}, {0.9, 0.999, 1e-8, 0}, 1});
  all.push_back({{517}, {1e-2, 1, 3, 0}, {0, 0, 1e-8, 0.1}, 1});
  all.push_back({{517}, {1e-2, 1, 3, 1}, {}, 1});  // skipped step: nothing changes
  all.push_back({{517}, {1e-2, 1, 3, 0}, {}, 1e-18});
  all.push_back({{517}, {1e-2, 1, 3, 0}, {}, 1e17});
  return all;
}

template <class Acc>
Comparison check(const Case& c, const char* line, const RunOptions& options) {
  Problem<Acc> got(c, options.seed);
  Problem<double> expected = got.template converted<double>();
  Problem<double> absolute = got.template converted<double>();
  Problem<Acc> evaluated = got;
  Comparison comparison;
  InputWatch watch;
  watch.watch("g", got.g);
  run_planned(options.threads, [&](Context& context) {
    adamw_step(context, c.shape, got.args(), Choice{line, 0});
  });
  ref::adamw_step(c.shape, expected.args());
  ref::adamw_step(c.shape, evaluated.args());
  ref::adamw_step(c.shape, absolute.args(), true);
  compare_output(comparison, "p", got.p, expected.p, evaluated.p, absolute.p);
  compare_output(comparison, "m", got.m, expected.m, evaluated.m, absolute.m);
  compare_output(comparison, "v", got.v, expected.v, evaluated.v, absolute.v);
  watch.check(comparison);
  if (c.shape.count == 0) comparison.elements = 1;
  return comparison;
}

template <class Acc>
void append(std::vector<Variant>& out, Purpose purpose) {
  for (const auto& line : optim_lines<Acc>()) {
    for (const Case& c : cases(purpose)) {
      Variant variant;
      variant.family = "optim";
      variant.line = line.info;
      variant.direction = Direction::step;
      variant.shape = c.shape.describe() + " step " + std::to_string(c.values.step) +
                      (c.values.skip != 0 ? " skip" : "");
      variant.cost = c.shape.cost(dtype_of<Acc>);
      const char* name = line.info.name;
      variant.check = [c, name](const RunOptions& options) { return check<Acc>(c, name, options); };
      variant.prepare = [c, name](const RunOptions& options) -> std::unique_ptr<Prepared> {
        return std::make_unique<PreparedCall<Problem<Acc>>>(
            std::make_unique<Problem<Acc>>(c, options.seed), options.threads,
            [name](Problem<Acc>& problem, Context& context) {
              adamw_step(context, problem.given.shape, problem.args(), Choice{name, 0});
            });
      };
      variant.prepare_reference = [c](const RunOptions& options) -> std::unique_ptr<Prepared> {
        return std::make_unique<PreparedCall<Problem<Acc>>>(
            std::make_unique<Problem<Acc>>(c, options.seed), 1,
            [](Problem<Acc>& problem, Context& context) {
              if (!context.arena->measuring()) {
                ref::adamw_step(problem.given.shape, problem.args());
              }
            });
      };
      out.push_back(std::move(variant));
    }
  }
}

}  // namespace

std::vector<Variant> optim_variants(Purpose purpose) {
  std::vector<Variant> out;
  append<float>(out, purpose);
  append<double>(out, purpose);
  return out;
}

}  // namespace adder::measure
