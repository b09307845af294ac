#include <fmt/format.h>

#include "measure/call_variants.h"
#include "measure/gemm_call.h"

namespace adder::measure {
namespace {

using Case = GemmCase;

template <class TA, class TB, class TC>
void add_variants(const std::vector<Case>& cases, std::vector<Variant>& variants) {
  std::string types;
  if (dtype_of<TA> != dtype_of<TB> || dtype_of<TA> != dtype_of<TC>) {
    types = fmt::format(" b:{} c:{}", dtype_name(dtype_of<TB>), dtype_name(dtype_of<TC>));
  }
  for (const Case& given : cases) {
    append_variants<GemmCall<TA, TB, TC>>(variants, "gemm", gemm_lines<TA, TB, TC>(), given, types);
  }
}

GemmShape product(int64_t m, int64_t n, int64_t k, bool transpose_a, bool transpose_b) {
  return {.m = m, .n = n, .k = k, .transpose_a = transpose_a, .transpose_b = transpose_b};
}

// Layouts, options and strides walk through all combinations while the extents vary.
std::vector<Case> test_cases() {
  struct Extents {
    int64_t m, n, k;
  };
  constexpr Extents kExtents[] = {
      {1, 1, 1},    {0, 5, 3},     {3, 0, 2},    {2, 3, 0},    {1, 48, 200},  {1, 65, 127},
      {2, 64, 63},  {3, 17, 2},    {7, 13, 65},  {8, 127, 64}, {16, 2, 31},   {17, 33, 64},
      {31, 1, 200}, {32, 16, 512}, {63, 65, 47}, {64, 63, 1},  {65, 129, 17}, {97, 200, 129},
      {130, 64, 3}, {211, 31, 16}, {19, 521, 7}, {16, 16, 997}};
  std::vector<Case> cases;
  int index = 0;
  for (const Extents& extents : kExtents) {
    for (int layout = 0; layout < 4; ++layout, ++index) {
      if (layout == 3 && index % 8 != 3) continue;  // A and B both transposed: nobody's layout
      Case item;
      item.shape = product(extents.m, extents.n, extents.k, layout >= 2, layout % 2 == 1);
      const int option = (index / 4 + layout) % 4;
      item.shape.bias = (option & 1) != 0;
      item.shape.accumulate = (option & 2) != 0;
      item.pad = (index / 3) % 2 == 0 ? 0 : 3;
      cases.push_back(item);
    }
  }
  return cases;
}

// The products of a training step (2048 tokens) of Mamba-1 with width 256: y = x W^T, gx = gy W,
// gW = gy^T x for in_proj, x_proj, dt_proj, out_proj and the head.
std::vector<Case> training_cases() {
  constexpr int64_t kTokens = 2048;
  constexpr int64_t kOutIn[][2] = {{1024, 256}, {48, 512}, {512, 16}, {256, 512}, {256, 256}};
  std::vector<Case> cases;
  for (const auto& [out, in] : kOutIn) {
    cases.push_back({product(kTokens, out, in, false, true)});
    cases.push_back({product(kTokens, in, out, false, false)});
    cases.push_back({product(out, in, kTokens, true, false)});
  }
  return cases;
}

// Mamba-1 130M: prefill of 512 tokens, decoding of 1 and 4 sequences.
std::vector<Case> inference_cases() {
  constexpr int64_t kOutIn[][2] = {{3072, 768}, {80, 1536}, {1536, 48}, {768, 1536}, {50280, 768}};
  std::vector<Case> cases;
  for (const auto& [out, in] : kOutIn) {
    cases.push_back({product(1, out, in, false, true)});
    cases.push_back({product(4, out, in, false, true)});
    if (out < 50000) cases.push_back({product(512, out, in, false, true)});
  }
  return cases;
}

}  // namespace

std::vector<Variant> gemm_variants(Purpose purpose) {
  std::vector<Variant> variants;
  if (purpose == Purpose::test) {
    const auto cases = test_cases();
    add_variants<double, double, double>(cases, variants);
    add_variants<float, float, float>(cases, variants);
    add_variants<Bf16, Bf16, Bf16>(cases, variants);
    add_variants<Bf16, Bf16, float>(cases, variants);
    add_variants<float, Bf16, float>(cases, variants);
    return variants;
  }
  const auto training = training_cases(), inference = inference_cases();
  add_variants<float, float, float>(training, variants);
  add_variants<Bf16, Bf16, Bf16>(training, variants);
  add_variants<Bf16, Bf16, float>(training, variants);
  add_variants<float, float, float>(inference, variants);
  add_variants<Bf16, Bf16, Bf16>(inference, variants);
  add_variants<float, Bf16, float>(inference, variants);
  return variants;
}

}  // namespace adder::measure
