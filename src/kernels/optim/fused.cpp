#include "kernels/optim/fused.h"

#include <algorithm>
#include <cmath>

#include "core/threads.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/optim/fused.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {
namespace {

constexpr int64_t kItem = 32768;  // elements: some 40 us of one core

// The scalars of a step, worked out once in double and rounded once.
template <class Acc>
struct Factors {
  Acc clip;  // of g
  Acc keep;  // 1 - lr wd
  Acc beta1, rest1, beta2, rest2;
  Acc rate;     // lr / (1 - beta1^t)
  Acc unbias2;  // 1 / sqrt(1 - beta2^t)
  Acc eps;

  Factors(const AdamWConstants& constants, const StepState& state) {
    const auto t = static_cast<double>(state.updates);
    clip = static_cast<Acc>(state.clip);
    keep = static_cast<Acc>(1 - state.learning_rate * constants.weight_decay);
    beta1 = static_cast<Acc>(constants.beta1);
    rest1 = static_cast<Acc>(1 - constants.beta1);
    beta2 = static_cast<Acc>(constants.beta2);
    rest2 = static_cast<Acc>(1 - constants.beta2);
    rate = static_cast<Acc>(state.learning_rate / (1 - std::pow(constants.beta1, t)));
    unbias2 = static_cast<Acc>(1 / std::sqrt(1 - std::pow(constants.beta2, t)));
    eps = static_cast<Acc>(constants.eps);
  }
};

// math.md 8.2 on one word of each array.
template <class D, class Acc>
HWY_INLINE void update(D d, const Factors<Acc>& f, V<D> g, V<D>& p, V<D>& m, V<D>& v) {
  g = hn::Mul(g, hn::Set(d, f.clip));
  m = hn::MulAdd(m, hn::Set(d, f.beta1), hn::Mul(g, hn::Set(d, f.rest1)));
  v = hn::MulAdd(v, hn::Set(d, f.beta2), hn::Mul(hn::Mul(g, g), hn::Set(d, f.rest2)));
  const auto spread = hn::MulAdd(hn::Sqrt(v), hn::Set(d, f.unbias2), hn::Set(d, f.eps));
  const auto step = hn::Div(hn::Mul(m, hn::Set(d, f.rate)), spread);
  p = hn::MulSub(p, hn::Set(d, f.keep), step);
}

template <class Acc>
void update_range(const Factors<Acc>& f, const AdamWArgs<Acc>& args, int64_t begin, int64_t end) {
  const Words<Acc> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = begin; i < end; i += lanes) {
    const auto left = static_cast<size_t>(std::min(lanes, end - i));
    auto p = load_n(d, args.p + i, left), m = load_n(d, args.m + i, left);
    auto v = load_n(d, args.v + i, left);
    update(d, f, load_n(d, args.g + i, left), p, m, v);
    store_n(p, d, args.p + i, left);
    store_n(m, d, args.m + i, left);
    store_n(v, d, args.v + i, left);
    if (args.rounded != nullptr) store_converted_n(p, d, args.rounded + i, left);
  }
}

template <class Acc>
void adamw(const OptimShape& shape, const AdamWArgs<Acc>& args, Exec exec) {
  if (args.state->skip != 0) return;
  const Factors<Acc> factors(args.constants, *args.state);
  parallel_for(exec.threads, (shape.count + kItem - 1) / kItem, [&](int64_t item) {
    update_range(factors, args, item * kItem, std::min(shape.count, (item + 1) * kItem));
  });
}

// Lanes(d) elements as doubles.
template <class D>
HWY_INLINE V<D> load_double(D d, const double* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE V<D> load_double(D d, const float* from) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<float, D>(), from));
}

// Squares in double: neither overflow nor underflow of a float gradient can hide.
template <class Acc>
double squares(const Acc* g, int64_t count) {
  const Words<double> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  V<Words<double>> sum[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  int64_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    for (int j = 0; j < 4; ++j) {
      const auto word = load_double(d, g + i + j * lanes);
      sum[j] = hn::MulAdd(word, word, sum[j]);
    }
  }
  double total =
      hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3]))));
  for (; i < count; ++i) total += static_cast<double>(g[i]) * static_cast<double>(g[i]);
  return total;
}

template <class Acc>
void squares_of_blocks(const OptimShape& shape, const SquaresArgs<Acc>& args, Exec exec) {
  const int64_t blocks = squares_blocks(shape.count);
  double* partial = exec.carve<double>(blocks);
  parallel_for(exec.threads, blocks, [&](int64_t block) {
    const int64_t begin = block * kSquaresBlock;
    partial[block] = squares(args.g + begin, std::min(kSquaresBlock, shape.count - begin));
  });
  double sum = 0;
  for (int64_t block = 0; block < blocks; ++block) sum += partial[block];
  *args.sum = args.accumulate ? *args.sum + sum : sum;
}

}  // namespace

ADDER_SIMD_FUNCTION(adamw_f64, adamw, OptimShape, AdamWArgs<double>)
ADDER_SIMD_FUNCTION(adamw_f32, adamw, OptimShape, AdamWArgs<float>)
ADDER_SIMD_FUNCTION(squares_f64, squares_of_blocks, OptimShape, SquaresArgs<double>)
ADDER_SIMD_FUNCTION(squares_f32, squares_of_blocks, OptimShape, SquaresArgs<float>)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

ADDER_SIMD_LINE(adamw_f64, fused_adamw, OptimShape, AdamWArgs<double>)
ADDER_SIMD_LINE(adamw_f32, fused_adamw, OptimShape, AdamWArgs<float>)
ADDER_SIMD_LINE(squares_f64, block_squares, OptimShape, SquaresArgs<double>)
ADDER_SIMD_LINE(squares_f32, block_squares, OptimShape, SquaresArgs<float>)

void decide(const OptimShape&, const DecisionArgs& args, Exec) {
  constexpr double kNormFloor = 1e-6;  // of PyTorch's clip_grad_norm_
  StepState& state = *args.state;
  state.grad_norm = std::sqrt(state.squares);
  state.skip = std::isfinite(state.grad_norm) && std::isfinite(state.loss_sum) ? 0 : 1;
  if (state.skip != 0) {
    ++state.skipped;
    return;
  }
  state.clip =
      args.clip_norm > 0 ? std::min(1.0, args.clip_norm / (state.grad_norm + kNormFloor)) : 1.0;
  ++state.updates;
}

}  // namespace adder
#endif
