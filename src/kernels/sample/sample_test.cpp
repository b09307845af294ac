#include "kernels/sample/sample.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"
#include "core/simd_targets.h"
#include "core/workspace.h"
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

// One row through the door.
struct Drawn {
  int32_t id = 0;
  std::vector<double> probability;
};
Drawn drawn(const SamplingOptions& options, std::span<const float> logits,
            std::span<const int32_t> previous, uint64_t sequence = 0, uint64_t position = 0) {
  const SampleRow row = {options, sequence, position, 0, static_cast<int64_t>(previous.size())};
  const auto vocab = static_cast<int64_t>(logits.size());
  Drawn out;
  out.probability.assign(logits.size(), NAN);
  Workspace(1).run([&](Context& context) {
    sample_tokens(context, {1, vocab},
                  {logits.data(), vocab, &row, previous.data(), &out.id, out.probability.data()});
  });
  return out;
}
int32_t sample_token(const SamplingOptions& options, std::span<const float> logits,
                     std::span<const int32_t> previous, uint64_t sequence, uint64_t position) {
  return drawn(options, logits, previous, sequence, position).id;
}
std::vector<double> sampling_distribution(const SamplingOptions& options,
                                          std::span<const float> logits,
                                          std::span<const int32_t> previous) {
  return drawn(options, logits, previous).probability;
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

TEST(Sample, NothingToDrawGivesNoToken) {
  SamplingOptions options;
  const auto none = [&](const std::vector<float>& logits) {
    const Drawn out = drawn(options, logits, {});
    EXPECT_EQ(out.probability, std::vector<double>(logits.size(), 0.0));
    return out.id;
  };
  EXPECT_EQ(none({kNan, kNan}), kNoToken);
  EXPECT_EQ(none({-kInfinity, kNan}), kNoToken);
  options.temperature = 0;
  EXPECT_EQ(none({-kInfinity}), kNoToken);
}

// More rows than are drawn at once, each with options, ids and a length of its own.
struct RowsCall {
  static constexpr int64_t kRows = 41, kVocab = 301, kStride = 310;
  std::vector<float> logits = std::vector<float>(kRows * kStride, kNan);
  std::vector<SampleRow> options;
  std::vector<int32_t> previous, ids = std::vector<int32_t>(kRows, -7);
  std::vector<double> probability = std::vector<double>(kRows * kVocab, NAN);

  RowsCall() {
    std::vector<SamplingOptions> all;
    for_all_options([&](const SamplingOptions& one) { all.push_back(one); });
    for (int64_t r = 0; r < kRows; ++r) {
      const auto at = static_cast<uint64_t>(r);
      const auto row = random_logits(kVocab, 100 + at);
      std::copy(row.begin(), row.end(), logits.begin() + r * kStride);
      SampleRow one = {all[static_cast<size_t>(r * 17) % all.size()], at % 5, at * 3,
                       static_cast<int64_t>(previous.size()), r % 7};
      one.options.seed = at;
      for (int64_t i = 0; i < one.previous_count; ++i) {
        previous.push_back(static_cast<int32_t>((r * 31 + i * i * 7) % kVocab));
      }
      options.push_back(one);
    }
    // A row without a token must not disturb the others.
    for (int64_t i = 0; i < kVocab; ++i) logits[static_cast<size_t>(20 * kStride + i)] = kNan;
  }
  std::span<const float> row(int64_t r) const {
    return {logits.data() + r * kStride, static_cast<size_t>(kVocab)};
  }
  std::span<const int32_t> before(int64_t r) const {
    const SampleRow& one = options[static_cast<size_t>(r)];
    return {previous.data() + one.previous_begin, static_cast<size_t>(one.previous_count)};
  }
  void run(int threads) {
    Workspace(threads).run([&](Context& context) {
      sample_tokens(context, {kRows, kVocab},
                    {logits.data(), kStride, options.data(), previous.data(), ids.data(),
                     probability.data()});
    });
  }
};

TEST(Sample, RowsOfOneCallAreDrawnAsIfAlone) {
  RowsCall one, two;
  one.run(1);
  two.run(2);
  EXPECT_EQ(one.ids, two.ids);
  EXPECT_EQ(one.ids[20], kNoToken);
  for (int64_t r = 0; r < RowsCall::kRows; ++r) {
    const SampleRow& row = one.options[static_cast<size_t>(r)];
    const Drawn alone = drawn(row.options, one.row(r), one.before(r), row.sequence, row.position);
    EXPECT_EQ(alone.id, one.ids[static_cast<size_t>(r)]) << r;
    const auto begin = one.probability.begin() + r * RowsCall::kVocab;
    EXPECT_TRUE(std::equal(alone.probability.begin(), alone.probability.end(), begin)) << r;
    if (r == 20) continue;
    const auto expected = ref::sampling_distribution(row.options, one.row(r), one.before(r));
    for (int64_t i = 0; i < RowsCall::kVocab; ++i) {
      ASSERT_NEAR(begin[i], expected[static_cast<size_t>(i)], 1e-12) << r << " id " << i;
    }
  }
}

// The uniform number of (seed, sequence, position) picks the id by the sums of the probabilities, in
// the order of ids where nothing is cut.
TEST(Sample, TheDrawIsTheInverseOfTheDistribution) {
  SamplingOptions options;
  options.seed = 11;
  const auto logits = random_logits(77, 8);
  const auto p = ref::sampling_distribution(options, logits, {});
  for (uint64_t position = 0; position < 200; ++position) {
    double rest = uniform01(11, 4, position);
    size_t id = 0;
    while (id + 1 < p.size() && rest >= p[id]) rest -= p[id++];
    EXPECT_EQ(sample_token(options, logits, {}, 4, position), static_cast<int32_t>(id));
  }
}

template <class Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Sample, OptionsOutOfRangeAreErrorsThatNameThem) {
  const auto checked = [](const auto& change) {
    SamplingOptions options;
    change(options);
    return error_of([&] { options.check(); });
  };
  EXPECT_EQ(checked([](auto&) {}), "no error");
  EXPECT_EQ(checked([](auto& o) { o.temperature = -1; }),
            "sampling temperature: option out of range: expected >= 0, got -1");
  EXPECT_EQ(checked([](auto& o) { o.top_p = 1.5; }),
            "sampling top_p: option out of range: expected in [0, 1], got 1.5");
  EXPECT_NE(checked([](auto& o) { o.min_p = std::nan(""); }), "no error");
  EXPECT_NE(checked([](auto& o) { o.top_k = -3; }), "no error");
  EXPECT_NE(checked([](auto& o) { o.repetition_penalty = 0; }), "no error");
}

TEST(Sample, TheDoorNamesTheField) {
  const float logits[4] = {1, 2, 3, 4};
  const SampleRow options[2];
  int32_t ids[2];
  const auto door = [&](const SampleShape& shape, const SampleArgs& args) {
    return error_of(
        [&] { Workspace(1).run([&](Context& context) { sample_tokens(context, shape, args); }); });
  };
  const auto none = [](const std::string& field) {
    return "sample: " + field + ": bad shape: expected an array, got none";
  };
  EXPECT_EQ(door({2, 2}, {logits, 2, options, nullptr, ids}), "no error");
  EXPECT_EQ(door({-1, 2}, {}), "sample: rows: bad shape: expected >= 0, got -1");
  EXPECT_EQ(door({1, 0}, {}), "sample: vocab: bad shape: expected >= 1, got 0");
  EXPECT_EQ(door({0, 2}, {}), "no error");
  EXPECT_EQ(door({2, 2}, {logits, 1, options, nullptr, ids}),
            "sample: logit_stride: bad shape: expected >= 2 (width), got 1");
  EXPECT_EQ(door({2, 2}, {nullptr, 2, options, nullptr, ids}), none("logits"));
  EXPECT_EQ(door({2, 2}, {logits, 2, nullptr, nullptr, ids}), none("options"));
  EXPECT_EQ(door({2, 2}, {logits, 2, options, nullptr, nullptr}), none("ids"));
}

}  // namespace
}  // namespace adder
