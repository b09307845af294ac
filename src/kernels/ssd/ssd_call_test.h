// One call of SSD with every option, dense, for the tests of this room.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "kernels/ssd/ssd.h"
#include "measure/evaluation.h"

namespace adder::ssd {

using measure::Guarded;

template <class T>
struct Call {
  using Acc = accumulate_t<T>;
  SsdShape shape;
  std::vector<int32_t> cu;
  Guarded<T> x, dt, z, B, C, gy, y, dx, ddt, dz, dB, dC;
  Guarded<Acc> A, D, bias, h0, hT, ghT, saved, dA, dD, dbias, dh0;
  Acc dt_min = 0, dt_max = std::numeric_limits<Acc>::infinity();
  bool accumulate = false;

  explicit Call(const SsdShape& given, std::vector<int32_t> boundaries = {}, uint64_t seed = 1)
      : shape(given), cu(std::move(boundaries)) {
    shape.gated = true;
    const int64_t tokens = shape.batch * shape.len;
    const int64_t states = shape.state_rows() * shape.state_elements();
    for (auto* a : {&x, &z, &gy, &y, &dx, &dz}) *a = Guarded<T>(tokens * shape.inner());
    for (auto* a : {&dt, &ddt}) *a = Guarded<T>(tokens * shape.heads);
    for (auto* a : {&B, &C, &dB, &dC}) *a = Guarded<T>(tokens * shared_width());
    for (auto* a : {&A, &dA, &bias, &dbias}) *a = Guarded<Acc>(shape.heads);
    for (auto* a : {&D, &dD}) *a = Guarded<Acc>(shape.d_elements());
    for (auto* a : {&h0, &hT, &ghT, &dh0}) *a = Guarded<Acc>(states);
    saved = Guarded<Acc>(shape.saved_elements());
    for (auto* a : {&x, &z, &B, &C, &gy}) fill_normal(*a, seed++, "ssd.token");
    for (auto* a : {&h0, &ghT}) fill_normal(*a, seed++, "ssd.state");
    fill_uniform(dt, seed, "ssd.dt", -3, 1.5);
    fill_uniform(bias, seed, "ssd.bias", -1, 0.5);
    fill_uniform(D, seed, "ssd.D", -1, 1);
    fill_uniform(A, seed, "ssd.A", -3, 1);
    for (int64_t i = 0; i < A.count(); ++i) A[i] = -std::exp(A[i]);
  }
  int64_t shared_width() const { return shape.groups * shape.state; }
  template <class U>
  TokenView<U> view(U* data, int64_t channels) const {
    return dense_view(data, shape.len, channels);
  }
  SsdForward<T> forward() {
    SsdForward<T> args;
    args.in.x = view<const T>(x.data(), shape.inner());
    args.in.dt = view<const T>(dt.data(), shape.heads);
    args.in.B = view<const T>(B.data(), shared_width());
    args.in.C = view<const T>(C.data(), shared_width());
    args.in.z = view<const T>(z.data(), shape.inner());
    args.in.A = A.data();
    args.in.D = D.data();
    args.in.dt_bias = bias.data();
    args.in.dt_min = dt_min;
    args.in.dt_max = dt_max;
    args.in.h0 = h0.data();
    args.in.cu_seqlens = cu.empty() ? nullptr : cu.data();
    args.y = view(y.data(), shape.inner());
    args.hT = hT.data();
    args.saved = saved.data();
    return args;
  }
  SsdBackward<T> backward() {
    SsdBackward<T> args;
    args.in = forward().in;
    args.saved = saved.data();
    args.gy = view<const T>(gy.data(), shape.inner());
    args.ghT = ghT.data();
    args.dx = view(dx.data(), shape.inner());
    args.ddt = view(ddt.data(), shape.heads);
    args.dz = view(dz.data(), shape.inner());
    args.dB = view(dB.data(), shared_width());
    args.dC = view(dC.data(), shared_width());
    args.dA = dA.data();
    args.dD = dD.data();
    args.ddt_bias = dbias.data();
    args.accumulate = accumulate;
    args.dh0 = dh0.data();
    return args;
  }
  void run_forward(const Choice& choice, int threads = 1) {
    measure::run_planned(threads,
                         [&](Context& context) { ssd_forward(context, shape, forward(), choice); });
  }
  void run(const Choice& choice, int threads = 1) {
    measure::run_planned(threads, [&](Context& context) {
      ssd_forward(context, shape, forward(), choice);
      ssd_backward(context, shape, backward(), choice);
    });
  }
  /// visit(name, array, elements a token; 0: not by token) for each output.
  template <class Visit>
  void visit_outputs(const Visit& visit) const {
    visit("y", y, shape.inner());
    visit("dx", dx, shape.inner());
    visit("dz", dz, shape.inner());
    visit("ddt", ddt, shape.heads);
    visit("dB", dB, shared_width());
    visit("dC", dC, shared_width());
    visit("hT", hT, 0);
    visit("dA", dA, 0);
    visit("dD", dD, 0);
    visit("ddt_bias", dbias, 0);
    visit("dh0", dh0, 0);
  }
};

template <class T>
bool same_bits(const Guarded<T>& a, const Guarded<T>& b) {
  return a.count() == b.count() &&
         (a.count() == 0 ||
          std::memcmp(a.data(), b.data(), static_cast<size_t>(a.count()) * sizeof(T)) == 0);
}

template <class T>
struct Output {
  std::string name;
  std::vector<T> values;
  int64_t by_token;
};

/// Every output as values.
template <class T>
std::vector<Output<double>> outputs_of(const Call<T>& call) {
  std::vector<Output<double>> all;
  call.visit_outputs([&](const char* name, const auto& array, int64_t by_token) {
    all.push_back({name, array.widened(), by_token});
  });
  return all;
}

/// Elements of `part` against those of `whole` from `first` on, relative to its largest.
inline void expect_close(const std::vector<double>& part, const std::vector<double>& whole,
                         int64_t first, double limit, const std::string& what) {
  double largest = 0;
  for (const double w : whole) largest = std::max(largest, std::abs(w));
  ASSERT_LE(static_cast<size_t>(first) + part.size(), whole.size()) << what;
  for (size_t i = 0; i < part.size(); ++i) {
    ASSERT_NEAR(part[i], whole[static_cast<size_t>(first) + i], limit * largest)
        << what << " " << i;
  }
}

/// All outputs of two calls of one shape.
template <class T>
void expect_all_close(const Call<T>& got, const Call<T>& expected, double limit,
                      const std::string& what) {
  const auto a = outputs_of(got), b = outputs_of(expected);
  for (size_t i = 0; i < a.size(); ++i) {
    expect_close(a[i].values, b[i].values, 0, limit, what + " " + a[i].name);
  }
}
template <class T>
void expect_same_bits(const Call<T>& got, const Call<T>& expected, const std::string& what) {
  const auto a = outputs_of(got), b = outputs_of(expected);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].values, b[i].values) << what << " " << a[i].name;
  }
}

template <class T>
void copy_from(const Guarded<T>& from, int64_t first, Guarded<T>& to) {
  std::copy_n(from.data() + first, to.count(), to.data());
}

/// The tokens [first, first + part.len) of batch row 0, and the parameters.
template <class T>
void take_tokens(const Call<T>& whole, int64_t first, Call<T>& part) {
  copy_from(whole.x, first * whole.shape.inner(), part.x);
  copy_from(whole.z, first * whole.shape.inner(), part.z);
  copy_from(whole.gy, first * whole.shape.inner(), part.gy);
  copy_from(whole.dt, first * whole.shape.heads, part.dt);
  copy_from(whole.B, first * whole.shared_width(), part.B);
  copy_from(whole.C, first * whole.shared_width(), part.C);
  part.A = whole.A;
  part.D = whole.D;
  part.bias = whole.bias;
}

/// The lines of the table that accept the shape here.
template <class T>
std::vector<std::string> lines_for(const SsdShape& shape) {
  std::vector<std::string> names;
  for (const auto& line : ssd_lines<T>()) {
    if (line.accepts(cpu_caps(), shape)) names.emplace_back(line.info.name);
  }
  return names;
}

}  // namespace adder::ssd
