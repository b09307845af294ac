#include "measure/call_variants.h"
#include "measure/pointwise_call.h"

namespace adder::measure {
namespace {

using Case = PointwiseCase;

std::vector<Case> cases(Purpose purpose) {
  if (purpose == Purpose::bench) return {{{2048, 512}, 0, 1}, {{2048, 1536}, 0, 1}};
  std::vector<Case> all;
  for (const int64_t width : {1, 2, 15, 16, 17, 63, 65, 1000}) all.push_back({{3, width}, 5, 1});
  all.push_back({{127, 131}, 0, 1});
  all.push_back({{200, 64}, 3, 1e4});
  all.push_back({{20, 64}, 3, 30});
  return all;
}

std::vector<Case> with_accumulation(Purpose purpose) {
  std::vector<Case> all = cases(purpose);
  if (purpose == Purpose::test) append_accumulating(all);
  return all;
}

template <class From, class To>
void append_conversions(std::vector<Variant>& variants, Purpose purpose) {
  const std::string to = " convert to " + std::string(dtype_name(dtype_of<To>));
  for (Case given : cases(purpose)) {
    given.gap = 0;
    append_variants<ConvertCall<From, To>>(variants, "pointwise", convert_lines<From, To>(), given,
                                           to);
  }
}
template <class From>
void append_conversions_from(std::vector<Variant>& variants, Purpose purpose) {
  append_conversions<From, double>(variants, purpose);
  append_conversions<From, float>(variants, purpose);
  append_conversions<From, Bf16>(variants, purpose);
  append_conversions<From, F16>(variants, purpose);
}

template <class T>
void append_storage(std::vector<Variant>& variants, Purpose purpose) {
  for (const Case& given : cases(purpose)) {
    append_variants<GateCall<T>>(variants, "pointwise", gate_lines<T>(), given);
  }
  for (const Case& given : with_accumulation(purpose)) {
    append_variants<ColumnSumCall<T>>(variants, "pointwise", column_sum_lines<T>(), given,
                                      " column_sum");
  }
}

template <class Acc>
void append_decays(std::vector<Variant>& variants, Purpose purpose) {
  for (Case given : with_accumulation(purpose)) {
    given.gap = 0;
    append_variants<DecayCall<Acc>>(variants, "pointwise", decay_lines<Acc>(), given, " decay");
  }
}

}  // namespace

std::vector<Variant> pointwise_variants(Purpose purpose) {
  std::vector<Variant> variants;
  append_storage<float>(variants, purpose);
  append_storage<Bf16>(variants, purpose);
  append_storage<double>(variants, purpose);
  append_decays<float>(variants, purpose);
  append_decays<double>(variants, purpose);
  if (purpose == Purpose::bench) {  // those of a model
    append_conversions<float, Bf16>(variants, purpose);
    append_conversions<Bf16, float>(variants, purpose);
    return variants;
  }
  append_conversions_from<double>(variants, purpose);
  append_conversions_from<float>(variants, purpose);
  append_conversions_from<Bf16>(variants, purpose);
  append_conversions_from<F16>(variants, purpose);
  return variants;
}

}  // namespace adder::measure
