#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <thread>

#include "core/simd_targets.h"
#include "measure/compare.h"
#include "measure/gradcheck.h"
#include "measure/machine.h"
#include "measure/report.h"
#include "measure/tensors.h"
#include "measure/timing.h"
#include "measure/variant.h"

namespace adder::measure {
namespace {

OutputCheck good_output() {
  OutputCheck output;
  output.name = "y";
  output.dtype = Dtype::f32;
  for (int i = 0; i < 100; ++i) {
    const double x = normal(7, 1, static_cast<uint64_t>(i));
    output.expected.push_back(x);
    output.got.push_back(static_cast<double>(static_cast<float>(x)));
    output.evaluated.push_back(static_cast<double>(static_cast<float>(x)));
    output.absolute.push_back(std::abs(x));
  }
  return output;
}

Comparison compare(const OutputCheck& output) {
  Comparison comparison;
  comparison.add(output);
  return comparison;
}

TEST(Compare, PassesRoundedResults) {
  const Comparison comparison = compare(good_output());
  EXPECT_TRUE(comparison.passed()) << comparison.describe();
  EXPECT_EQ(comparison.elements, 100);
}

TEST(Compare, TwentyUlpsGoRed) {
  OutputCheck output = good_output();
  output.got[17] += 20 * 0x1p-23 * std::abs(output.got[17]);
  const Comparison comparison = compare(output);
  EXPECT_FALSE(comparison.passed());
  EXPECT_NE(comparison.worst_at.find("y[17]"), std::string::npos) << comparison.worst_at;
}

TEST(Compare, NanAndInfinityGoRed) {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    OutputCheck output = good_output();
    output.got[99] = bad;
    EXPECT_FALSE(compare(output).passed());
  }
}

TEST(Compare, UnwrittenOutputGoesRed) {
  const Guarded<float> never_written(100);
  OutputCheck output = good_output();
  output.got = never_written.widened();
  EXPECT_FALSE(compare(output).passed());
}

TEST(Compare, NothingComparedIsNoPass) { EXPECT_FALSE(Comparison{}.passed()); }

TEST(Compare, ToleranceIsTheLargerOfBothTerms) {
  OutputCheck output;
  output.name = "y";
  output.dtype = Dtype::f32;
  output.expected = {1.0};
  output.absolute = {1.0};
  output.evaluated = {1.0};
  output.got = {1.0 + 7.9 * 0x1p-24};
  EXPECT_TRUE(compare(output).passed());
  output.got = {1.0 + 8.1 * 0x1p-24};
  EXPECT_FALSE(compare(output).passed());
  output.evaluated = {1.0 + 5 * 0x1p-24};  // 2 E = 10 u
  EXPECT_TRUE(compare(output).passed());
}

TEST(Guarded, SeesWritesOnBothSides) {
  for (const int64_t at : {int64_t{-1}, int64_t{-64}, int64_t{33}, int64_t{60}}) {
    Guarded<float> array(33);
    EXPECT_TRUE(array.intact());
    array.data()[at] = 0.0f;
    EXPECT_FALSE(array.intact()) << "a write at " << at << " was not seen";
  }
}

TEST(Guarded, IsPoisonedAndMisaligned) {
  const Guarded<float> array(5);
  for (const double x : array.widened()) EXPECT_TRUE(std::isnan(x));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(array.data()) % 64, sizeof(float));
  const ArenaLayout layout;
  EXPECT_EQ(reinterpret_cast<uintptr_t>(Guarded<float>(5).data()) % 64, 0u);
}

TEST(Timing, MedianOfUnevenRuns) {
  // Every fourth run is slow: the median is that of the quick ones. Margins for a busy machine.
  int run = 0;
  const Timing timing = time_runs(
      [&] { std::this_thread::sleep_for(std::chrono::microseconds(++run % 4 == 0 ? 50000 : 200)); },
      13, 0.0, 5.0);
  EXPECT_GE(timing.runs, 13);
  EXPECT_GE(timing.best_us, 200);
  EXPECT_GE(timing.median_us, timing.best_us);
  EXPECT_LT(timing.median_us, 40000);
  EXPECT_GT(timing.spread, 0.5);
}

TEST(Timing, LongRunsStopEarly) {
  const Timing timing = time_runs(
      [] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); }, 1000, 0.0, 0.05);
  EXPECT_LT(timing.runs, 10);
  EXPECT_GE(timing.runs, 3);
}

// f(x, w) = sum_i sin(x_i) w_i: gradients cos(x_i) w_i and sin(x_i).
struct Sines {
  std::vector<double> x, w, dx, dw;
  explicit Sines(int count) {
    for (int i = 0; i < count; ++i) {
      x.push_back(normal(3, 1, static_cast<uint64_t>(i)));
      w.push_back(normal(3, 2, static_cast<uint64_t>(i)));
      dx.push_back(std::cos(x.back()) * w.back());
      dw.push_back(std::sin(x.back()));
    }
  }
  double value() const {
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) sum += std::sin(x[i]) * w[i];
    return sum;
  }
  GradReport check(const GradOptions& options = {}) {
    const GradInput inputs[] = {{"x", x, dx}, {"w", w, dw}};
    return check_gradients([this] { return value(); }, inputs, options);
  }
};

TEST(GradCheck, AcceptsTheTrueGradientAndRestoresInputs) {
  Sines sines(40);
  const std::vector<double> before = sines.x;
  const GradReport report = sines.check();
  EXPECT_TRUE(report.passed(1e-8)) << report.worst << " at " << report.worst_at;
  EXPECT_EQ(report.entries, 80);
  EXPECT_EQ(sines.x, before);
}

TEST(GradCheck, SeesOneWrongEntry) {
  Sines sines(40);
  sines.dx[11] *= 1 + 1e-4;
  sines.dx[11] += 1e-5;
  const GradReport report = sines.check();
  EXPECT_FALSE(report.passed(1e-7));
  EXPECT_EQ(report.worst_at.substr(0, 5), "x[11]");
}

TEST(GradCheck, SeesNanAndMissingGradients) {
  Sines sines(5);
  sines.dw[2] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(sines.check().passed());
  Sines zeros(5);
  zeros.dx.assign(5, 0.0);
  EXPECT_FALSE(zeros.check().passed());
}

TEST(GradCheck, SamplesLargeInputsRepeatably) {
  Sines sines(500);
  GradOptions options;
  options.max_entries = 16;
  const GradReport first = sines.check(options);
  EXPECT_EQ(first.entries, 32);
  EXPECT_EQ(first.worst, sines.check(options).worst);
}

// A line of our own whose answer is off by `error`.
Variant toy_variant(const char* name, double error, bool accepted = true) {
  class Idle : public Prepared {
   public:
    void run() override { std::this_thread::sleep_for(std::chrono::microseconds(200)); }
  };
  Variant variant;
  variant.family = "toy";
  variant.line.name = name;
  variant.shape = "len 7";
  variant.cost.bytes = 1e3;
  variant.cost.flops = 1e3;
  variant.check = [error, accepted](const RunOptions&) {
    OutputCheck output = good_output();
    output.got[3] += error;
    Comparison comparison = compare(output);
    comparison.accepted = accepted;
    return comparison;
  };
  variant.prepare = [](const RunOptions&) { return std::make_unique<Idle>(); };
  variant.prepare_reference = variant.prepare;
  return variant;
}

TEST(Report, TimesGoodLinesAndRefusesBrokenOnes) {
  const std::vector<Variant> variants = {toy_variant("right", 0), toy_variant("wrong", 1e-3),
                                         toy_variant("absent", 0, false)};
  BenchOptions options;
  options.threads = {1};
  options.min_seconds = 0.01;
  std::vector<BenchRow> rows;
  EXPECT_EQ(run_bench(variants, options, [&](const BenchRow& row) { rows.push_back(row); }), 1);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].status, RowStatus::timed);
  EXPECT_GE(rows[0].median_us, 200);
  EXPECT_GT(rows[0].percent_of_floor, 0);
  EXPECT_GT(rows[0].ratio_to_reference, 0);
  EXPECT_EQ(rows[1].status, RowStatus::refused);
  EXPECT_EQ(rows[1].median_us, 0);
  EXPECT_NE(rows[1].why.find("y[3]"), std::string::npos) << rows[1].why;
  EXPECT_EQ(rows[2].status, RowStatus::skipped);
  for (const BenchRow& row : rows) {
    const std::string json = json_line(row);
    for (const char* key : {"\"commit\":", "\"machine\":", "\"compiler\":", "\"date\":"}) {
      EXPECT_NE(json.find(key), std::string::npos) << json;
    }
    EXPECT_EQ(json.find('\n'), std::string::npos);
  }
}

TEST(Report, FiltersAreAllNeeded) {
  const std::vector<Variant> variants = {toy_variant("right", 0), toy_variant("other", 0)};
  BenchOptions options;
  options.threads = {1};
  options.min_seconds = 0.0;
  options.filters = {"toy", "right", "len 7"};
  int rows = 0;
  run_bench(variants, options, [&](const BenchRow&) { ++rows; });
  EXPECT_EQ(rows, 1);
  options.filters = {"right", "len 8"};
  run_bench(variants, options, [&](const BenchRow&) { ++rows; });
  EXPECT_EQ(rows, 1);
}

TEST(Ceilings, ArePlausible) {
  const Ceilings& found = ceilings(1);
  EXPECT_GT(found.read_bytes_per_s, 1e8);
  EXPECT_GT(found.copy_bytes_per_s, 1e8);
  EXPECT_GT(found.f32_flops_per_s, 1e8);
  EXPECT_GT(found.f64_flops_per_s, 1e8);
  EXPECT_GE(found.bf16_flops_per_s, found.f32_flops_per_s);
  EXPECT_GT(found.f32_exps_per_s, 1e6);
  EXPECT_GT(found.f64_exps_per_s, 1e6);
  EXPECT_EQ(&ceilings(1), &found);  // measured once
  RecordProperty("ceilings", describe(found));
}

TEST(Ceilings, FloorIsBytesOrTheSumOfTheArithmetic) {
  Cost cost;
  cost.bytes = 1e6;
  const Floor bytes = floor_of(cost, Dtype::f32, 1);
  EXPECT_STREQ(bytes.bound, "bytes");
  cost.flops = 1e12;
  const Floor flops = floor_of(cost, Dtype::f32, 1);
  EXPECT_STREQ(flops.bound, "flops");
  EXPECT_GT(flops.us, bytes.us);
  cost.exps = 1e12;
  const Floor both = floor_of(cost, Dtype::f32, 1);
  EXPECT_STREQ(both.bound, "exps");
  cost.flops = 0;
  const Floor exps = floor_of(cost, Dtype::f32, 1);
  EXPECT_NEAR(both.us, flops.us + exps.us, 1e-9 * both.us);
}

TEST(Machine, IsNamed) {
  EXPECT_FALSE(this_machine().commit.empty());
  EXPECT_FALSE(this_machine().compiler.empty());
  EXPECT_GE(this_machine().cores, 1);
  const std::string now = utc_now();
  ASSERT_EQ(now.size(), 20u);
  EXPECT_EQ(now.back(), 'Z');
}

}  // namespace
}  // namespace adder::measure
