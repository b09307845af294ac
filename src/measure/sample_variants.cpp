#include "measure/call_variants.h"
#include "measure/sample_call.h"

namespace adder::measure {
namespace {

using Case = SampleCase;

std::vector<Case> test_cases() {
  std::vector<Case> cases;
  for (const int64_t vocab : {4, 5, 64, 257, 3001}) {
    for (const double temperature : {0.0, 0.3, 1.0}) {
      for (const int64_t top_k : {0, 1, 17}) {
        for (const double top_p : {1.0, 0.9, 0.0}) {
          const auto turn = static_cast<int64_t>(cases.size());
          Case item{.shape = {.rows = 1 + turn % 7, .vocab = vocab}};
          item.options.temperature = temperature;
          item.options.top_k = top_k;
          item.options.top_p = top_p;
          item.options.min_p = turn % 3 == 1 ? 0.05 : 0;
          item.options.repetition_penalty = turn % 2 == 1 ? 1.7 : 1;
          item.pad = turn % 5;
          item.previous = turn % 4 * 3;
          item.awkward = turn % 2 == 0;
          cases.push_back(item);
        }
      }
    }
  }
  cases.push_back({.shape = {.rows = 0, .vocab = 3}});
  return cases;
}

// Decoding: greedy, and as chat models draw.
std::vector<Case> bench_cases() {
  std::vector<Case> cases;
  for (const int64_t rows : {1, 64}) {
    Case item{.shape = {.rows = rows, .vocab = 50280}};
    item.options.temperature = 0;
    cases.push_back(item);
    item.options.temperature = 0.8;
    item.options.top_k = 50;
    item.options.top_p = 0.95;
    cases.push_back(item);
  }
  return cases;
}

}  // namespace

std::vector<Variant> sample_variants(Purpose purpose) {
  std::vector<Variant> variants;
  for (const Case& given : purpose == Purpose::test ? test_cases() : bench_cases()) {
    append_variants<SampleCall>(variants, "sample", sample_lines(), given);
  }
  return variants;
}

}  // namespace adder::measure
