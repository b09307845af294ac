// Variants of a family whose call is a Call: what the *_variants.cpp files share.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "measure/call.h"
#include "measure/variant.h"

namespace adder::measure {

/// One line in one direction on the calls that `make` makes.
Variant call_variant(const char* family, const LineInfo& line, Direction direction,
                     std::string shape, const Cost& cost, const MakeCall& make);

/// Every line in each of its directions on one case of the call C. Of a case that adds to sums of
/// gradients, forward says nothing new. `suffix` ends the shape's description.
template <class C, class L>
void append_variants(std::vector<Variant>& variants, const char* family, std::span<const L> lines,
                     const typename C::Given& given, const std::string& suffix = {}) {
  const MakeCall make = [=](uint64_t seed) { return std::make_unique<C>(given, seed); };
  for (const L& line : lines) {
    for (const Direction direction : {Direction::forward, Direction::backward}) {
      if (!line.run.has(direction)) continue;
      if constexpr (requires { given.only_backward(); }) {
        if (direction == Direction::forward && given.only_backward()) continue;
      }
      variants.push_back(call_variant(family, line.info, direction, given.describe() + suffix,
                                      C::cost(given, direction), make));
    }
  }
}

/// add(variants, given, T{}) for each case of the purpose and each storage type; double in tests
/// only.
template <class Case, class Add>
std::vector<Variant> variants_of_types(Purpose purpose, const std::vector<Case>& cases,
                                       const Add& add) {
  std::vector<Variant> variants;
  for (const Case& given : cases) {
    if (purpose == Purpose::test) add(variants, given, double{});
    add(variants, given, float{});
    add(variants, given, Bf16{});
  }
  return variants;
}

}  // namespace adder::measure
