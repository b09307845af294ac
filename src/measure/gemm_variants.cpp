#include <fmt/format.h>

#include "core/buffer.h"
#include "kernels/gemm/gemm.h"
#include "kernels/ref/gemm_ref.h"
#include "measure/tensors.h"
#include "measure/variant.h"

namespace adder::measure {
namespace {

struct Case {
  GemmShape shape;
  int64_t pad = 0;  // elements between the rows of every matrix
};

// One call's arguments. The reference runs on the same values widened, with the same strides.
template <class TA, class TB, class TC>
struct Tensors {
  int64_t lda, ldb, ldc;
  Guarded<TA> a;
  Guarded<TB> b;
  Guarded<TC> c;
  Guarded<accumulate_t<TA>> bias;

  explicit Tensors(const Case& item, uint64_t seed)
      : lda((item.shape.transpose_a ? item.shape.m : item.shape.k) + item.pad),
        ldb((item.shape.transpose_b ? item.shape.k : item.shape.n) + item.pad),
        ldc(item.shape.n + item.pad),
        a(lda * (item.shape.transpose_a ? item.shape.k : item.shape.m)),
        b(ldb * (item.shape.transpose_b ? item.shape.n : item.shape.k)),
        c(ldc * item.shape.m),
        bias(item.shape.bias ? item.shape.n : 0) {
    fill_normal(a, seed, "gemm a");
    fill_normal(b, seed, "gemm b");
    fill_normal(bias, seed, "gemm bias");
    if (!item.shape.accumulate) return;
    for (int64_t i = 0; i < item.shape.m; ++i) {
      for (int64_t j = 0; j < item.shape.n; ++j) {
        c[i * ldc + j] = from_double<TC>(
            normal(seed, stream_of("gemm c"), static_cast<uint64_t>(i * item.shape.n + j)));
      }
    }
  }
  template <class UA, class UB, class UC>
  explicit Tensors(const Tensors<UA, UB, UC>& other)
      : lda(other.lda),
        ldb(other.ldb),
        ldc(other.ldc),
        a(other.a.template converted<TA>()),
        b(other.b.template converted<TB>()),
        c(other.c.template converted<TC>()),
        bias(other.bias.template converted<accumulate_t<TA>>()) {}

  GemmArgs<TA, TB, TC> args() {
    GemmArgs<TA, TB, TC> args;
    args.a = a.data();
    args.lda = lda;
    args.b = b.data();
    args.ldb = ldb;
    args.c = c.data();
    args.ldc = ldc;
    args.bias = bias.count() > 0 ? bias.data() : nullptr;
    return args;
  }
  std::vector<double> result(const GemmShape& shape) const {
    std::vector<double> values;
    values.reserve(static_cast<size_t>(shape.m * shape.n));
    for (int64_t i = 0; i < shape.m; ++i) {
      for (int64_t j = 0; j < shape.n; ++j) values.push_back(to_double(c[i * ldc + j]));
    }
    return values;
  }
};

template <class T>
bool same_bytes(const Guarded<T>& x, const Guarded<T>& y) {
  return std::memcmp(x.data(), y.data(), static_cast<size_t>(x.count()) * sizeof(T)) == 0;
}

template <class TA, class TB, class TC>
void run(const GemmLine<TA, TB, TC>& line, const GemmShape& shape, const GemmArgs<TA, TB, TC>& args,
         int threads) {
  const Buffer scratch(line.scratch_bytes(cpu_caps(), shape, Direction::forward));
  Exec exec;
  exec.threads = threads;
  exec.scratch = scratch.data();
  line.run.forward(shape, args, exec);
}

template <class TC>
void check_padding(const GemmShape& shape, int64_t ldc, const Guarded<TC>& before,
                   const Guarded<TC>& after, Comparison& comparison) {
  for (int64_t i = 0; i < shape.m; ++i) {
    const auto bytes = static_cast<size_t>(ldc - shape.n) * sizeof(TC);
    const int64_t first = i * ldc + shape.n;
    if (std::memcmp(before.data() + first, after.data() + first, bytes) != 0) {
      return comparison.add_fault("wrote between the rows of 'c'");
    }
  }
}

template <class TA, class TB, class TC>
Comparison check(const GemmLine<TA, TB, TC>& line, const Case& item, const RunOptions& options) {
  const GemmShape& shape = item.shape;
  Tensors<TA, TB, TC> given(item, options.seed);
  Tensors<TA, TB, TC> evaluated(given);
  Tensors<double, double, double> expected(given), absolute(given);
  const Tensors<TA, TB, TC> before(given);
  run(line, shape, given.args(), options.threads);
  ref::gemm(shape, evaluated.args());
  ref::gemm(shape, expected.args());
  ref::gemm(shape, absolute.args(), true);

  Comparison comparison;
  comparison.add({"c", dtype_of<TC>, given.result(shape), expected.result(shape),
                  evaluated.result(shape), absolute.result(shape)});
  given.a.check_guards(comparison, "a");
  given.b.check_guards(comparison, "b");
  given.c.check_guards(comparison, "c");
  check_padding(shape, given.ldc, before.c, given.c, comparison);
  if (!same_bytes(given.a, before.a) || !same_bytes(given.b, before.b) ||
      !same_bytes(given.bias, before.bias)) {
    comparison.add_fault("changed an input");
  }
  return comparison;
}

// Decoding reads every weight of a model once a token: products of few rows walk a ring of weight
// matrices that no cache holds.
constexpr int64_t kRingBytes = int64_t{512} << 20;
constexpr int64_t kDecodeRows = 8;

template <class TA, class TB, class TC>
class PreparedGemm : public Prepared {
 public:
  PreparedGemm(const GemmLine<TA, TB, TC>* line, const Case& item, const RunOptions& options)
      : line_(line),
        shape_(item.shape),
        tensors_(item, options.seed),
        scratch_(
            line == nullptr ? 0 : line->scratch_bytes(cpu_caps(), item.shape, Direction::forward)) {
    const int64_t weight_bytes = tensors_.b.count() * static_cast<int64_t>(sizeof(TB));
    const bool decode = line != nullptr && shape_.m <= kDecodeRows && weight_bytes > 0;
    const int64_t copies = decode ? kRingBytes / weight_bytes : 0;
    ring_.reserve(static_cast<size_t>(copies));
    for (int64_t i = 0; i < copies; ++i) ring_.push_back(tensors_.b);
    exec_.threads = options.threads;
    exec_.scratch = scratch_.data();
  }
  void run() override {
    GemmArgs<TA, TB, TC> args = tensors_.args();
    if (line_ == nullptr) return ref::gemm(shape_, args);
    if (!ring_.empty()) args.b = ring_[next_++ % ring_.size()].data();
    line_->run.forward(shape_, args, exec_);
  }

 private:
  const GemmLine<TA, TB, TC>* line_;
  GemmShape shape_;
  Tensors<TA, TB, TC> tensors_;
  std::vector<Guarded<TB>> ring_;
  size_t next_ = 0;
  Buffer scratch_;
  Exec exec_;
};

template <class TA, class TB, class TC>
void add_variants(const std::vector<Case>& cases, std::vector<Variant>& variants) {
  Context context;
  for (const auto& line : gemm_lines<TA, TB, TC>()) {
    for (const Case& item : cases) {
      Variant variant;
      variant.family = "gemm";
      variant.line = line.info;
      variant.shape = item.shape.describe();
      if (dtype_of<TA> != dtype_of<TB> || dtype_of<TA> != dtype_of<TC>) {
        variant.shape +=
            fmt::format(" b:{} c:{}", dtype_name(dtype_of<TB>), dtype_name(dtype_of<TC>));
      }
      if (item.pad > 0) variant.shape += fmt::format(" pad{}", item.pad);
      variant.cost = item.shape.cost(dtype_of<TA>, dtype_of<TB>, dtype_of<TC>);
      variant.accepted = line.accepts(context.caps, item.shape);
      const auto* chosen = &line;
      variant.check = [chosen, item](const RunOptions& options) {
        return check(*chosen, item, options);
      };
      variant.prepare = [chosen, item](const RunOptions& options) {
        return std::make_unique<PreparedGemm<TA, TB, TC>>(chosen, item, options);
      };
      variant.prepare_reference = [item](const RunOptions& options) {
        return std::make_unique<PreparedGemm<TA, TB, TC>>(nullptr, item, options);
      };
      variants.push_back(std::move(variant));
    }
  }
}

GemmShape product(int64_t m, int64_t n, int64_t k, bool transpose_a, bool transpose_b) {
  GemmShape shape;
  shape.m = m;
  shape.n = n;
  shape.k = k;
  shape.transpose_a = transpose_a;
  shape.transpose_b = transpose_b;
  return shape;
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
