#include "kernels/sample/sample.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"
#include "core/simd_targets.h"
#include "kernels/ref/sample_ref.h"

namespace adder {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Normal logits, a few ties, NaN and -inf among them.
std::vector<float> random_logits(size_t count, uint64_t seed) {
  std::vector<float> logits(count);
  for (size_t i = 0; i < count; ++i) logits[i] = static_cast<float>(2 * normal(seed, 1, i));
  for (size_t i = 5; i < count; i += 11) logits[i] = logits[i - 3];
  for (size_t i = 7; i < count; i += 23) logits[i] = kNan;
  for (size_t i = 9; i < count; i += 29) logits[i] = -kInfinity;
  return logits;
}

std::string describe(const SamplingOptions& options, size_t vocab) {
  return "vocab " + std::to_string(vocab) + " temperature " + std::to_string(options.temperature) +
         " top_k " + std::to_string(options.top_k) + " top_p " + std::to_string(options.top_p) +
         " min_p " + std::to_string(options.min_p) + " penalty " +
         std::to_string(options.repetition_penalty);
}

// Every combination of the options on one vocabulary.
template <class Body>
void for_all_options(const Body& body) {
  for (const double temperature : {0.0, 0.3, 1.0, 2.5}) {
    for (const int64_t top_k : {0, 1, 2, 17, 100000}) {
      for (const double top_p : {1.0, 0.9, 0.5, 0.0}) {
        for (const double min_p : {0.0, 0.05, 1.0}) {
          for (const double penalty : {1.0, 1.7, 0.8}) {
            SamplingOptions options;
            options.temperature = temperature;
            options.top_k = top_k;
            options.top_p = top_p;
            options.min_p = min_p;
            options.repetition_penalty = penalty;
            options.seed = 5;
            body(options);
          }
        }
      }
    }
  }
}

struct SampleOnEveryTarget : ::testing::Test {
  ~SampleOnEveryTarget() override { force_simd_target(0); }
};

TEST_F(SampleOnEveryTarget, DistributionEqualsFullSorting) {
  const std::vector<int32_t> previous = {3, 0, 3, 3, 1, 0};
  for (const auto& target : simd_targets()) {
    force_simd_target(target.bits);
    for (const size_t vocab : {4, 5, 64, 257, 3001}) {
      const auto logits = random_logits(vocab, vocab);
      for_all_options([&](const SamplingOptions& options) {
        const auto got = sampling_distribution(options, logits, previous);
        const auto expected = ref::sampling_distribution(options, logits, previous);
        ASSERT_EQ(got.size(), expected.size());
        for (size_t i = 0; i < got.size(); ++i) {
          ASSERT_NEAR(got[i], expected[i], 1e-12)
              << target.name << " " << describe(options, vocab) << " id " << i;
        }
      });
    }
  }
}

TEST(Sample, DrawsComeFromTheDistribution) {
  const auto logits = random_logits(200, 9);
  const std::vector<int32_t> previous = {3, 17};
  for_all_options([&](const SamplingOptions& options) {
    const auto probability = sampling_distribution(options, logits, previous);
    for (uint64_t position = 0; position < 20; ++position) {
      const int32_t id = sample_token(options, logits, previous, 2, position);
      ASSERT_GE(id, 0);
      ASSERT_LT(id, 200);
      EXPECT_GT(probability[static_cast<size_t>(id)], 0) << describe(options, 200);
    }
  });
}

// Pearson's statistic of `draws` against the distribution of `options`, per degree of freedom.
double chi_square(const SamplingOptions& drawn, const SamplingOptions& claimed, int draws) {
  const auto logits = random_logits(40, 4);
  const auto probability = sampling_distribution(claimed, logits, {});
  std::vector<double> seen(logits.size(), 0.0);
  for (int i = 0; i < draws; ++i) {
    ++seen[static_cast<size_t>(
        sample_token(drawn, logits, {}, static_cast<uint64_t>(i % 7), static_cast<uint64_t>(i)))];
  }
  double sum = 0;
  int cells = 0;
  for (size_t i = 0; i < seen.size(); ++i) {
    const double expected = probability[i] * draws;
    if (expected == 0) {
      EXPECT_EQ(seen[i], 0) << "id " << i << " lies outside the kept set";
      continue;
    }
    sum += (seen[i] - expected) * (seen[i] - expected) / expected;
    ++cells;
  }
  return sum / (cells - 1);
}

// The draws are fixed by the seed, so the bounds are no matter of luck from run to run.
TEST(Sample, ChiSquareOfDraws) {
  SamplingOptions options;
  options.temperature = 1.3;
  options.seed = 42;
  EXPECT_LT(chi_square(options, options, 200000), 1.8);
  options.top_k = 12;
  EXPECT_LT(chi_square(options, options, 200000), 2.0);
  options.top_p = 0.8;
  options.min_p = 0.1;
  EXPECT_LT(chi_square(options, options, 200000), 2.5);
}

// Draws at another temperature must be noticed.
TEST(Sample, ChiSquareSeesAPlantedDefect) {
  SamplingOptions drawn, claimed;
  drawn.temperature = 1.03;
  EXPECT_GT(chi_square(drawn, claimed, 200000), 3.0);
}

TEST(Sample, TiesBreakToTheSmallerId) {
  const std::vector<float> logits = {1, 3, 3, 2, 3, 2};
  SamplingOptions options;
  options.temperature = 0;
  EXPECT_EQ(sample_token(options, logits, {}, 0, 0), 1);
  options.temperature = 1;
  options.top_k = 2;
  const auto two = sampling_distribution(options, logits, {});
  EXPECT_EQ(two, (std::vector<double>{0, 0.5, 0.5, 0, 0, 0}));
  options.top_k = 0;
  options.top_p = 0.01;
  EXPECT_EQ(sampling_distribution(options, logits, {})[1], 1);
}

TEST(Sample, RepetitionPenaltyOncePerDistinctId) {
  const std::vector<float> logits = {2, -1, 0, 1};
  SamplingOptions options;
  options.repetition_penalty = 2;
  const auto once = sampling_distribution(options, logits, std::vector<int32_t>{0, 1});
  const auto again = sampling_distribution(options, logits, std::vector<int32_t>{1, 0, 0, 1, 0});
  EXPECT_EQ(once, again);
  SamplingOptions plain;
  const std::vector<float> expected = {1, -2, 0, 1};
  EXPECT_EQ(once, sampling_distribution(plain, expected, {}));
}

TEST(Sample, SameSeedSequenceAndPositionDrawTheSame) {
  const auto logits = random_logits(1000, 3);
  SamplingOptions options;
  options.seed = 77;
  int changed = 0;
  for (uint64_t position = 0; position < 50; ++position) {
    const int32_t id = sample_token(options, logits, {}, 1, position);
    EXPECT_EQ(id, sample_token(options, logits, {}, 1, position));
    changed += id != sample_token(options, logits, {}, 2, position) ? 1 : 0;
  }
  EXPECT_GT(changed, 30);
}

TEST(Sample, ExtremeLogits) {
  SamplingOptions options;
  EXPECT_EQ(sample_token(options, std::vector<float>{kNan, -kInfinity, 0.5f, kNan}, {}, 0, 0), 2);
  const auto infinite =
      sampling_distribution(options, std::vector<float>{kInfinity, 1, kInfinity, kNan}, {});
  EXPECT_EQ(infinite, (std::vector<double>{0.5, 0, 0.5, 0}));
  options.temperature = 1e-300;
  EXPECT_EQ(sampling_distribution(options, std::vector<float>{1, 2, -1e38f}, {}),
            (std::vector<double>{0, 1, 0}));
  options.temperature = 1;
  EXPECT_EQ(sampling_distribution(options, std::vector<float>{3e38f, -3e38f}, {})[0], 1);
}

template <class Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Sample, ErrorsNameTheOption) {
  const std::vector<float> logits = {1, 2};
  const auto draw = [&](const SamplingOptions& options) {
    return error_of([&] { sample_token(options, logits, {}, 0, 0); });
  };
  SamplingOptions options;
  options.temperature = -1;
  EXPECT_EQ(draw(options), "sampling temperature: option out of range: expected >= 0, got -1");
  options = {};
  options.top_p = 1.5;
  EXPECT_EQ(draw(options), "sampling top_p: option out of range: expected in [0, 1], got 1.5");
  options = {};
  options.min_p = std::nan("");
  EXPECT_NE(draw(options), "");
  options = {};
  options.top_k = -3;
  EXPECT_NE(draw(options), "");
  options = {};
  options.repetition_penalty = 0;
  EXPECT_NE(draw(options), "");

  options = {};
  const auto none = [&](const std::vector<float>& values) {
    return error_of([&] { sample_token(options, values, {}, 0, 0); });
  };
  EXPECT_EQ(none({}),
            "sampling: no token can be drawn: expected a logit above -inf, got 0 logits, all -inf "
            "or NaN");
  EXPECT_NE(none({kNan, kNan}), "");
  EXPECT_NE(none({-kInfinity, kNan}), "");
  options.temperature = 0;
  EXPECT_NE(none({-kInfinity}), "");
  options.repetition_penalty = 1.1;
  EXPECT_NE(error_of([&] { sample_token(options, logits, std::vector<int32_t>{2}, 0, 0); }), "");
}

}  // namespace
}  // namespace adder
