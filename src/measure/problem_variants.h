// Variants of a family whose call is a Problem: what the *_variants.cpp files share. Such a type P
// stands for one call of the family's doors and has
//   Case, given                       what the call is: shape, describe(), options; optional
//                                     writes(Direction): false where there is nothing to compare
//   P(const Case&, uint64_t seed)     inputs filled, outputs poisoned
//   wide()                            the same inputs in double
//   watch(InputWatch&) const          every input
//   outputs(Direction, visit)         static: visit(name, accessor) for each output
// and beside it, found by argument-dependent lookup,
//   run_door(P&, Direction, Context&, std::string_view line)
//   run_reference(P&, Direction, bool absolute, std::string_view line): as the line rounds
//   prepare_backward(P&, int threads, std::string_view line, InputWatch*): optional, what forward
//                                     leaves for backward
//   product_type(const P&, std::string_view line) -> Dtype: optional, see OutputCheck::product
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "measure/evaluation.h"
#include "measure/variant.h"

namespace adder::measure {

template <class P>
void enter_backward(P& problem, Direction direction, int threads, const std::string& line,
                    InputWatch* inputs) {
  if constexpr (requires { prepare_backward(problem, threads, line, inputs); }) {
    if (direction == Direction::backward) prepare_backward(problem, threads, line, inputs);
  }
}

template <class P>
Comparison check_problem(const typename P::Case& given, const std::string& line,
                         Direction direction, const RunOptions& options) {
  P got(given, options.seed);
  P evaluated = got;
  auto expected = got.wide();
  auto absolute = got.wide();
  InputWatch inputs;
  got.watch(inputs);
  enter_backward(got, direction, options.threads, line, &inputs);
  run_planned(options.threads, [&](Context& context) { run_door(got, direction, context, line); });
  // What is right does not depend on the line; how its dtype rounds may.
  run_reference(expected, direction, false, {});
  run_reference(evaluated, direction, false, line);
  run_reference(absolute, direction, true, line);
  Dtype product = Dtype::f64;
  if constexpr (requires { product_type(got, line); }) product = product_type(got, line);
  Comparison comparison;
  inputs.check(comparison);
  P::outputs(direction, [&](const char* name, auto member) {
    compare_output(comparison, name, member(got), member(expected), member(evaluated),
                   member(absolute), product);
  });
  return comparison;
}

/// One line in one direction on one case; cost and accepted are the caller's.
template <class P>
Variant problem_variant(const char* family, const LineInfo& info, Direction direction,
                        const typename P::Case& given) {
  const std::string name = info.name;
  Variant variant;
  variant.family = family;
  variant.line = info;
  variant.direction = direction;
  variant.shape = given.describe();
  variant.check = [=](const RunOptions& options) {
    return check_problem<P>(given, name, direction, options);
  };
  const auto prepare = [=](bool reference) {
    return [=](const RunOptions& options) -> std::unique_ptr<Prepared> {
      auto problem = std::make_unique<P>(given, options.seed);
      enter_backward(*problem, direction, options.threads, name, nullptr);
      return std::make_unique<PreparedCall<P>>(std::move(problem), reference ? 1 : options.threads,
                                               [=](P& call, Context& context) {
                                                 if (!reference)
                                                   run_door(call, direction, context, name);
                                                 if (reference && !context.arena->measuring())
                                                   run_reference(call, direction, false, {});
                                               });
    };
  };
  variant.prepare = prepare(false);
  variant.prepare_reference = prepare(true);
  return variant;
}

/// Every line in both directions on one case. `suffix` ends the shape's description.
template <class P, class L>
void append_variants(std::vector<Variant>& variants, const char* family, std::span<const L> lines,
                     const typename P::Case& given, const std::string& suffix = {}) {
  for (const L& line : lines) {
    for (const Direction direction : {Direction::forward, Direction::backward}) {
      if constexpr (requires { given.writes(direction); }) {
        if (!given.writes(direction)) continue;
      }
      Variant variant = problem_variant<P>(family, line.info, direction, given);
      variant.shape += suffix;
      variant.cost = given.shape.cost(direction, line.info.dtype);
      variant.accepted = line.accepts(cpu_caps(), given.shape);
      variants.push_back(std::move(variant));
    }
  }
}

}  // namespace adder::measure
