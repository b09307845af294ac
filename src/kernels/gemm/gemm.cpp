#include "kernels/gemm/gemm.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/door.h"
#include "kernels/gemm/cut.h"
#include "kernels/gemm/onednn.h"

namespace adder {
namespace {

constexpr Door kDoor("gemm");

constexpr int kOnednnClass = 1, kRowDotsClass = 2, kBlockedClass = 3;

double flops_of(const GemmShape& shape) {
  return 2.0 * static_cast<double>(shape.m) * static_cast<double>(shape.n) *
         static_cast<double>(shape.k);
}

// Rates (units per microsecond of one core) were measured on an AVX-512 and AMX machine (Granite
// Rapids class, 2 cores, 27 GB/s); narrower words scale those of arithmetic down. They rank lines.
template <class Acc>
double word_rate(const Caps& caps, double rate) {
  return rate * caps.vector_bytes / 64.0 * 4.0 / sizeof(Acc);
}
double weights_of(const GemmShape& shape) {
  return static_cast<double>(shape.n) * static_cast<double>(shape.k);
}
constexpr double kStreamRate = 17e3;  // bytes

template <class TA>
bool onednn_accepts(const Caps&, const GemmShape& shape) {
  const int64_t fewest_rows = std::is_same_v<TA, Bf16> ? 1 : kOnednnRows;
  return shape.m >= fewest_rows && shape.n >= 1 && shape.k >= 1;
}

// Packs B once for each tile of rows; widening a bf16 B to fp32 reads and writes it once more.
template <class TA, class TB>
double onednn_us(const Caps& caps, const GemmShape& shape, Direction) {
  if constexpr (std::is_same_v<TA, Bf16>) {
    const double rate = caps.amx_bf16 ? 900e3 : caps.avx512_bf16 ? 300e3 : 80e3;
    const double us =
        4.0 + flops_of(shape) / rate + weights_of(shape) * sizeof(TB) * 1.2 / kStreamRate;
    return us / kPredictedThreads;
  } else {
    const double packing_rate = std::is_same_v<TA, TB> ? 8e3 : 3e3;
    const double us =
        4.0 + flops_of(shape) / word_rate<float>(caps, 165e3) + weights_of(shape) / packing_rate;
    return us / kPredictedThreads;
  }
}

bool row_dots_accepts(const Caps&, const GemmShape& shape) {
  return !shape.transpose_a && shape.transpose_b;
}

// Streams B once for 64 rows of A; adding the lanes costs about a nanosecond an element of C.
template <class TA, class TB>
double row_dots_us(const Caps& caps, const GemmShape& shape, Direction) {
  const double passes = static_cast<double>((shape.m + 63) / 64);
  const double bytes = passes * weights_of(shape) * sizeof(TB);
  const double elements = static_cast<double>(shape.m) * static_cast<double>(shape.n);
  const double products_us =
      flops_of(shape) / word_rate<accumulate_t<TA>>(caps, 95e3) + elements / 1e3;
  return (1.0 + std::max(bytes / kStreamRate, products_us)) / kPredictedThreads;
}

// Packs B once for 96 rows of A, an element at a time where B is transposed.
template <class TA>
double blocked_us(const Caps& caps, const GemmShape& shape, Direction) {
  const double passes = static_cast<double>((shape.m + 95) / 96);
  const double us = 3.0 + flops_of(shape) / word_rate<accumulate_t<TA>>(caps, 105e3) +
                    passes * weights_of(shape) / (shape.transpose_b ? 1e3 : 3e3);
  return us / kPredictedThreads;
}

template <class TA, class TB, class TC>
constexpr GemmLine<TA, TB, TC> onednn_line() {
  constexpr bool kWidened = !std::is_same_v<TA, TB>, kNarrow = std::is_same_v<TA, Bf16>;
  return {cpu_line<TA>("onednn", kNarrow ? 0 : kOnednnClass),
          onednn_accepts<TA>,
          onednn_us<TA, TB>,
          kWidened  ? onednn_widened_scratch_bytes
          : kNarrow ? no_scratch<GemmShape>
                    : onednn_scratch_bytes,
          {onednn_forward}};
}

template <class TA, class TB, class TC>
constexpr GemmLine<TA, TB, TC> row_dots_line() {
  return {cpu_line<TA>("row_dots", kRowDotsClass),
          row_dots_accepts,
          row_dots_us<TA, TB>,
          no_scratch,
          {row_dots_forward}};
}

template <class TA, class TB, class TC>
constexpr GemmLine<TA, TB, TC> blocked_line() {
  return {cpu_line<TA>("blocked", kBlockedClass),
          accepts_all,
          blocked_us<TA>,
          no_scratch,
          {blocked_forward}};
}

template <class TA, class TB, class TC>
void check_args(const GemmShape& shape, const GemmArgs<TA, TB, TC>& args) {
  const bool a_turned = shape.transpose_a, b_turned = shape.transpose_b;
  kDoor.row_stride("lda", args.lda, a_turned ? shape.k : shape.m, a_turned ? shape.m : shape.k);
  kDoor.row_stride("ldb", args.ldb, b_turned ? shape.n : shape.k, b_turned ? shape.k : shape.n);
  kDoor.row_stride("ldc", args.ldc, shape.m, shape.n);
  kDoor.array("a", args.a, shape.m * shape.n * shape.k);
  kDoor.array("b", args.b, shape.m * shape.n * shape.k);
  kDoor.array("c", args.c, shape.m * shape.n);
  if (shape.bias) kDoor.array("bias", args.bias, shape.m * shape.n);
}

template <class T>
TokenView<const T> stored_rows(const T* data, int64_t stride) {
  return {data, 0, stride};
}

}  // namespace

void GemmShape::check() const {
  kDoor.at_least("m", m, 0);
  kDoor.at_least("n", n, 0);
  kDoor.at_least("k", k, 0);
}

Cost GemmShape::cost(Dtype dtype, Dtype b_type, Dtype c_type) const {
  const auto product = [](int64_t x, int64_t y) {
    return static_cast<double>(x) * static_cast<double>(y);
  };
  Cost cost;
  cost.flops = flops_of(*this) + (bias ? product(m, n) : 0.0) + (accumulate ? product(m, n) : 0.0);
  cost.bytes = product(m, k) * static_cast<double>(dtype_bytes(dtype)) +
               product(k, n) * static_cast<double>(dtype_bytes(b_type)) +
               product(m, n) * static_cast<double>(dtype_bytes(c_type)) * (accumulate ? 2.0 : 1.0);
  return cost;
}

std::string GemmShape::describe() const {
  return fmt::format("m{} n{} k{} {}{}{}{}", m, n, k, transpose_a ? 'T' : 'N',
                     transpose_b ? 'T' : 'N', bias ? " bias" : "", accumulate ? " accumulate" : "");
}

template <class TA, class TB, class TC>
std::span<const GemmLine<TA, TB, TC>> gemm_lines() {
  if constexpr (std::is_same_v<TA, double>) {
    static constexpr std::array kLines = {row_dots_line<TA, TB, TC>(), blocked_line<TA, TB, TC>()};
    return kLines;
  } else {
    static constexpr std::array kLines = {onednn_line<TA, TB, TC>(), row_dots_line<TA, TB, TC>(),
                                          blocked_line<TA, TB, TC>()};
    return kLines;
  }
}

template <class TA, class TB, class TC>
void gemm(Context& context, const GemmShape& given, const GemmArgs<TA, TB, TC>& args,
          const Choice& choice) {
  given.check();
  check_args(given, args);
  if (given.m == 0 || given.n == 0) return;
  GemmShape shape = given;
  shape.layout = layout_of(stored_rows(args.a, args.lda), stored_rows(args.b, args.ldb),
                           stored_rows<TC>(args.c, args.ldc));
  run_line(context, kDoor.family(), gemm_lines<TA, TB, TC>(), shape, Direction::forward, args,
           choice);
}

#define ADDER_GEMM(TA, TB, TC, suffix)                                     \
  template std::span<const GemmLine<TA, TB, TC>> gemm_lines<TA, TB, TC>(); \
  ADDER_DOOR(gemm, GemmShape, GemmArgs<TA, TB, TC>)
ADDER_GEMM_TYPES(ADDER_GEMM)
#undef ADDER_GEMM

}  // namespace adder
