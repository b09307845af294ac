// One call of s6 with every option on, dense: what the tests of this folder share.
#pragma once

#include <cmath>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/s6/s6.h"
#include "measure/evaluation.h"
#include "measure/gradcheck.h"

namespace adder {

using measure::fill_normal;
using measure::fill_uniform;
using measure::Guarded;

template <class T>
struct Call {
  using Acc = accumulate_t<T>;
  S6Shape shape;
  std::vector<int32_t> cu;
  Guarded<T> u, dt, z, B, C, gy, y, du, ddt, dz, dB, dC;
  Guarded<Acc> A, D, bias, h0, hT, ghT, saved, dA, dD, dbias, dh0;
  Acc dt_min = 0, dt_max = std::numeric_limits<Acc>::infinity();
  bool accumulate = false;

  explicit Call(const S6Shape& given, std::vector<int32_t> boundaries = {}, uint64_t seed = 1)
      : shape(given), cu(std::move(boundaries)) {
    const int64_t tokens = shape.batch * shape.len;
    const int64_t states = shape.state_rows() * shape.dim * shape.state_numbers();
    for (auto* a : {&u, &dt, &z, &gy, &y, &du, &ddt, &dz}) *a = Guarded<T>(tokens * shape.dim);
    for (auto* a : {&B, &C, &dB, &dC})
      *a = Guarded<T>(tokens * shape.groups * shape.state_numbers());
    for (auto* a : {&A, &dA}) *a = Guarded<Acc>(shape.dim * shape.state_numbers());
    for (auto* a : {&D, &bias, &dD, &dbias}) *a = Guarded<Acc>(shape.dim);
    for (auto* a : {&h0, &hT, &ghT, &dh0}) *a = Guarded<Acc>(states);
    saved = Guarded<Acc>(shape.saved_elements());
    fill_normal(u, seed, "u");
    fill_normal(z, seed, "z");
    fill_normal(B, seed, "B");
    fill_normal(C, seed, "C");
    fill_normal(gy, seed, "gy");
    fill_normal(h0, seed, "h0");
    fill_normal(ghT, seed, "ghT");
    fill_uniform(dt, seed, "dt", -3, 1.5);
    fill_uniform(bias, seed, "bias", -1, 0.5);
    fill_uniform(D, seed, "D", -1, 1);
    fill_uniform(A, seed, "A", -3, 2);
    for (int64_t i = 0; i < A.count(); ++i) A[i] = -std::exp(A[i]);
    for (int64_t i = 1; shape.complex && i < A.count(); i += 4) A[i] = -A[i];
  }
  template <class U>
  TokenView<U> channels(U* data) const {
    return dense_view(data, shape.len, shape.dim);
  }
  template <class U>
  TokenView<U> shared(U* data) const {
    return dense_view(data, shape.len, shape.groups * shape.state_numbers());
  }
  S6Forward<T> forward() {
    S6Forward<T> args;
    args.in.u = channels<const T>(u.data());
    args.in.dt = channels<const T>(dt.data());
    args.in.B = shared<const T>(B.data());
    args.in.C = shared<const T>(C.data());
    args.in.z = channels<const T>(z.data());
    args.in.A = A.data();
    args.in.D = D.data();
    args.in.dt_bias = bias.data();
    args.in.dt_min = dt_min;
    args.in.dt_max = dt_max;
    args.in.h0 = h0.data();
    args.in.cu_seqlens = cu.empty() ? nullptr : cu.data();
    args.y = channels(y.data());
    args.hT = hT.data();
    args.saved = saved.data();
    return args;
  }
  S6Backward<T> backward() {
    S6Backward<T> args;
    args.in = forward().in;
    args.saved = saved.data();
    args.gy = channels<const T>(gy.data());
    args.ghT = ghT.data();
    args.du = channels(du.data());
    args.ddt = channels(ddt.data());
    args.dz = channels(dz.data());
    args.dB = shared(dB.data());
    args.dC = shared(dC.data());
    args.dA = dA.data();
    args.dD = dD.data();
    args.ddt_bias = dbias.data();
    args.accumulate = accumulate;
    args.dh0 = dh0.data();
    return args;
  }
  void run(int threads = 1, const Choice& choice = {}) {
    measure::run_planned(threads, [&](Context& context) {
      s6_forward(context, shape, forward(), choice);
      s6_backward(context, shape, backward(), choice);
    });
  }
};

template <class T>
bool same_bits(const Guarded<T>& a, const Guarded<T>& b) {
  return a.count() == b.count() &&
         std::memcmp(a.data(), b.data(), static_cast<size_t>(a.count()) * sizeof(T)) == 0;
}

template <class T>
void expect_same_bits(const Call<T>& a, const Call<T>& b) {
  EXPECT_TRUE(same_bits(a.y, b.y));
  EXPECT_TRUE(same_bits(a.hT, b.hT));
  EXPECT_TRUE(same_bits(a.saved, b.saved));
  EXPECT_TRUE(same_bits(a.du, b.du));
  EXPECT_TRUE(same_bits(a.ddt, b.ddt));
  EXPECT_TRUE(same_bits(a.dz, b.dz));
  EXPECT_TRUE(same_bits(a.dB, b.dB));
  EXPECT_TRUE(same_bits(a.dC, b.dC));
  EXPECT_TRUE(same_bits(a.dA, b.dA));
  EXPECT_TRUE(same_bits(a.dD, b.dD));
  EXPECT_TRUE(same_bits(a.dbias, b.dbias));
  EXPECT_TRUE(same_bits(a.dh0, b.dh0));
}

inline double loss_of(Call<double>& call, const Choice& choice) {
  measure::run_planned(
      1, [&](Context& context) { s6_forward(context, call.shape, call.forward(), choice); });
  double loss = 0;
  for (int64_t i = 0; i < call.y.count(); ++i) loss += call.y[i] * call.gy[i];
  for (int64_t i = 0; i < call.hT.count(); ++i) loss += call.hT[i] * call.ghT[i];
  return loss;
}

/// Every gradient of the call against central differences of <y, gy> + <hT, ghT>.
inline void check_call(Call<double> call, const Choice& choice) {
  const auto span = [](Guarded<double>& array) {
    return std::span<double>(array.data(), static_cast<size_t>(array.count()));
  };
  call.run(1, choice);
  const std::vector<measure::GradInput> inputs = {
      {"u", span(call.u), span(call.du)},   {"dt", span(call.dt), span(call.ddt)},
      {"z", span(call.z), span(call.dz)},   {"B", span(call.B), span(call.dB)},
      {"C", span(call.C), span(call.dC)},   {"A", span(call.A), span(call.dA)},
      {"D", span(call.D), span(call.dD)},   {"dt_bias", span(call.bias), span(call.dbias)},
      {"h0", span(call.h0), span(call.dh0)}};
  const auto report = measure::check_gradients([&] { return loss_of(call, choice); }, inputs);
  EXPECT_TRUE(report.passed()) << choice.name << " " << call.shape.describe() << ": "
                               << report.worst << " " << report.worst_at;
}

}  // namespace adder
