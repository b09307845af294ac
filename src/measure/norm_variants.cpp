#include "measure/call_variants.h"
#include "measure/norm_call.h"

namespace adder::measure {
namespace {

template <class T, class R>
void add_norm(std::vector<Variant>& variants, const NormCase& given) {
  append_variants<NormCall<T, R>>(variants, "norm", norm_lines<T, R>(), given,
                                  " residual " + std::string(dtype_name(dtype_of<R>)));
}

template <class T>
void add_gated(std::vector<Variant>& variants, const GatedNormCase& given) {
  append_variants<GatedNormCall<T>>(variants, "norm", gated_norm_lines<T>(), given);
}

std::vector<NormCase> norm_test_cases() {
  const auto rms = [](int64_t rows, int64_t width) { return NormShape{rows, width}; };
  const auto layer = [](int64_t rows, int64_t width) {
    return NormShape{rows, width, NormKind::layer};
  };
  std::vector<NormCase> cases = {
      {.shape = rms(0, 7)},
      {.shape = layer(1, 1), .b = true},
      {.shape = rms(1, 1)},
      {.shape = rms(2, 2), .residual = false},
      {.shape = layer(63, 5), .w = false, .gap = 3},
      {.shape = rms(64, 17), .b = true, .in_place = true},
      {.shape = layer(65, 37), .b = true, .in_place = true, .gap = 1},
      {.shape = rms(127, 64), .x = false, .residual_out = false},
      {.shape = layer(11, 127), .x = false, .b = true, .residual_out = false},
      {.shape = rms(200, 65), .w = false, .gap = 7},
      {.shape = rms(149, 131), .residual = false, .b = true, .residual_out = false, .gap = 2},
      {.shape = layer(131, 200), .residual = false},
      {.shape = rms(5, 1031), .in_place = true},
      {.shape = layer(3, 2053), .b = true},
      {.shape = rms(300, 41), .b = true},
      {.shape = rms(4, 63), .in_place = true, .scale = 0.0},  // rms of zeros: eps alone
      {.shape = layer(4, 63), .b = true, .scale = 0.0},
      {.shape = rms(3, 1000), .scale = 1e18},  // squares beyond float
      {.shape = layer(3, 1000), .b = true, .scale = 1e18},
      {.shape = rms(3, 100), .scale = 1e-18},
      {.shape = layer(5, 300), .b = true, .scale = 0.3, .offset = 100.0},
      {.shape = {3, 33, NormKind::rms, 0.0}},
      {.shape = rms(0, 7), .b = true},
      {.shape = rms(300, 41)},
      {.shape = layer(65, 37), .b = true},
  };
  append_accumulating(cases);
  return cases;
}

std::vector<GatedNormCase> gated_test_cases() {
  std::vector<GatedNormCase> cases = {
      {.shape = {0, 8, 0, false}},
      {.shape = {1, 1, 0, false}, .gap = 1},
      {.shape = {1, 1, 1, true}},
      {.shape = {2, 34, 17, false}, .gap = 5},
      {.shape = {63, 35, 7, true}, .gap = 3},
      {.shape = {64, 64, 16, false}},
      {.shape = {65, 127, 0, true}, .gap = 1},
      {.shape = {127, 130, 65, false}, .dw = false},
      {.shape = {200, 66, 1, true}},
      {.shape = {131, 96, 96, false}, .gap = 32},
      {.shape = {5, 1031, 0, false}},
      {.shape = {7, 1036, 518, true}, .gap = 9},
      {.shape = {3, 48, 24, false}, .scale = 0.0},
      {.shape = {3, 48, 24, true}, .scale = 0.0},
      {.shape = {2, 1000, 0, false}, .scale = 1e18},
      {.shape = {2, 1000, 500, true}, .scale = 1e18},
      {.shape = {131, 96, 32, false}},
  };
  append_accumulating(cases);
  return cases;
}

}  // namespace

std::vector<Variant> norm_variants(Purpose purpose) {
  const bool test = purpose == Purpose::test;
  std::vector<Variant> variants;
  const std::vector<NormCase> norm_bench = {
      {.shape = {2048, 256}}, {.shape = {2048, 768}}, {.shape = {1, 768}}, {.shape = {64, 768}}};
  for (const NormCase& given : test ? norm_test_cases() : norm_bench) {
    if (test) add_norm<double, double>(variants, given);
    add_norm<float, float>(variants, given);
    add_norm<Bf16, float>(variants, given);
    add_norm<Bf16, Bf16>(variants, given);
  }
  const std::vector<GatedNormCase> gated_bench = {{.shape = {2048, 512, 0, false}, .gap = 512},
                                                  {.shape = {2048, 1536, 0, false}, .gap = 1536},
                                                  {.shape = {1, 1536, 0, false}}};
  for (const GatedNormCase& given : test ? gated_test_cases() : gated_bench) {
    if (test) add_gated<double>(variants, given);
    add_gated<float>(variants, given);
    add_gated<Bf16>(variants, given);
  }
  return variants;
}

}  // namespace adder::measure
