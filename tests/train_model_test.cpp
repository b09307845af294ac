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

// Model, batches, arena and trainer of one run.
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
    model = make_model<float>(shape, dtype_from_name(config.precision));
    model->initialize(seed);
    context.threads = threads;
    trainer = std::make_unique<Trainer>(*model, config, batches, context);
    arena = std::make_unique<Arena>(
        std::max(trainer->plan_step_bytes(),
                 plan_evaluation_bytes(*model, context, config.batch, config.len)));
    context.arena = arena.get();
    const Arena::Scope scope(*arena);
    model->refresh_weights(context);
  }

  std::vector<StepReport> steps(int64_t count) {
    std::vector<StepReport> reports;
    for (int64_t i = 0; i < count; ++i) reports.push_back(trainer->step());
    return reports;
  }

  ShardBatchSource batches;
  std::unique_ptr<LanguageModel<float>> model;
  Context context;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<Trainer> trainer;
};

// Every tensor of a checkpoint in one string of bytes.
std::string all_bytes(const Trainer& trainer) {
  std::string bytes;
  for (const TensorSource& tensor : trainer.tensors()) {
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
    const Evaluation all = evaluate(*run.model, run.context, windows, {config.batch, 0, 5});
    const Evaluation five = evaluate(*run.model, run.context, windows, {config.batch, 5, 5});
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
  const StepReport a = big.trainer->step();
  const StepReport b = parts.trainer->step();
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_NEAR(a.loss, b.loss, 1e-5);
  double largest = 0, difference = 0;
  for (int64_t i = 0; i < big.model->params().total(); ++i) {
    largest = std::max<double>(largest, std::abs(big.model->grads()[i]));
    difference =
        std::max<double>(difference, std::abs(big.model->grads()[i] - parts.model->grads()[i]));
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
        const Arena::Scope scope(*part.arena);
        part.model->refresh_weights(part.context);
      }
      for (const StepReport& report : part.steps(stop - done)) {
        const StepReport& other = expected[static_cast<size_t>(report.step - 1)];
        EXPECT_EQ(report.loss, other.loss) << "step " << report.step;
        EXPECT_EQ(report.grad_norm, other.grad_norm) << "step " << report.step;
      }
      done = stop;
      save_checkpoint(checkpoint, part.trainer->counters(), part.trainer->tensors());
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
  float* poisoned = run.model->value(0) + 't' * run.model->config().d_model;  // embedding of 't'
  const float good = *poisoned;
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    *poisoned = bad;
    const StepReport report = run.trainer->step();
    EXPECT_TRUE(report.skipped);
    *poisoned = good;
    EXPECT_TRUE(all_bytes(*run.trainer) == before);
  }
  EXPECT_EQ(run.trainer->skipped(), 2);
  EXPECT_EQ(run.trainer->steps_done(), 5);
  EXPECT_FALSE(run.trainer->step().skipped);
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
    const bool same = std::memcmp(run.model->value(i), untouched.model->value(i),
                                  static_cast<size_t>(table.info(i).count()) * sizeof(float)) == 0;
    const bool is_mixer = glob_match("*.mixer.*", table.info(i).name);
    EXPECT_EQ(same, is_mixer) << table.info(i).name;
    frozen += is_mixer;
    moved += !same;
  }
  EXPECT_GT(frozen, 0);
  EXPECT_GT(moved, 0);
  EXPECT_LT(run.trainer->trainable_count(), table.parameter_count());
  EXPECT_LT(run.trainer->tensors().size(), untouched.trainer->tensors().size());

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
  const StepReport report = run.trainer->step();
  EXPECT_GT(report.grad_norm, config.clip);
  EXPECT_DOUBLE_EQ(report.learning_rate, config.lr / 5);
  // m after one step is (1 - beta1) * clipped gradient, so its norm is known.
  double sum = 0;
  for (const TensorSource& tensor : run.trainer->tensors()) {
    if (tensor.name.rfind("adam_m.", 0) != 0) continue;
    const auto* m = reinterpret_cast<const float*>(tensor.bytes.data());
    for (size_t i = 0; i < tensor.bytes.size() / sizeof(float); ++i) sum += double{m[i]} * m[i];
  }
  EXPECT_NEAR(std::sqrt(sum), (1 - config.beta1) * config.clip, 1e-6 * config.clip + 1e-6);
}

}  // namespace
}  // namespace adder
