#include "measure/call_variants.h"
#include "measure/optim_call.h"

namespace adder::measure {
namespace {

using Case = AdamWCase;

template <class Acc>
void add_variants(const std::vector<Case>& cases, std::vector<Variant>& variants) {
  for (const Case& given : cases) {
    append_variants<AdamWCall<Acc>>(variants, "optim", adamw_lines<Acc>(), given);
  }
}

std::vector<Case> test_cases() {
  std::vector<Case> cases;
  int index = 0;
  for (const int64_t count : {0, 1, 2, 15, 16, 17, 63, 64, 65, 127, 200, 1009, 70001}) {
    for (const int64_t step : {1, 2, 1000, 1000000}) {
      if (count > 1009 && step > 1) continue;
      Case item;
      item.shape.count = count;
      item.state.updates = step;
      item.state.learning_rate = 3e-3;
      item.state.clip = index % 2 == 0 ? 1 : 0.37;
      item.state.skip = index % 11 == 7 ? 1 : 0;
      item.constants.weight_decay = index % 3 == 0 ? 0 : 0.1;
      item.rounded = index % 2 == 1;
      cases.push_back(item);
      ++index;
    }
  }
  return cases;
}

// All parameters of the small training model, and of a 130M model's head.
std::vector<Case> bench_cases() {
  std::vector<Case> cases;
  for (const int64_t count : {1750000, 38615040}) {
    Case item;
    item.shape.count = count;
    item.state.updates = 100;
    item.rounded = true;
    item.state.learning_rate = 1e-9;  // keeps the values normal over many runs
    cases.push_back(item);
  }
  return cases;
}

template <class Acc>
void add_squares(const std::vector<int64_t>& counts, std::vector<Variant>& variants) {
  for (const int64_t count : counts) {
    for (const bool accumulate : {false, true}) {
      append_variants<SquaresCall<Acc>>(variants, "optim", squares_lines<Acc>(),
                                        {{count}, accumulate}, " squares");
    }
  }
}

std::vector<DecisionCase> decisions() {
  std::vector<DecisionCase> cases;
  for (const double squares : {0.0, 16.0, static_cast<double>(NAN)}) {
    for (const double loss : {7.0, static_cast<double>(INFINITY)}) {
      for (const double clip_norm : {0.0, 1.0, 5.0}) {
        DecisionCase item{.shape = {1}, .clip_norm = clip_norm};
        item.state.squares = squares;
        item.state.loss_sum = loss;
        item.state.updates = 41;
        item.state.skipped = 2;
        cases.push_back(item);
      }
    }
  }
  return cases;
}

}  // namespace

std::vector<Variant> optim_variants(Purpose purpose) {
  std::vector<Variant> variants;
  const bool test = purpose == Purpose::test;
  const auto cases = test ? test_cases() : bench_cases();
  if (test) add_variants<double>(cases, variants);
  add_variants<float>(cases, variants);
  const std::vector<int64_t> counts =
      test ? std::vector<int64_t>{0, 1, 7, 8, 63, 1009, 16384, 16385, 100003}
           : std::vector<int64_t>{1750000, 38615040};
  if (test) add_squares<double>(counts, variants);
  add_squares<float>(counts, variants);
  for (const DecisionCase& given : decisions()) {
    if (test) append_variants<DecisionCall>(variants, "optim", decision_lines(), given);
  }
  return variants;
}

}  // namespace adder::measure
