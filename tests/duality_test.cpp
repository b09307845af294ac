// The duality of Mamba-2 (arXiv 2405.21060; docs/duality.md): the recurrence, the masked matrix and
// the block decomposition are one operator, and the S6 scan with A shared by a head is that
// operator too. Everything in double.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "measure/s6_call.h"
#include "measure/ssd_call.h"

namespace adder {
namespace {

using measure::Array;
using measure::Guarded;
using Scan = measure::S6Call<double>;
using Ssd = measure::SsdCall<double>;

constexpr const char* kForms[] = {"recurrent", "quadratic", "chunked"};

/// Dense, with every gradient. With `gated` off, y is the matrix times x.
Ssd call_of(const SsdShape& shape) {
  auto given = measure::SsdCase::dense(shape);
  given.shape = shape;
  return {given, 1};
}

void run_reference(measure::Call& call) {
  for (const auto direction : {Direction::forward, Direction::backward}) {
    call.reference(direction, false, nullptr);
  }
}

/// Largest difference over the largest entry.
double difference(const Array& got, const Array& expected) {
  double worst = 0, largest = 0;
  for (int64_t i = 0; i < expected.count(); ++i) {
    const double error = std::abs(got.value(i) - expected.value(i));
    worst = error > worst || std::isnan(error) ? error : worst;
    largest = std::max(largest, std::abs(expected.value(i)));
  }
  return worst == 0 ? 0 : worst / largest;
}

SsdShape shape_of(int64_t len, int64_t heads, int64_t head_dim, int64_t state, int64_t groups) {
  return {.len = len, .heads = heads, .head_dim = head_dim, .state = state, .groups = groups};
}

void expect_forms_agree(SsdShape shape) {
  for (const bool gated : {false, true}) {
    shape.gated = gated;
    Ssd expected = call_of(shape);
    run_reference(expected);
    for (const char* line : kForms) {
      Ssd form = call_of(shape);
      form.run_both(1, {.name = line});
      for (const measure::Listed& each : form.arrays()) {
        const bool written = each.written(Direction::forward) || each.written(Direction::backward);
        if (!written || each.array == &form.saved) continue;
        EXPECT_LE(difference(*each.array, expected.array(each.name)), 1e-10)
            << line << " " << each.name << " " << shape.describe();
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
  Ssd call = call_of(shape_of(kLen, 1, kHeadDim, kState, 1));
  call.h0.zero();
  call.D[0] = 0;
  std::array<double, kLen> delta{};
  for (size_t t = 0; t < kLen; ++t) {
    delta[t] = softplus(call.dt[static_cast<int64_t>(t)] + call.dt_bias[0]);
  }
  std::array<std::array<double, kLen>, kLen> M{};
  for (size_t i = 0; i < kLen; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double L = 1, CB = 0;
      for (size_t m = j + 1; m <= i; ++m) L *= std::exp(delta[m] * call.A[0]);
      for (int64_t n = 0; n < kState; ++n) {
        CB += call.C[static_cast<int64_t>(i) * kState + n] *
              call.B[static_cast<int64_t>(j) * kState + n];
      }
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
  Guarded<double> expected(kLen * kHeadDim);
  expected.zero();
  for (int64_t i = 0; i < kLen; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      for (int64_t p = 0; p < kHeadDim; ++p) {
        expected[i * kHeadDim + p] +=
            M[static_cast<size_t>(i)][static_cast<size_t>(j)] * call.x[j * kHeadDim + p];
      }
    }
  }
  for (const char* line : kForms) {
    call.run_both(1, {.name = line});
    EXPECT_LE(difference(call.y, expected), 1e-14) << line;
  }
}

// The S6 scan with one decay rate a head: A equal over states and channels, dt over channels.
Scan twin_of(const Ssd& ssd) {
  const SsdShape& s = ssd.given.shape;
  const S6Shape shape{
      .batch = s.batch, .len = s.len, .dim = s.inner(), .state = s.state, .groups = s.groups};
  Scan scan(measure::S6Case::dense(shape), 1);
  for (const auto& [to, from] : {std::pair<Array*, const Array*>{&scan.x, &ssd.x},
                                 {&scan.z, &ssd.z},
                                 {&scan.gy, &ssd.gy},
                                 {&scan.B, &ssd.B},
                                 {&scan.C, &ssd.C},
                                 {&scan.h0, &ssd.h0},
                                 {&scan.ghT, &ssd.ghT}}) {
    to->assign(*from);
  }
  for (int64_t d = 0; d < shape.dim; ++d) {
    const int64_t head = d / s.head_dim;
    for (int64_t n = 0; n < s.state; ++n) scan.A[d * s.state + n] = ssd.A[head];
    scan.D[d] = ssd.D[head];
    scan.dt_bias[d] = ssd.dt_bias[head];
  }
  for (int64_t i = 0; i < scan.dt.count(); ++i) {
    scan.dt[i] = ssd.dt[i / shape.dim * s.heads + i % shape.dim / s.head_dim];
  }
  return scan;
}

/// Sums of runs of `run` values: of the channels (and states) of a head.
Guarded<double> sums(const Guarded<double>& values, int64_t run) {
  Guarded<double> out(values.count() / run);
  out.zero();
  for (int64_t i = 0; i < values.count(); ++i) out[i / run] += values[i];
  return out;
}

TEST(Duality, S6WithASharedByAHeadIsSsd) {
  SsdShape shape = shape_of(90, 4, 6, 10, 2);
  shape.gated = true;
  for (const char* line : kForms) {
    Ssd ssd = call_of(shape);
    Scan scan = twin_of(ssd);
    run_reference(scan);
    ssd.run_both(1, {.name = line});
    EXPECT_LE(difference(ssd.y, scan.y), 1e-10) << line;
    EXPECT_LE(difference(ssd.hT, scan.hT), 1e-10) << line;
    EXPECT_LE(difference(ssd.dx, scan.dx), 1e-10) << line;
    EXPECT_LE(difference(ssd.dz, scan.dz), 1e-10) << line;
    EXPECT_LE(difference(ssd.dB, scan.dB), 1e-10) << line;
    EXPECT_LE(difference(ssd.dC, scan.dC), 1e-10) << line;
    EXPECT_LE(difference(ssd.dh0, scan.dh0), 1e-10) << line;
    EXPECT_LE(difference(ssd.ddt, sums(scan.ddt, shape.head_dim)), 1e-10) << line;
    EXPECT_LE(difference(ssd.ddt_bias, sums(scan.ddt_bias, shape.head_dim)), 1e-10) << line;
    EXPECT_LE(difference(ssd.dD, sums(scan.dD, shape.head_dim)), 1e-10) << line;
    EXPECT_LE(difference(ssd.dA, sums(scan.dA, shape.head_dim * shape.state)), 1e-10) << line;
  }
}

// Cross-check of math.md 4.4: without h0 and with ghT = 0 the gradients of the log-decays are the
// suffix sums of gy (y - D x) - delta x v, where delta v = dx - D gy. It cancels, so it is held to
// less than the forms themselves.
TEST(Duality, TheCancellingIdentityGivesTheGradientOfDt) {
  const SsdShape shape = shape_of(60, 1, 4, 5, 1);
  Ssd call = call_of(shape);
  call.h0.zero();
  call.ghT.zero();
  call.run_both(1, {.name = "quadratic"});
  double suffix = 0;
  Guarded<double> ddt(60);
  for (int64_t t = 60; t-- > 0;) {
    const double pre = call.dt[t] + call.dt_bias[0], delta = softplus(pre);
    double inputs = 0;
    for (int64_t p = 0; p < 4; ++p) {
      const int64_t at = t * 4 + p;
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
