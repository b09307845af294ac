// AdamW in one pass over p, g, m, v (math.md 8.2). Factors that hold for the whole step are computed
// once in double.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/optim/optim_simd.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "core/simd-inl.h"
#include "core/threads.h"
#include "kernels/optim/optim_lines.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

template <class Acc>
struct StepFactors {
  Acc clip;                        // of g
  Acc keep;                        // 1 - lr wd
  Acc beta1, beta2, rest1, rest2;  // rest = 1 - beta
  Acc scale;                       // lr / (1 - beta1^t)
  Acc root;                        // 1 / sqrt(1 - beta2^t)
  Acc eps;

  explicit StepFactors(const AdamWArgs<Acc>& args) {
    const AdamWConstants& c = args.constants;
    const StepValues& s = *args.values;
    const auto t = static_cast<double>(s.step);
    clip = static_cast<Acc>(s.clip_coefficient);
    keep = static_cast<Acc>(1.0 - s.learning_rate * c.weight_decay);
    beta1 = static_cast<Acc>(c.beta1);
    beta2 = static_cast<Acc>(c.beta2);
    rest1 = static_cast<Acc>(1.0 - c.beta1);
    rest2 = static_cast<Acc>(1.0 - c.beta2);
    scale = static_cast<Acc>(s.learning_rate / (1.0 - std::pow(c.beta1, t)));
    root = static_cast<Acc>(1.0 / std::sqrt(1.0 - std::pow(c.beta2, t)));
    eps = static_cast<Acc>(c.eps);
  }
};

template <class Acc>
HWY_NOINLINE void update_block(const AdamWArgs<Acc>& args, const StepFactors<Acc>& f, int64_t first,
                               int64_t last) {
  const Words<Acc> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto clip = hn::Set(d, f.clip), keep = hn::Set(d, f.keep);
  const auto beta1 = hn::Set(d, f.beta1), rest1 = hn::Set(d, f.rest1);
  const auto beta2 = hn::Set(d, f.beta2), rest2 = hn::Set(d, f.rest2);
  const auto scale = hn::Set(d, f.scale), root = hn::Set(d, f.root), eps = hn::Set(d, f.eps);
  for (int64_t i = first; i < last; i += lanes) {
    const auto n = static_cast<size_t>(std::min(lanes, last - i));
    const auto g = hn::Mul(load_n(d, args.g + i, n), clip);
    const auto m = hn::MulAdd(load_n(d, args.m + i, n), beta1, hn::Mul(g, rest1));
    const auto v = hn::MulAdd(load_n(d, args.v + i, n), beta2, hn::Mul(hn::Mul(g, g), rest2));
    const auto denominator = hn::MulAdd(hn::Sqrt(v), root, eps);
    const auto p = hn::Mul(load_n(d, args.p + i, n), keep);
    store_n(m, d, args.m + i, n);
    store_n(v, d, args.v + i, n);
    store_n(hn::NegMulAdd(scale, hn::Div(m, denominator), p), d, args.p + i, n);
  }
}

template <class Acc>
void adamw_all(const OptimShape& shape, const AdamWArgs<Acc>& args, Exec exec) {
  if (args.values->skip != 0) return;
  const StepFactors<Acc> factors(args);
  const int64_t blocks = (shape.count + kOptimBlock - 1) / kOptimBlock;
  parallel_for(exec.threads, blocks, [&](int64_t block) {
    const int64_t first = block * kOptimBlock;
    update_block(args, factors, first, std::min(first + kOptimBlock, shape.count));
  });
}

void adamw_f32(const OptimShape& s, const AdamWArgs<float>& a, Exec e) { adamw_all(s, a, e); }
void adamw_f64(const OptimShape& s, const AdamWArgs<double>& a, Exec e) { adamw_all(s, a, e); }

// Lane l adds elements l, l + kLanes, ...; kLanes is the same on every target, so are the bits.
template <class Acc>
HWY_NOINLINE double squares(const Acc* g, int64_t count) {
  constexpr int64_t kLanes = 16;
  double sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) {
      const auto x = static_cast<double>(g[i + l]);
      sums[l] += x * x;
    }
  }
  for (; i < count; ++i) sums[i % kLanes] += static_cast<double>(g[i]) * static_cast<double>(g[i]);
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

double squares_f32(const float* g, int64_t count) { return squares(g, count); }
double squares_f64(const double* g, int64_t count) { return squares(g, count); }

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

HWY_EXPORT(adamw_f32);
HWY_EXPORT(adamw_f64);
HWY_EXPORT(squares_f32);
HWY_EXPORT(squares_f64);

void adamw_fused(const OptimShape& shape, const AdamWArgs<float>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(adamw_f32)(shape, args, exec);
}
void adamw_fused(const OptimShape& shape, const AdamWArgs<double>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(adamw_f64)(shape, args, exec);
}
double block_sum_of_squares(const float* g, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(squares_f32)(g, count);
}
double block_sum_of_squares(const double* g, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(squares_f64)(g, count);
}

}  // namespace adder
#endif
