// The duality of Mamba-2 (arXiv 2405.21060; docs/duality.md): the recurrence, the masked matrix and
// the block decomposition are one operator, and the S6 scan with A shared by a head is that
// operator too. Everything in double.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "core/rng.h"
#include "core/workspace.h"
#include "kernels/ref/s6_ref.h"
#include "kernels/ref/ssd_ref.h"
#include "kernels/ssd/ssd.h"

namespace adder {
namespace {

std::vector<double> random_values(int64_t count, const char* name, double low, double high) {
  std::vector<double> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = low + (high - low) * uniform01(1, stream_of(name), i);
  }
  return values;
}

/// A call of SSD with every gradient. With `gated` off, y is the matrix times x.
struct Ssd {
  explicit Ssd(const SsdShape& given) : shape(given) {
    const int64_t tokens = shape.batch * shape.len, shared = shape.groups * shape.state;
    const int64_t states = shape.state_rows() * shape.state_elements();
    x = random_values(tokens * shape.inner(), "x", -1, 1);
    z = random_values(tokens * shape.inner(), "z", -1, 1);
    gy = random_values(tokens * shape.inner(), "gy", -1, 1);
    dt = random_values(tokens * shape.heads, "dt", -3, 1);
    B = random_values(tokens * shared, "B", -1, 1);
    C = random_values(tokens * shared, "C", -1, 1);
    A = random_values(shape.heads, "A", -2, -0.1);
    D = random_values(shape.d_elements(), "D", -1, 1);
    bias = random_values(shape.heads, "bias", -1, 0.5);
    h0 = random_values(states, "h0", -1, 1);
    ghT = random_values(states, "ghT", -1, 1);
    y = dx = dz = x;
    ddt = dt;
    dB = dC = B;
    dA = dbias = A;
    dD = D;
    hT = dh0 = h0;
    saved.resize(static_cast<size_t>(shape.saved_elements()));
  }
  template <class U>
  TokenView<U> view(U* data, int64_t channels) const {
    return dense_view(data, shape.len, channels);
  }
  SsdForward<double> forward() {
    SsdForward<double> args;
    args.in.x = view<const double>(x.data(), shape.inner());
    if (shape.gated) args.in.z = view<const double>(z.data(), shape.inner());
    args.in.dt = view<const double>(dt.data(), shape.heads);
    args.in.B = view<const double>(B.data(), shape.groups * shape.state);
    args.in.C = view<const double>(C.data(), shape.groups * shape.state);
    args.in.A = A.data();
    args.in.D = D.data();
    args.in.dt_bias = bias.data();
    args.in.h0 = h0.data();
    args.y = view(y.data(), shape.inner());
    args.hT = hT.data();
    args.saved = saved.data();
    return args;
  }
  SsdBackward<double> backward() {
    SsdBackward<double> args;
    args.in = forward().in;
    args.saved = saved.data();
    args.gy = view<const double>(gy.data(), shape.inner());
    args.ghT = ghT.data();
    args.dx = view(dx.data(), shape.inner());
    if (shape.gated) args.dz = view(dz.data(), shape.inner());
    args.ddt = view(ddt.data(), shape.heads);
    args.dB = view(dB.data(), shape.groups * shape.state);
    args.dC = view(dC.data(), shape.groups * shape.state);
    args.dA = dA.data();
    args.dD = dD.data();
    args.ddt_bias = dbias.data();
    args.dh0 = dh0.data();
    return args;
  }
  void run(const std::string& line) {
    Workspace(1).run([&](Context& context) {
      ssd_forward(context, shape, forward(), {.name = line});
      ssd_backward(context, shape, backward(), {.name = line});
    });
  }
  void run_reference() {
    ref::ssd_forward(shape, forward());
    ref::ssd_backward(shape, backward());
  }
  struct Output {
    const char* name;
    const std::vector<double>* values;
  };
  std::vector<Output> outputs() const {
    std::vector<Output> all = {{"y", &y},     {"hT", &hT},         {"dx", &dx}, {"ddt", &ddt},
                               {"dB", &dB},   {"dC", &dC},         {"dA", &dA}, {"dD", &dD},
                               {"dh0", &dh0}, {"ddt_bias", &dbias}};
    if (shape.gated) all.push_back({"dz", &dz});
    return all;
  }

  SsdShape shape;
  std::vector<double> x, z, gy, dt, B, C, A, D, bias, h0, ghT, y, hT, saved;
  std::vector<double> dx, dz, ddt, dB, dC, dA, dD, dbias, dh0;
};

/// Largest difference over the largest entry.
double difference(const std::vector<double>& got, const std::vector<double>& expected) {
  double worst = 0, largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = std::abs(got[i] - expected[i]);
    worst = error > worst || std::isnan(error) ? error : worst;
    largest = std::max(largest, std::abs(expected[i]));
  }
  return worst == 0 ? 0 : worst / largest;
}

SsdShape shape_of(int64_t len, int64_t heads, int64_t head_dim, int64_t state, int64_t groups) {
  SsdShape shape;
  shape.len = len;
  shape.heads = heads;
  shape.head_dim = head_dim;
  shape.state = state;
  shape.groups = groups;
  shape.chunk = 64;
  return shape;
}

void expect_forms_agree(SsdShape shape) {
  for (const bool gated : {false, true}) {
    shape.gated = gated;
    Ssd expected(shape);
    expected.run_reference();
    for (const char* line : {"recurrent", "quadratic", "chunked"}) {
      Ssd form(shape);
      form.run(line);
      for (size_t i = 0; i < form.outputs().size(); ++i) {
        EXPECT_LE(difference(*form.outputs()[i].values, *expected.outputs()[i].values), 1e-10)
            << line << " " << form.outputs()[i].name << " " << shape.describe();
      }
    }
  }
}

TEST(Duality, ThreeFormsAgreeForwardAndInEveryGradient) {
  expect_forms_agree(shape_of(200, 4, 16, 24, 2));
  expect_forms_agree(shape_of(1, 2, 5, 3, 1));
  expect_forms_agree(shape_of(65, 3, 7, 33, 3));
  expect_forms_agree(shape_of(700, 2, 32, 16, 1));
}

double softplus(double x) { return std::log1p(std::exp(x)); }

// M = (L o C B^T) diag(delta), written out: L_ij = e^(delta_{j+1} A + ... + delta_i A) for i >= j.
TEST(Duality, TheMatrixWrittenOutTimesXIsY) {
  constexpr int64_t kLen = 6, kHeadDim = 3, kState = 2;
  Ssd call(shape_of(kLen, 1, kHeadDim, kState, 1));
  std::fill(call.h0.begin(), call.h0.end(), 0.0);
  call.D[0] = 0;
  std::array<double, kLen> delta{};
  for (size_t t = 0; t < kLen; ++t) delta[t] = softplus(call.dt[t] + call.bias[0]);
  std::array<std::array<double, kLen>, kLen> M{};
  for (size_t i = 0; i < kLen; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double L = 1, CB = 0;
      for (size_t m = j + 1; m <= i; ++m) L *= std::exp(delta[m] * call.A[0]);
      for (size_t n = 0; n < kState; ++n) CB += call.C[i * kState + n] * call.B[j * kState + n];
      M[i][j] = L * CB * delta[j];
    }
  }
  // Semiseparable of rank `state`: every minor of size state + 1 that lies on or below the diagonal
  // is 0, while those of size `state` are not.
  const auto entry = [&](size_t i, size_t j) { return M[i][j] / delta[j]; };
  const double minor2 = entry(3, 0) * entry(4, 1) - entry(3, 1) * entry(4, 0);
  EXPECT_GT(std::abs(minor2), 1e-6);
  double minor3 = 0;
  for (size_t k = 0; k < 3; ++k) {
    const size_t a = (k + 1) % 3, b = (k + 2) % 3;
    minor3 += entry(3, k) * (entry(4, a) * entry(5, b) - entry(4, b) * entry(5, a));
  }
  EXPECT_LE(std::abs(minor3), 1e-15);
  std::vector<double> expected(kLen * kHeadDim);
  for (size_t i = 0; i < kLen; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      for (size_t p = 0; p < kHeadDim; ++p) {
        expected[i * kHeadDim + p] += M[i][j] * call.x[j * kHeadDim + p];
      }
    }
  }
  for (const char* line : {"recurrent", "quadratic", "chunked"}) {
    call.run(line);
    EXPECT_LE(difference(call.y, expected), 1e-14) << line;
  }
}

// The S6 scan with one decay rate a head: A equal over states and channels, dt over channels.
struct S6Twin {
  explicit S6Twin(const Ssd& ssd) : like(ssd) {
    const SsdShape& s = ssd.shape;
    shape.batch = s.batch;
    shape.len = s.len;
    shape.dim = s.inner();
    shape.state = s.state;
    shape.groups = s.groups;
    shape.gated = s.gated;
    for (int64_t d = 0; d < shape.dim; ++d) {
      const auto head = static_cast<size_t>(d / s.head_dim);
      A.insert(A.end(), static_cast<size_t>(s.state), ssd.A[head]);
      D.push_back(ssd.D[head]);
      bias.push_back(ssd.bias[head]);
    }
    for (int64_t i = 0; i < s.batch * s.len * shape.dim; ++i) {
      const int64_t head = i % shape.dim / s.head_dim;
      dt.push_back(ssd.dt[static_cast<size_t>(i / shape.dim * s.heads + head)]);
    }
    y = du = dz = ssd.x;
    ddt = dt;
    dB = dC = ssd.B;
    dA = A;
    dD = dbias = D;
    hT = dh0 = ssd.h0;
  }
  void run() {
    const auto wide = [&](const std::vector<double>& values) {
      return dense_view<const double>(values.data(), shape.len, shape.dim);
    };
    const auto shared = [&](const std::vector<double>& values) {
      return dense_view<const double>(values.data(), shape.len, shape.groups * shape.state);
    };
    S6Forward<double> forward;
    forward.in.u = wide(like.x);
    forward.in.dt = wide(dt);
    if (shape.gated) forward.in.z = wide(like.z);
    forward.in.B = shared(like.B);
    forward.in.C = shared(like.C);
    forward.in.A = A.data();
    forward.in.D = D.data();
    forward.in.dt_bias = bias.data();
    forward.in.h0 = like.h0.data();
    forward.y = dense_view(y.data(), shape.len, shape.dim);
    forward.hT = hT.data();
    ref::s6_forward(shape, forward);
    S6Backward<double> backward;
    backward.in = forward.in;
    backward.gy = wide(like.gy);
    backward.ghT = like.ghT.data();
    backward.du = dense_view(du.data(), shape.len, shape.dim);
    backward.ddt = dense_view(ddt.data(), shape.len, shape.dim);
    if (shape.gated) backward.dz = dense_view(dz.data(), shape.len, shape.dim);
    backward.dB = dense_view(dB.data(), shape.len, shape.groups * shape.state);
    backward.dC = dense_view(dC.data(), shape.len, shape.groups * shape.state);
    backward.dA = dA.data();
    backward.dD = dD.data();
    backward.ddt_bias = dbias.data();
    backward.dh0 = dh0.data();
    ref::s6_backward(shape, backward);
  }
  /// Sums of runs of `run` values: of the channels (and states) of a head.
  static std::vector<double> sums(const std::vector<double>& values, int64_t run) {
    std::vector<double> out;
    for (size_t i = 0; i < values.size(); ++i) {
      if (i % static_cast<size_t>(run) == 0) out.push_back(0);
      out.back() += values[i];
    }
    return out;
  }

  const Ssd& like;
  S6Shape shape;
  std::vector<double> dt, A, D, bias, y, hT, du, dz, ddt, dB, dC, dA, dD, dbias, dh0;
};

TEST(Duality, S6WithASharedByAHeadIsSsd) {
  SsdShape shape = shape_of(90, 4, 6, 10, 2);
  shape.gated = true;
  for (const char* line : {"recurrent", "quadratic", "chunked"}) {
    Ssd ssd(shape);
    S6Twin scan(ssd);
    scan.run();
    ssd.run(line);
    EXPECT_LE(difference(ssd.y, scan.y), 1e-10) << line;
    EXPECT_LE(difference(ssd.hT, scan.hT), 1e-10) << line;
    EXPECT_LE(difference(ssd.dx, scan.du), 1e-10) << line;
    EXPECT_LE(difference(ssd.dz, scan.dz), 1e-10) << line;
    EXPECT_LE(difference(ssd.dB, scan.dB), 1e-10) << line;
    EXPECT_LE(difference(ssd.dC, scan.dC), 1e-10) << line;
    EXPECT_LE(difference(ssd.dh0, scan.dh0), 1e-10) << line;
    EXPECT_LE(difference(ssd.ddt, S6Twin::sums(scan.ddt, shape.head_dim)), 1e-10) << line;
    EXPECT_LE(difference(ssd.dbias, S6Twin::sums(scan.dbias, shape.head_dim)), 1e-10) << line;
    EXPECT_LE(difference(ssd.dD, S6Twin::sums(scan.dD, shape.head_dim)), 1e-10) << line;
    EXPECT_LE(difference(ssd.dA, S6Twin::sums(scan.dA, shape.head_dim * shape.state)), 1e-10)
        << line;
  }
}

// Cross-check of math.md 4.4: without h0 and with ghT = 0 the gradients of the log-decays are the
// suffix sums of gy (y - D x) - delta x v, where delta v = dx - D gy. It cancels, so it is held to
// less than the forms themselves.
TEST(Duality, TheCancellingIdentityGivesTheGradientOfDt) {
  const SsdShape shape = shape_of(60, 1, 4, 5, 1);
  Ssd call(shape);
  std::fill(call.h0.begin(), call.h0.end(), 0.0);
  std::fill(call.ghT.begin(), call.ghT.end(), 0.0);
  call.run("quadratic");
  double suffix = 0;
  std::vector<double> ddt(60);
  for (size_t t = 60; t-- > 0;) {
    const double pre = call.dt[t] + call.bias[0], delta = softplus(pre);
    double inputs = 0;
    for (size_t p = 0; p < 4; ++p) {
      const size_t at = t * 4 + p;
      inputs += call.x[at] * (call.dx[at] - call.D[0] * call.gy[at]);  // delta x v
      suffix += call.gy[at] * (call.y[at] - call.D[0] * call.x[at]);
    }
    suffix -= inputs;
    ddt[t] = (inputs / delta + call.A[0] * suffix) / (1 + std::exp(-pre));
  }
  EXPECT_LE(difference(call.ddt, ddt), 1e-9);
}

}  // namespace
}  // namespace adder
