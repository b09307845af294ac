#include "measure/ceiling_loops.h"

#include <hwy/cache_control.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "measure/ceiling_loops.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/s6/s6_words-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

// Four words a step, `stride` floats apart.
inline double read_words(const float* data, int64_t count, int64_t step, int64_t stride) {
  const Words<float> d;
  auto a0 = hn::Zero(d), a1 = a0, a2 = a0, a3 = a0;
  for (int64_t i = 0; i < count; i += step) {
    a0 = hn::Add(a0, hn::LoadU(d, data + i));
    a1 = hn::Add(a1, hn::LoadU(d, data + i + stride));
    a2 = hn::Add(a2, hn::LoadU(d, data + i + 2 * stride));
    a3 = hn::Add(a3, hn::LoadU(d, data + i + 3 * stride));
  }
  return static_cast<double>(hn::GetLane(hn::Add(hn::Add(a0, a1), hn::Add(a2, a3))));
}
double read_stream_loop(const std::byte* from, int64_t bytes) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(Words<float>()));
  const int64_t count = bytes / static_cast<int64_t>(sizeof(float));
  return read_words(reinterpret_cast<const float*>(from), count, 4 * lanes, lanes);
}
double read_four_streams_loop(const std::byte* from, int64_t bytes) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(Words<float>()));
  const int64_t quarter = bytes / static_cast<int64_t>(4 * sizeof(float));
  return read_words(reinterpret_cast<const float*>(from), quarter, lanes, quarter);
}

void copy_stream_loop(const std::byte* from, std::byte* to, int64_t bytes) {
  const Words<float> d;
  const auto* in = reinterpret_cast<const float*>(from);
  auto* out = reinterpret_cast<float*>(to);
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t count = bytes / static_cast<int64_t>(sizeof(float));
  for (int64_t i = 0; i < count; i += lanes) hn::Stream(hn::LoadU(d, in + i), d, out + i);
  hwy::FlushStream();
}

// 12 chains: a multiply-add of 4 cycles on two units needs 8, and AVX2 has 16 registers.
template <class C>
double multiply_adds(int64_t rounds, double* sink) {
  const Words<C> d;
  constexpr int kChains = 12;
  const auto scale = hn::Set(d, static_cast<C>(0.999));
  const auto offset = hn::Set(d, static_cast<C>(0.001));
  // Chains that start equal would be one chain to the compiler.
  const auto start = [&](int chain) HWY_ATTR { return hn::Set(d, static_cast<C>(chain)); };
  auto x0 = start(0), x1 = start(1), x2 = start(2), x3 = start(3), x4 = start(4), x5 = start(5);
  auto x6 = start(6), x7 = start(7), x8 = start(8), x9 = start(9), x10 = start(10), x11 = start(11);
  for (int64_t i = 0; i < rounds; ++i) {
    x0 = hn::MulAdd(x0, scale, offset);
    x1 = hn::MulAdd(x1, scale, offset);
    x2 = hn::MulAdd(x2, scale, offset);
    x3 = hn::MulAdd(x3, scale, offset);
    x4 = hn::MulAdd(x4, scale, offset);
    x5 = hn::MulAdd(x5, scale, offset);
    x6 = hn::MulAdd(x6, scale, offset);
    x7 = hn::MulAdd(x7, scale, offset);
    x8 = hn::MulAdd(x8, scale, offset);
    x9 = hn::MulAdd(x9, scale, offset);
    x10 = hn::MulAdd(x10, scale, offset);
    x11 = hn::MulAdd(x11, scale, offset);
  }
  auto sum = hn::Add(hn::Add(hn::Add(x0, x1), hn::Add(x2, x3)), hn::Add(x4, x5));
  sum = hn::Add(sum, hn::Add(hn::Add(hn::Add(x6, x7), hn::Add(x8, x9)), hn::Add(x10, x11)));
  *sink += static_cast<double>(hn::GetLane(sum));
  return 2.0 * kChains * static_cast<double>(rounds) * static_cast<double>(hn::Lanes(d));
}
double multiply_adds_loop_f32(int64_t rounds, double* sink) {
  return multiply_adds<float>(rounds, sink);
}
double multiply_adds_loop_f64(int64_t rounds, double* sink) {
  return multiply_adds<double>(rounds, sink);
}

// The cheapest exponential that the engine has: the decay of the selective scan.
template <class C>
double exponentials(int64_t rounds, double* sink) {
  const Words<C> d;
  constexpr int64_t kCount = 1024;  // in and out: 8 to 16 KiB
  const auto one = hn::Set(d, static_cast<C>(1));
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  HWY_ALIGN C in[kCount];
  HWY_ALIGN C out[kCount];
  for (int64_t i = 0; i < kCount; ++i)
    in[i] = static_cast<C>(-10.0 * static_cast<double>(i) / kCount);
  for (int64_t round = 0; round < rounds; ++round) {
    for (int64_t i = 0; i < kCount; i += 4 * lanes) {
      for (int64_t j = 0; j < 4; ++j) {
        hn::Store(decay_word(d, one, hn::Load(d, in + i + j * lanes)), d, out + i + j * lanes);
      }
    }
    in[round % kCount] = -out[round % kCount];
  }
  *sink += static_cast<double>(out[rounds % kCount]);
  return static_cast<double>(rounds * kCount);
}
double exponentials_loop_f32(int64_t rounds, double* sink) {
  return exponentials<float>(rounds, sink);
}
double exponentials_loop_f64(int64_t rounds, double* sink) {
  return exponentials<double>(rounds, sink);
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

HWY_EXPORT(read_stream_loop);
HWY_EXPORT(read_four_streams_loop);
HWY_EXPORT(copy_stream_loop);
HWY_EXPORT(multiply_adds_loop_f32);
HWY_EXPORT(multiply_adds_loop_f64);
HWY_EXPORT(exponentials_loop_f32);
HWY_EXPORT(exponentials_loop_f64);

namespace measure {

double read_stream(const std::byte* from, int64_t bytes) {
  return HWY_DYNAMIC_DISPATCH(read_stream_loop)(from, bytes);
}
double read_four_streams(const std::byte* from, int64_t bytes) {
  return HWY_DYNAMIC_DISPATCH(read_four_streams_loop)(from, bytes);
}
void copy_stream(const std::byte* from, std::byte* to, int64_t bytes) {
  HWY_DYNAMIC_DISPATCH(copy_stream_loop)(from, to, bytes);
}
double multiply_adds_f32(int64_t rounds, double* sink) {
  return HWY_DYNAMIC_DISPATCH(multiply_adds_loop_f32)(rounds, sink);
}
double multiply_adds_f64(int64_t rounds, double* sink) {
  return HWY_DYNAMIC_DISPATCH(multiply_adds_loop_f64)(rounds, sink);
}
double exponentials_f32(int64_t rounds, double* sink) {
  return HWY_DYNAMIC_DISPATCH(exponentials_loop_f32)(rounds, sink);
}
double exponentials_f64(int64_t rounds, double* sink) {
  return HWY_DYNAMIC_DISPATCH(exponentials_loop_f64)(rounds, sink);
}

}  // namespace measure
}  // namespace adder
#endif
