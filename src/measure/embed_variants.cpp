#include "measure/call_variants.h"
#include "measure/embed_call.h"

namespace adder::measure {
namespace {

using Case = EmbedCase;

template <class T, class P>
void add_variants(std::vector<Variant>& variants, const Case& given) {
  append_variants<EmbedCall<T, P>>(variants, "embed", embed_lines<T, P>(), given,
                                   " table " + std::string(dtype_name(dtype_of<P>)));
}

std::vector<Case> test_cases() {
  std::vector<Case> cases = {
      {{0, 5, 3}},
      {{1, 1, 1}},
      {{2, 3, 17}, Ids::one},
      {{63, 7, 33}},
      {{64, 1000, 5}},
      {{65, 2, 64}, Ids::each},
      {{127, 31, 257}, Ids::one},
      {{200, 13, 131}},
      {{401, 50, 300}, Ids::each},
      {{1009, 11, 61}},
      {{5, 7, 1031}},
      {{64, 9, 16}, Ids::uniform, 1e30},
      {{200, 300, 131}, Ids::one},
      {{401, 50, 300}, Ids::uniform},
  };
  const size_t count = cases.size();
  for (size_t i = 0; i < count; ++i) {
    cases.push_back(cases[i]);
    cases.back().accumulate = false;
  }
  return cases;
}

}  // namespace

std::vector<Variant> embed_variants(Purpose purpose) {
  const bool test = purpose == Purpose::test;
  const std::vector<Case> bench = {{{2048, 256, 256}}, {{2048, 50280, 768}}, {{1, 50280, 768}}};
  std::vector<Variant> variants;
  for (const Case& given : test ? test_cases() : bench) {
    if (test) add_variants<double, double>(variants, given);
    add_variants<float, float>(variants, given);
    add_variants<Bf16, Bf16>(variants, given);
    add_variants<float, Bf16>(variants, given);
  }
  return variants;
}

}  // namespace adder::measure
