#include <utility>

#include "measure/call_variants.h"
#include "measure/conv1d_call.h"

namespace adder::measure {
namespace {

using Case = Conv1dCase;

template <class T>
void add_variants(std::vector<Variant>& variants, const Case& given) {
  append_variants<Conv1dCall<T>>(variants, "conv1d", conv1d_lines<T>(), given);
}

std::vector<Case> test_cases() {
  const auto shape = [](int64_t batch, int64_t len, int64_t channels, int64_t width, bool silu) {
    return Conv1dShape{batch, len, channels, width, 0, silu};
  };
  const auto packed = [](std::vector<int32_t> cu, int64_t channels, int64_t width, bool silu) {
    Case given;
    given.shape = {1, cu.back(), channels, width, static_cast<int64_t>(cu.size()) - 1, silu};
    given.cu = std::move(cu);
    return given;
  };
  std::vector<Case> cases = {
      {.shape = shape(2, 0, 5, 4, true)},
      {.shape = shape(1, 0, 3, 4, true), .in_place = true},
      {.shape = shape(3, 1, 37, 4, true), .in_place = true, .indexed = true},
      {.shape = shape(2, 2, 16, 4, true), .state = false},
      {.shape = shape(1, 2, 17, 7, false), .in_place = true, .gap = 5},
      {.shape = shape(2, 63, 19, 4, true), .bias = false, .gap = 11},
      {.shape = shape(1, 64, 33, 3, true), .state = false, .final_state = false},
      {.shape = shape(2, 65, 8, 2, false), .indexed = true, .reversed = true},
      {.shape = shape(1, 127, 31, 1, true)},
      {.shape = shape(2, 129, 13, 4, true), .indexed = true, .channel_stride = 3, .gap = 2},
      {.shape = shape(1, 200, 261, 4, true), .gap = 1},
      {.shape = shape(1, 257, 24, 5, true), .bias = false, .reversed = true},
      {.shape = shape(1, 263, 7, 16, true), .indexed = true},
      {.shape = shape(2, 139, 6, 17, true), .in_place = true},
      {.shape = shape(1, 211, 5, 67, false), .channel_stride = 2},
      {.shape = shape(1, 31, 9, 67, true), .bias = false, .in_place = true},
      {.shape = shape(1, 131, 21, 4, true), .scale = 1e4},
      {.shape = shape(1, 65, 40, 4, true), .scale = 100},
      {.shape = shape(1, 67, 21, 4, true), .scale = 1e-4},
  };
  std::vector<int32_t> each;  // a boundary everywhere
  for (int32_t i = 0; i <= 40; ++i) each.push_back(i);
  cases.push_back(packed(each, 11, 4, true));
  cases.push_back(packed({0, 0, 1, 3, 3, 63, 128, 129, 200, 200}, 35, 4, true));
  cases.push_back(packed({0, 127, 128, 130, 257}, 17, 4, false));
  cases.push_back(packed({0, 5, 5, 6, 71, 143}, 18, 18, true));
  cases.push_back(packed({0, 2, 130, 131}, 6, 3, true));
  cases[cases.size() - 4].indexed = true;
  cases[cases.size() - 3].in_place = true;
  cases[cases.size() - 3].gap = 6;
  cases[cases.size() - 2].reversed = true;
  cases[cases.size() - 1].channel_stride = 2;
  append_accumulating(cases);
  return cases;
}

std::vector<Case> bench_cases() {
  const auto plain = [](int64_t batch, int64_t len, int64_t channels) {
    // The x half of in_proj's (batch, len, 2 d_inner) output, as layers call it.
    return Case{.shape = {batch, len, channels, 4, 0, true}, .state = false, .gap = channels};
  };
  std::vector<Case> cases = {plain(8, 256, 512), plain(1, 2048, 1536)};
  cases.push_back({.shape = {1, 1, 1536, 4, 0, true}, .in_place = true});
  cases.push_back({.shape = {64, 1, 1536, 4, 0, true}, .in_place = true});
  return cases;
}

}  // namespace

std::vector<Variant> conv1d_variants(Purpose purpose) {
  return variants_of_types(purpose, purpose == Purpose::test ? test_cases() : bench_cases(),
                           [](auto& variants, const Case& given, auto type) {
                             add_variants<decltype(type)>(variants, given);
                           });
}

}  // namespace adder::measure
