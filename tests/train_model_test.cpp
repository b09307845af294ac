// Training a small model in this process: it learns, micro-batches add up, a checkpoint resumes the
// very bits, what is not finite changes nothing.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <vector>

#include "core/error.h"
#include "formats/checkpoint.h"
#include "formats/token_shard.h"
#include "models/language_model.h"
#include "train/batch_source.h"
#include "train/evaluation.h"
#include "train/trainer.h"

namespace adder {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kText = "the quick brown fox jumps over the lazy dog, and then again: ";
constexpr int64_t kTextTokens = 2000;

class TrainModel : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() / fmt::format("adder-{}-{}", ::getpid(), info->name());
    fs::create_directories(folder_);
    TokenShardWriter writer(file("text.tokens"), 256, "bytes");
    std::vector<int32_t> ids(static_cast<size_t>(kTextTokens));
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = kText[i % kText.size()];
    writer.append(ids);
    writer.add_text_bytes(kTextTokens);
    writer.finish();
    shard_ = std::make_shared<const TokenShard>(file("text.tokens"));
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string file(const std::string& name) const { return (folder_ / name).string(); }

  fs::path folder_;
  std::shared_ptr<const TokenShard> shard_;
};

TrainConfig small_config() {
  TrainConfig config;
  config.steps = 40;
  config.batch = 2;
  config.len = 24;
  config.lr = 1e-2;
  config.warmup = 5;
  return config;
}

// Model, batches and trainer of one run.
struct SmallRun {
  SmallRun(const std::shared_ptr<const TokenShard>& shard, const TrainConfig& config, int threads,
           uint64_t seed = 5)
      : batches({shard, 0, kTextTokens}, {config.batch, config.len, config.accumulation,
                                          static_cast<uint64_t>(config.seed)}) {
    ModelConfig shape;
    shape.d_model = 32;
    shape.n_layer = 2;
    shape.d_state = 4;
    resolve(shape, "test");
    ModelBuild build;
    build.compute = dtype_from_name(config.precision);
    build.context.threads = threads;
    model = make_model<float>(shape, build);
    model->initialize(seed);
    trainer = std::make_unique<Trainer>(*model, config, batches, build.context);
  }

  // The reports of `count` steps; each comes one step later.
  std::vector<StepReport> steps(int64_t count) {
    std::vector<StepReport> reports;
    for (int64_t i = 0; i < count; ++i) {
      const auto report = trainer->step();
      EXPECT_EQ(report.has_value(), i > 0);
      if (report) reports.push_back(*report);
    }
    if (const auto report = trainer->finish()) reports.push_back(*report);
    EXPECT_FALSE(trainer->finish().has_value());
    return reports;
  }
  StepReport step() { return steps(1).front(); }

  ShardBatchSource batches;
  std::unique_ptr<LanguageModel<float>> model;
  std::unique_ptr<Trainer> trainer;
};

std::unique_ptr<StagedCheckpoint> staged(const Trainer& trainer) {
  auto result = std::make_unique<StagedCheckpoint>(trainer.staging_bytes(), Memory{});
  trainer.stage(*result);
  EXPECT_EQ(result->capacity(), trainer.staging_bytes());
  return result;
}

// Every tensor of a checkpoint in one string of bytes.
std::string all_bytes(const Trainer& trainer) {
  std::string bytes;
  const auto checkpoint = staged(trainer);
  for (const TensorSource& tensor : checkpoint->tensors()) {
    bytes.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
  }
  return bytes;
}

TEST_F(TrainModel, LearnsATinyText) {
  for (const char* precision : {"f32", "bf16"}) {
    TrainConfig config = small_config();
    config.steps = 120;
    config.precision = precision;
    SmallRun run(shard_, config, 2);
    const auto reports = run.steps(config.steps);
    EXPECT_NEAR(reports.front().loss, std::log(256), 0.7) << precision;
    EXPECT_LT(reports.back().loss, 0.5 * reports.front().loss) << precision;
    for (const StepReport& report : reports) EXPECT_FALSE(report.skipped);

    const ShardEvalSource windows({shard_, 0, kTextTokens}, config.len);
    ModelRunner<float> runner(*run.model, run.trainer->workspace(), "test");
    const Evaluation all = evaluate(runner, windows, {config.batch, 0, 5});
    const Evaluation five = evaluate(runner, windows, {config.batch, 5, 5});
    EXPECT_EQ(all.tokens, kTextTokens - 1);
    EXPECT_EQ(five.loss, five.compare_loss);
    EXPECT_EQ(all.compare_loss, five.loss);
    EXPECT_NEAR(all.bits_per_byte, all.loss / std::log(2.0), 1e-12);
  }
}

TEST_F(TrainModel, MicroBatchesAddUpToTheBigBatch) {
  TrainConfig config = small_config();
  config.batch = 6;
  SmallRun big(shard_, config, 2);
  config.batch = 2;
  config.accumulation = 3;
  SmallRun parts(shard_, config, 2);
  const StepReport a = big.step();
  const StepReport b = parts.step();
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_NEAR(a.loss, b.loss, 1e-5);
  double largest = 0, difference = 0;
  for (int64_t p = 0; p < big.model->params().size(); ++p) {
    const auto one = big.model->store().read_gradient(p);
    const auto other = parts.model->store().read_gradient(p);
    for (size_t i = 0; i < one.size(); ++i) {
      largest = std::max<double>(largest, std::abs(one[i]));
      difference = std::max<double>(difference, std::abs(one[i] - other[i]));
    }
  }
  EXPECT_GT(largest, 0);
  EXPECT_LT(difference, 1e-5 * largest);
}

TEST_F(TrainModel, ResumesTheVeryBits) {
  for (const char* precision : {"f32", "bf16"}) {
    TrainConfig config = small_config();
    config.precision = precision;
    config.accumulation = 2;
    SmallRun whole(shard_, config, 1);
    const auto expected = whole.steps(config.steps);

    const std::string checkpoint = file(fmt::format("{}.adder", precision));
    int64_t done = 0;
    for (const int64_t stop : {1, 2, 17, 30, 40}) {
      SmallRun part(shard_, config, stop % 2 == 0 ? 2 : 1, /*seed=*/99);  // other start values
      if (done > 0) {
        const Checkpoint saved = load_checkpoint(checkpoint);
        part.trainer->restore(saved, saved.manifest());
      } else {
        part.model->initialize(5);
      }
      for (const StepReport& report : part.steps(stop - done)) {
        const StepReport& other = expected[static_cast<size_t>(report.step - 1)];
        EXPECT_EQ(report.loss, other.loss) << "step " << report.step;
        EXPECT_EQ(report.grad_norm, other.grad_norm) << "step " << report.step;
      }
      done = stop;
      save_checkpoint(checkpoint, part.trainer->counters(), staged(*part.trainer)->tensors());
      if (done == config.steps) {
        EXPECT_TRUE(all_bytes(*part.trainer) == all_bytes(*whole.trainer)) << precision;
      }
    }
    // The comparison can go red: one more step changes the bits.
    SmallRun longer(shard_, config, 1);
    longer.steps(config.steps - 1);
    EXPECT_FALSE(all_bytes(*longer.trainer) == all_bytes(*whole.trainer));
  }
}

TEST_F(TrainModel, SkipsAStepThatIsNotFinite) {
  TrainConfig config = small_config();
  SmallRun run(shard_, config, 2);
  run.steps(3);
  const std::string before = all_bytes(*run.trainer);
  ParamStore<float>& store = run.model->store();
  const int64_t at = 't' * run.model->config().d_model;  // the embedding of 't'
  const float good = store.read(0)[static_cast<size_t>(at)];
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    store.write(0, at, 1, &bad);
    EXPECT_TRUE(run.step().skipped);
    store.write(0, at, 1, &good);
    EXPECT_TRUE(all_bytes(*run.trainer) == before);
  }
  EXPECT_EQ(run.trainer->skipped(), 2);
  EXPECT_EQ(run.trainer->steps_done(), 5);
  EXPECT_FALSE(run.step().skipped);
  EXPECT_FALSE(all_bytes(*run.trainer) == before);
}

TEST_F(TrainModel, FreezesByName) {
  TrainConfig config = small_config();
  config.freeze = {"*.mixer.*"};
  SmallRun run(shard_, config, 2);
  SmallRun untouched(shard_, small_config(), 2);
  run.steps(3);
  int64_t frozen = 0, moved = 0;
  const ParamTable& table = run.model->params();
  for (int64_t i = 0; i < table.size(); ++i) {
    const bool same = run.model->store().read(i) == untouched.model->store().read(i);
    const bool is_mixer = glob_match("*.mixer.*", table.info(i).name);
    EXPECT_EQ(same, is_mixer) << table.info(i).name;
    frozen += is_mixer;
    moved += !same;
  }
  EXPECT_GT(frozen, 0);
  EXPECT_GT(moved, 0);
  EXPECT_LT(run.trainer->optimizer().trainable_count(), table.parameter_count());
  EXPECT_LT(staged(*run.trainer)->tensors().size(), staged(*untouched.trainer)->tensors().size());

  config.freeze = {"no.such.*"};
  EXPECT_THROW(SmallRun(shard_, config, 1), Error);
  config.freeze = {"*"};
  EXPECT_THROW(SmallRun(shard_, config, 1), Error);
}

TEST_F(TrainModel, ClipsTheGradientAndFollowsTheSchedule) {
  TrainConfig config = small_config();
  config.clip = 1e-3;
  config.weight_decay = 0;
  config.schedule = "constant";
  SmallRun run(shard_, config, 2);
  const StepReport report = run.step();
  EXPECT_GT(report.grad_norm, config.clip);
  EXPECT_DOUBLE_EQ(report.learning_rate, config.lr / 5);
  // m after one step is (1 - beta1) * clipped gradient, so its norm is known.
  double sum = 0;
  const auto checkpoint = staged(*run.trainer);
  for (const TensorSource& tensor : checkpoint->tensors()) {
    if (tensor.name.rfind("adam_m.", 0) != 0) continue;
    const auto* m = reinterpret_cast<const float*>(tensor.bytes.data());
    for (size_t i = 0; i < tensor.bytes.size() / sizeof(float); ++i) sum += double{m[i]} * m[i];
  }
  EXPECT_NEAR(std::sqrt(sum), (1 - config.beta1) * config.clip, 1e-6 * config.clip + 1e-6);
}

// Every step worked out in double from the gradients that the model holds: the rise of the learning
// rate, clipping, AdamW with its t, decay of matrices only, and a skipped step that counts nothing.
TEST_F(TrainModel, StepsAreTheFormulas) {
  TrainConfig config = small_config();
  config.clip = 0.5;
  config.weight_decay = 0.3;
  config.schedule = "constant";
  SmallRun run(shard_, config, 2);
  ParamStore<float>& store = run.model->store();
  const ParamTable& table = run.model->params();
  const auto read_all = [&] {
    std::vector<std::vector<float>> all;
    for (int64_t p = 0; p < table.size(); ++p) all.push_back(store.read(p));
    return all;
  };
  std::vector<std::vector<double>> m, v;
  for (const auto& values : read_all()) {
    m.emplace_back(values.size());
    v.emplace_back(values.size());
  }
  const int64_t at = 't' * run.model->config().d_model;  // the embedding of 't'
  const float nan = std::numeric_limits<float>::quiet_NaN();
  int64_t updates = 0, clipped = 0;
  for (int64_t step = 1; step <= 6; ++step) {
    const bool spoiled = step == 3;
    const float kept = store.read(0)[static_cast<size_t>(at)];
    if (spoiled) store.write(0, at, 1, &nan);
    auto before = read_all();
    const StepReport report = run.step();
    EXPECT_EQ(report.step, step);
    EXPECT_DOUBLE_EQ(report.learning_rate,
                     config.lr * std::min(1.0, static_cast<double>(step) / 5));
    EXPECT_EQ(report.skipped, spoiled);
    if (spoiled) {
      store.write(0, at, 1, &kept);
      continue;
    }
    const double t = static_cast<double>(++updates), lr = report.learning_rate;
    std::vector<std::vector<float>> gradients;
    double squares = 0;
    for (int64_t p = 0; p < table.size(); ++p) {
      gradients.push_back(store.read_gradient(p));
      if (!table.info(p).alias_of.empty()) continue;
      for (const float g : gradients.back()) squares += double{g} * g;
    }
    EXPECT_NEAR(report.grad_norm, std::sqrt(squares), 1e-9 * report.grad_norm);
    const double clip = std::min(1.0, config.clip / (std::sqrt(squares) + 1e-6));
    clipped += clip < 1;
    const auto after = read_all();
    for (size_t p = 0; p < after.size(); ++p) {
      const ParamInfo& info = table.info(static_cast<int64_t>(p));
      if (!info.alias_of.empty()) continue;
      const bool decays = info.name.find("_proj.weight") != std::string::npos ||
                          info.name.find("embeddings.weight") != std::string::npos;
      for (size_t i = 0; i < after[p].size(); ++i) {
        const double g = clip * double{gradients[p][i]};
        m[p][i] = config.beta1 * m[p][i] + (1 - config.beta1) * g;
        v[p][i] = config.beta2 * v[p][i] + (1 - config.beta2) * g * g;
        const double mean = m[p][i] / (1 - std::pow(config.beta1, t));
        const double root = std::sqrt(v[p][i] / (1 - std::pow(config.beta2, t)));
        const double moved = lr * mean / (root + config.eps);
        const double expected =
            double{before[p][i]} * (1 - (decays ? lr * config.weight_decay : 0)) - moved;
        ASSERT_NEAR(after[p][i], expected,
                    2e-7 * std::abs(before[p][i]) + 2e-4 * std::abs(moved) + 1e-9)
            << info.name << "[" << i << "] of step " << step;
      }
    }
  }
  EXPECT_EQ(run.trainer->skipped(), 1);
  EXPECT_GT(clipped, 0);
}

}  // namespace
}  // namespace adder
