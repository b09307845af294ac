#include <utility>

#include "measure/call_variants.h"
#include "measure/s6_call.h"

namespace adder::measure {
namespace {

using Case = S6Case;

template <class T>
void add_variants(std::vector<Variant>& variants, const Case& given) {
  for (const auto& line : s6_lines<T>()) {
    // Real and complex shapes have lines of their own: not worth a list of skips.
    if (given.shape.complex != (std::string_view(line.info.name) == "complex")) continue;
    append_variants<S6Call<T>>(variants, "s6", std::span(&line, 1), given);
  }
}

S6Shape shape(int64_t batch, int64_t len, int64_t dim, int64_t state, int64_t groups = 1,
              bool gated = true, bool softplus = true) {
  return {.batch = batch,
          .len = len,
          .dim = dim,
          .state = state,
          .groups = groups,
          .softplus = softplus,
          .gated = gated};
}

Case packed(std::vector<int32_t> cu, int64_t dim, int64_t state, int64_t groups, bool gated) {
  Case given;
  given.shape = shape(1, cu.back(), dim, state, groups, gated);
  given.shape.sequences = static_cast<int64_t>(cu.size()) - 1;
  given.cu = std::move(cu);
  return given;
}

std::vector<Case> packed_cases() {
  std::vector<int32_t> each;  // a boundary everywhere
  for (int32_t i = 0; i <= 40; ++i) each.push_back(i);
  std::vector<Case> cases = {packed(each, 11, 4, 1, true),
                             packed({0, 0, 1, 3, 3, 63, 128, 129, 200, 200}, 21, 16, 1, true),
                             packed({0, 31, 32, 64, 97}, 6, 5, 3, false),
                             packed({0, 600, 601, 1201}, 3, 2, 1, true)};
  cases[0].indexed = true;
  cases[1].in_place = true;
  cases[1].gap = 6;
  cases[2].reversed = true;
  cases[2].channel_stride = 2;
  cases[3].state = false;
  return cases;
}

Case complex(Case given) {
  given.shape.complex = true;
  return given;
}

std::vector<Case> complex_cases() {
  return {
      complex({.shape = shape(2, 0, 5, 4)}),
      complex({.shape = shape(3, 1, 37, 8), .in_place = true, .saves = false, .indexed = true}),
      complex({.shape = shape(2, 33, 8, 1, 2, false), .indexed = true, .reversed = true}),
      complex({.shape = shape(1, 64, 18, 17), .sparse = true}),
      complex({.shape = shape(2, 40, 7, 3, 7), .constant_B = true, .constant_C = true}),
      complex({.shape = shape(2, 65, 13, 4), .channel_stride = 3, .gap = 2}),
      complex({.shape = shape(1, 127, 270, 3, 2, true, false), .dt_min = 0, .gap = 1}),
      complex({.shape = shape(1, 200, 21, 5), .skip = false, .dt_min = 0.01, .dt_max = 0.5}),
      complex({.shape = shape(1, 131, 21, 16), .values = ScanValues::extreme}),
      complex({.shape = shape(1, 67, 9, 4, 1, false, false),
               .bias = false,
               .values = ScanValues::unbounded}),
      complex(packed({0, 0, 1, 3, 3, 63, 128, 129, 200, 200}, 21, 4, 3, true)),
  };
}

std::vector<Case> test_cases() {
  std::vector<Case> cases = {
      {.shape = shape(2, 0, 5, 4)},
      {.shape = shape(1, 0, 3, 16), .in_place = true},
      {.shape = shape(3, 1, 37, 16), .in_place = true, .saves = false, .indexed = true},
      {.shape = shape(2, 2, 16, 16, 1, false), .state = false},
      {.shape = shape(1, 2, 17, 7), .in_place = true, .gap = 5},
      {.shape = shape(2, 31, 19, 16), .skip = false, .gap = 11},
      {.shape = shape(1, 32, 33, 16), .bias = false, .state = false, .final_state = false},
      {.shape = shape(2, 33, 8, 1, 2, false), .indexed = true, .reversed = true},
      {.shape = shape(1, 63, 12, 3, 12), .gap = 4},
      {.shape = shape(1, 64, 18, 33, 1, true), .sparse = true},
      {.shape = shape(2, 65, 13, 16), .indexed = true, .channel_stride = 3, .gap = 2},
      {.shape = shape(1, 127, 24, 17, 2, true, false), .dt_min = 0, .gap = 1},
      {.shape = shape(1, 200, 37, 16), .dt_min = 0.01, .dt_max = 0.5},
      {.shape = shape(2, 35, 270, 4, 2, false), .skip = false, .bias = false, .reversed = true},
      {.shape = shape(1, 37, 530, 5)},  // two wide tiles and a narrow one
      {.shape = shape(33, 5, 4, 2)},
      {.shape = shape(2, 70, 19, 5, 19), .constant_B = true, .constant_C = true},
      {.shape = shape(1, 1025, 21, 16), .constant_B = true, .constant_C = true},
      {.shape = shape(1, 1103, 3, 7), .reversed = true},
      {.shape = shape(2, 513, 3, 5, 1, false), .state = false},
      {.shape = shape(1, 131, 21, 16), .values = ScanValues::extreme},
      {.shape = shape(1, 1025, 5, 3), .values = ScanValues::extreme},
      {.shape = shape(1, 67, 21, 16, 1, true, false),
       .bias = false,
       .values = ScanValues::unbounded},
  };
  for (const Case& given : packed_cases()) cases.push_back(given);
  for (const Case& given : complex_cases()) cases.push_back(given);
  append_accumulating(cases, 3);
  return cases;
}

std::vector<Case> bench_cases() {
  return {{.shape = shape(8, 256, 512, 16), .state = false},
          {.shape = shape(1, 2048, 1536, 16), .state = false},
          {.shape = shape(1, 1, 1536, 16), .in_place = true, .saves = false},
          {.shape = shape(64, 1, 1536, 16), .in_place = true, .saves = false},
          complex({.shape = shape(8, 256, 512, 8), .state = false})};
}

}  // namespace

std::vector<Variant> s6_variants(Purpose purpose) {
  return variants_of_types(purpose, purpose == Purpose::test ? test_cases() : bench_cases(),
                           [](auto& variants, const Case& given, auto type) {
                             add_variants<decltype(type)>(variants, given);
                           });
}

}  // namespace adder::measure
