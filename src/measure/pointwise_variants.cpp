#include "measure/call_variants.h"
#include "measure/gate_call.h"

namespace adder::measure {
namespace {

using Case = GateCase;

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
void append(std::vector<Variant>& variants, Purpose purpose) {
  for (const Case& given : cases(purpose)) {
    append_variants<GateCall<T>>(variants, "pointwise", gate_lines<T>(), given);
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
