#include <string>
#include <utility>

#include "measure/call_variants.h"
#include "measure/ssd_call.h"

namespace adder::measure {
namespace {

using Case = SsdCase;

template <class T>
void add_variants(std::vector<Variant>& variants, const Case& given) {
  append_variants<SsdCall<T>>(variants, "ssd", ssd_lines<T>(), given);
}

struct Sizes {
  int64_t heads = 1;
  int64_t head_dim = 1;
  int64_t state = 1;
  int64_t groups = 1;
  int64_t chunk = 64;
};

SsdShape shape(int64_t batch, int64_t len, const Sizes& sizes, bool gated = false) {
  return {.batch = batch,
          .len = len,
          .heads = sizes.heads,
          .head_dim = sizes.head_dim,
          .state = sizes.state,
          .groups = sizes.groups,
          .chunk = sizes.chunk,
          .gated = gated};
}

SsdShape plain(SsdShape given) {
  given.softplus = false;
  return given;
}

SsdShape per_channel(SsdShape given) {
  given.d_per_channel = true;
  return given;
}

Case packed(std::vector<int32_t> cu, const Sizes& sizes, bool gated) {
  Case given;
  given.shape = shape(1, cu.back(), sizes, gated);
  given.shape.sequences = static_cast<int64_t>(cu.size()) - 1;
  given.cu = std::move(cu);
  return given;
}

std::vector<Case> packed_cases() {
  std::vector<int32_t> each;  // a boundary everywhere
  for (int32_t i = 0; i <= 40; ++i) each.push_back(i);
  std::vector<Case> cases = {packed(each, {2, 5, 4, 1, 16}, true),
                             packed({0, 0, 1, 3, 3, 63, 128, 129, 200, 200}, {2, 16, 16}, true),
                             packed({0, 31, 32, 64, 97}, {3, 6, 5, 3, 32}, false),
                             packed({0, 150, 151, 301}, {2, 33, 17, 1, 64}, false)};
  cases[0].indexed = true;
  cases[1].in_place = true;
  cases[1].gap = 6;
  cases[2].reversed = true;
  cases[3].state = false;
  return cases;
}

std::vector<Case> extreme_cases() {
  return {{.shape = shape(1, 131, {6, 9, 16, 2, 64}, true), .values = ScanValues::extreme},
          {.shape = shape(2, 70, {6, 16, 8, 1, 32}), .values = ScanValues::extreme},
          {.shape = plain(shape(1, 67, {6, 12, 16, 3, 64}, true)),
           .bias = false,
           .values = ScanValues::unbounded}};
}

std::vector<Case> test_cases() {
  std::vector<Case> cases = {
      {.shape = shape(2, 0, {2, 5, 4}, true)},
      {.shape = shape(1, 0, {3, 4, 16}), .in_place = true},
      {.shape = shape(3, 1, {5, 17, 33}, true), .in_place = true, .saves = false, .indexed = true},
      {.shape = shape(1, 1, {2, 64, 128}), .in_place = true, .saves = false},
      {.shape = shape(2, 2, {4, 16, 16, 2}), .state = false},
      {.shape = shape(1, 5, {2, 1, 1}, true), .in_place = true, .gap = 5},
      {.shape = shape(2, 31, {3, 19, 16, 3, 32}), .skip = false, .gap = 11},
      {.shape = shape(1, 32, {2, 33, 16, 1, 32}),
       .bias = false,
       .state = false,
       .final_state = false},
      {.shape = shape(2, 33, {8, 8, 1, 2, 32}), .indexed = true, .reversed = true},
      {.shape = per_channel(shape(1, 63, {4, 3, 3, 4}, true)), .gap = 4},
      {.shape = shape(1, 64, {2, 18, 33}, true), .sparse = true},
      {.shape = per_channel(shape(2, 65, {2, 64, 16}, true)), .indexed = true, .gap = 2},
      {.shape = plain(shape(1, 127, {4, 17, 17, 2, 64}, true)), .dt_min = 0, .gap = 1},
      {.shape = shape(1, 193, {2, 37, 16}), .dt_min = 0.01, .dt_max = 0.5},
      {.shape = shape(1, 96, {2, 32, 64, 2, 48}, true),
       .skip = false,
       .bias = false,
       .reversed = true},
      {.shape = shape(33, 5, {2, 4, 2})},
      {.shape = shape(1, 300, {1, 7, 3, 1, 256})},
      {.shape = shape(1, 129, {2, 64, 128, 1, 128}), .state = false},
      {.shape = shape(1, 20, {1, 3, 256, 1, 16}, true)},
      {.shape = shape(2, 17, {2, 128, 24, 1, 1})},
  };
  for (const Case& given : packed_cases()) cases.push_back(given);
  for (const Case& given : extreme_cases()) cases.push_back(given);
  append_accumulating(cases, 3);
  return cases;
}

std::vector<Case> bench_cases() {
  return {{.shape = shape(8, 256, {8, 64, 64}), .state = false},
          {.shape = shape(8, 256, {8, 64, 64, 1, ssd_chunk_for(64, 64)}), .state = false},
          {.shape = shape(1, 2048, {24, 64, 128, 1, 128}), .state = false},
          {.shape = shape(1, 1, {24, 64, 128}), .in_place = true, .saves = false},
          {.shape = shape(64, 1, {24, 64, 128}), .in_place = true, .saves = false}};
}

}  // namespace

std::vector<Variant> ssd_variants(Purpose purpose) {
  return variants_of_types(purpose, purpose == Purpose::test ? test_cases() : bench_cases(),
                           [](auto& variants, const Case& given, auto type) {
                             add_variants<decltype(type)>(variants, given);
                           });
}

}  // namespace adder::measure
