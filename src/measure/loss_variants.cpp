#include <array>

#include "measure/call_variants.h"
#include "measure/loss_call.h"

namespace adder::measure {
namespace {

using Case = LossCase;

template <class L, class D>
void add_variants(const std::vector<Case>& cases, std::vector<Variant>& variants) {
  const bool same = dtype_of<L> == dtype_of<D>;
  const std::string types = same ? "" : " gradient " + std::string(dtype_name(dtype_of<D>));
  for (const Case& given : cases) {
    append_variants<LossCall<L, D>>(variants, "loss", loss_lines<L, D>(), given, types);
  }
}

std::vector<Case> test_cases() {
  std::vector<Case> cases;
  int index = 0;
  for (const int64_t vocab : {1, 2, 15, 16, 17, 63, 64, 65, 127, 200, 256, 1009, 5003}) {
    for (const int64_t rows : {0, 1, 5, 64}) {
      if (rows == 64 && vocab > 256) continue;
      if (rows == 0 && vocab > 2) continue;
      Case item;
      item.shape.rows = rows;
      item.shape.vocab = vocab;
      item.shape.columns = vocab + (index % 3 == 1 ? 7 : 0);
      item.shape.label_smoothing = index % 2 == 1 ? 0.1 : 0;
      item.shape.z_loss = index % 5 == 2 ? 1e-3 : 0;
      item.pad = index % 4 == 2 ? 5 : 0;
      item.scale = index % 3 == 2 ? 30 : 2;
      item.in_place = index % 4 == 1;
      item.gradient = index % 7 != 5;
      // Smoothed, a logit of -inf costs infinitely much.
      item.infinite = index % 2 == 0 && index % 3 == 0;
      cases.push_back(item);
      ++index;
    }
  }
  return cases;
}

std::vector<Case> bench_cases() {
  std::vector<Case> cases;
  for (const auto& [rows, vocab, columns] :
       {std::array<int64_t, 3>{2048, 256, 256}, {256, 50277, 50280}}) {
    for (const bool gradient : {true, false}) {
      Case item;
      item.shape.rows = rows;
      item.shape.vocab = vocab;
      item.shape.columns = columns;
      item.gradient = gradient;
      item.in_place = gradient;  // as training runs it
      cases.push_back(item);
    }
  }
  return cases;
}

}  // namespace

std::vector<Variant> loss_variants(Purpose purpose) {
  std::vector<Variant> variants;
  const auto cases = purpose == Purpose::test ? test_cases() : bench_cases();
  if (purpose == Purpose::test) add_variants<double, double>(cases, variants);
  add_variants<float, float>(cases, variants);
  add_variants<float, Bf16>(cases, variants);
  for (const int64_t rows : purpose == Purpose::test ? std::vector<int64_t>{0, 1, 2, 63, 1000}
                                                     : std::vector<int64_t>{2048}) {
    for (const bool accumulate : {false, true}) {
      append_variants<LossSumCall>(variants, "loss", loss_sum_lines(), {{rows}, accumulate},
                                   " sum");
    }
  }
  return variants;
}

}  // namespace adder::measure
