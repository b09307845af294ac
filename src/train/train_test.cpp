// Schedules, batch order, metrics, event files, plots, logs: what needs no model.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <numbers>
#include <set>
#include <vector>

#include "core/atomic_file.h"
#include "core/checksum.h"
#include "core/error.h"
#include "core/mapped_file.h"
#include "kernels/loss/loss.h"
#include "train/append_log.h"
#include "train/batch_source.h"
#include "train/loop.h"
#include "train/metrics.h"
#include "train/plot.h"
#include "train/run_folder.h"
#include "train/schedule.h"

namespace adder {
namespace {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder()
      : path_(fs::temp_directory_path() /
              fmt::format("adder_train_test_{}_{}", ::getpid(), counter_++)) {
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }

 private:
  static inline int counter_ = 0;
  fs::path path_;
};

// ids 0, 1, 2, ... so that a window shows where it was cut.
std::shared_ptr<const TokenShard> counting_shard(const std::string& path, int64_t count) {
  TokenShardWriter writer(path, 1 << 20, "bytes");
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  writer.append(ids);
  writer.add_text_bytes(2 * count);
  writer.finish();
  return std::make_shared<const TokenShard>(path);
}

TEST(Schedule, Cosine) {
  TrainConfig config;
  config.steps = 110;
  config.warmup = 10;
  config.lr = 1.0;
  config.min_lr = 0.1;
  EXPECT_DOUBLE_EQ(learning_rate(config, 1), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(config, 10), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(config, 60), 0.55);
  EXPECT_DOUBLE_EQ(learning_rate(config, 110), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(config, 35), 0.1 + 0.45 * (1 + std::cos(std::numbers::pi / 4)));
}

TEST(Schedule, StableThenDecay) {
  TrainConfig config;
  config.schedule = "wsd";
  config.steps = 100;
  config.warmup = 4;
  config.lr = 2.0;
  config.decay_steps = 20;
  EXPECT_DOUBLE_EQ(learning_rate(config, 2), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(config, 80), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(config, 90), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(config, 100), 0.0);
  config.decay_shape = "sqrt";
  EXPECT_DOUBLE_EQ(learning_rate(config, 85), 1.0);
  config.decay_steps = 0;  // a fifth
  EXPECT_DOUBLE_EQ(learning_rate(config, 85), 1.0);
}

TEST(Schedule, ConstantAndEdges) {
  TrainConfig config;
  config.schedule = "constant";
  config.warmup = 0;
  config.steps = 3;
  for (int64_t t = 1; t <= 3; ++t) EXPECT_DOUBLE_EQ(learning_rate(config, t), config.lr);
  config.schedule = "cosine";
  config.warmup = 50;  // longer than the run
  EXPECT_DOUBLE_EQ(learning_rate(config, 3), config.lr);
  config.steps = config.warmup = 1;
  EXPECT_DOUBLE_EQ(learning_rate(config, 1), config.lr);
}

TEST(Permutation, IsOne) {
  for (const int64_t count : {1, 2, 3, 5, 16, 17, 1000}) {
    std::set<int64_t> seen;
    for (int64_t i = 0; i < count; ++i) seen.insert(permuted_index(7, 3, count, i));
    EXPECT_EQ(static_cast<int64_t>(seen.size()), count);
    EXPECT_EQ(*seen.begin(), 0);
    EXPECT_EQ(*seen.rbegin(), count - 1);
  }
  int64_t fixed = 0, same = 0;
  for (int64_t i = 0; i < 1000; ++i) {
    fixed += permuted_index(7, 3, 1000, i) == i;
    same += permuted_index(7, 3, 1000, i) == permuted_index(7, 4, 1000, i);
  }
  EXPECT_LT(fixed, 10);
  EXPECT_LT(same, 10);
}

TEST(Batches, FollowFromSeedAndStepAlone) {
  Folder folder;
  const TokenRange range{counting_shard(folder.file("a.tokens"), 1003), 100, 1000};
  const BatchShape shape{4, 16, 2, 9};
  const ShardBatchSource source(range, shape), again(range, shape);
  const ShardBatchSource other(range, {4, 16, 2, 10});
  std::vector<int32_t> ids(64), targets(64), ids2(64), targets2(64);
  bool differs = false;
  for (const int64_t step : {31, 1, 7, 200}) {  // in no order
    source.fill(step, 1, ids.data(), targets.data());
    again.fill(step, 1, ids2.data(), targets2.data());
    EXPECT_EQ(ids, ids2);
    EXPECT_EQ(targets, targets2);
    for (size_t i = 0; i < ids.size(); ++i) {
      EXPECT_EQ(targets[i], ids[i] + 1);
      EXPECT_GE(ids[i], 100);
      EXPECT_LT(targets[i], 1000);
    }
    other.fill(step, 1, ids2.data(), targets2.data());
    differs = differs || ids != ids2;
  }
  EXPECT_TRUE(differs);
}

TEST(Batches, AnEpochVisitsEveryWindowOnce) {
  Folder folder;
  const TokenRange range{counting_shard(folder.file("a.tokens"), 1000), 0, 1000};
  const ShardBatchSource source(range, {1, 16, 1, 5});
  const int64_t windows = source.windows_per_epoch();
  EXPECT_EQ(windows, 61);
  std::set<int64_t> phases;
  for (int64_t epoch = 0; epoch < 4; ++epoch) {
    std::set<int64_t> starts;
    for (int64_t i = 0; i < windows; ++i) starts.insert(source.window_start(epoch * windows + i));
    EXPECT_EQ(static_cast<int64_t>(starts.size()), windows);
    EXPECT_EQ(*starts.rbegin() - *starts.begin(), (windows - 1) * 16);
    EXPECT_LE(*starts.rbegin() + 17, 1000);
    phases.insert(*starts.begin());
  }
  EXPECT_GT(phases.size(), 1u);
}

TEST(Batches, ShortTexts) {
  Folder folder;
  const auto shard = counting_shard(folder.file("a.tokens"), 20);
  const ShardBatchSource one({shard, 0, 17}, {2, 16, 1, 1});
  EXPECT_EQ(one.windows_per_epoch(), 1);
  EXPECT_EQ(one.window_start(5), 0);
  try {
    const ShardBatchSource none({shard, 0, 16}, {2, 16, 1, 1});
    FAIL() << "a text shorter than a window was taken";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("at least 17"), std::string::npos) << error.what();
  }
}

TEST(Validation, PredictsEveryTokenOnce) {
  Folder folder;
  const ShardEvalSource source({counting_shard(folder.file("a.tokens"), 60), 10, 60}, 16);
  EXPECT_EQ(source.windows(), 4);
  EXPECT_DOUBLE_EQ(source.bytes_per_token(), 2.0);
  std::vector<int32_t> ids(16), targets(16), predicted;
  for (int64_t w = 0; w < source.windows(); ++w) {
    source.fill(w, ids.data(), targets.data());
    for (size_t i = 0; i < 16; ++i) {
      if (targets[i] == kIgnoreIndex) continue;
      EXPECT_EQ(targets[i], ids[i] + 1);
      predicted.push_back(targets[i]);
    }
  }
  ASSERT_EQ(predicted.size(), 49u);
  for (size_t i = 0; i < predicted.size(); ++i)
    EXPECT_EQ(predicted[i], static_cast<int32_t>(11 + i));
}

TEST(Metrics, LinesHaveTheKeysAndReadBack) {
  Folder folder;
  MetricsRecord record;
  record.step = 3;
  record.tokens = 6144;
  record.seconds = 1.25;
  record.train_loss = 1.0 / 3;
  record.lr = 4e-3;
  record.grad_norm = std::nan("");
  record.tokens_per_s = 5000;
  const std::string line = metrics_line(record);
  EXPECT_EQ(line.find("{\"step\":3,\"tokens\":6144,"), 0u) << line;
  EXPECT_NE(line.find("\"val_loss\":null,\"bits_per_byte\":null,\"lr\":"), std::string::npos)
      << line;
  EXPECT_NE(line.find("\"grad_norm\":null"), std::string::npos) << line;
  record.val_loss = 1.5;
  record.bits_per_byte = 2.1;
  write_file_atomically(folder.file("m.jsonl"), line + metrics_line(record));
  const auto records = read_metrics(folder.file("m.jsonl"));
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].train_loss, 1.0 / 3);
  EXPECT_FALSE(records[0].val_loss.has_value());
  EXPECT_EQ(records[1].val_loss, 1.5);
  write_file_atomically(folder.file("m.jsonl"), line + "{\"step\": 4");
  EXPECT_THROW(read_metrics(folder.file("m.jsonl")), Error);
}

uint32_t unmasked(uint32_t masked) {
  const uint32_t rotated = masked - 0xA282EAD8u;
  return (rotated >> 17) | (rotated << 15);
}

template <class T>
T raw_at(const std::string& bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

uint32_t crc_of(const std::string& bytes) { return crc32c(std::as_bytes(std::span(bytes))); }

TEST(EventFile, FramesAreWhole) {
  Folder folder;
  MetricsRecord record;
  record.step = 300;
  record.train_loss = 2.5;
  record.val_loss = 2.25;
  {
    EventLog log(folder.file("e"), 0);
    log.append(record);
  }
  const std::string bytes = read_text_file(folder.file("e"));
  std::vector<std::string> payloads;
  for (size_t at = 0; at < bytes.size();) {
    const auto length = raw_at<uint64_t>(bytes, at);
    EXPECT_EQ(unmasked(raw_at<uint32_t>(bytes, at + 8)), crc_of(bytes.substr(at, 8)));
    payloads.push_back(bytes.substr(at + 12, length));
    EXPECT_EQ(unmasked(raw_at<uint32_t>(bytes, at + 12 + length)), crc_of(payloads.back()));
    at += 16 + length;
  }
  ASSERT_EQ(payloads.size(), 2u);
  EXPECT_NE(payloads[0].find("brain.Event:2"), std::string::npos);
  // step: field 2, varint 300 = AC 02.
  EXPECT_EQ(payloads[1].substr(9, 3), std::string("\x10\xAC\x02"));
  const size_t tag = payloads[1].find("loss/train");
  ASSERT_NE(tag, std::string::npos);
  EXPECT_EQ(payloads[1][tag + 10], '\x15');  // field 2, fixed32
  EXPECT_EQ(raw_at<float>(payloads[1], tag + 11), 2.5F);
  EXPECT_NE(payloads[1].find("loss/validation"), std::string::npos);
}

TEST(AppendLog, ContinuesWhereToldTo) {
  Folder folder;
  {
    AppendLog log(folder.file("l"), 0);
    log.append("one\ntwo\n");
    EXPECT_EQ(log.bytes(), 8);
  }
  {
    AppendLog log(folder.file("l"), 4);
    log.append("three\n");
  }
  EXPECT_EQ(read_text_file(folder.file("l")), "one\nthree\n");
  {
    AppendLog log(folder.file("l"), 100);
    EXPECT_EQ(log.bytes(), 10);
  }
  {
    AppendLog log(folder.file("l"), 0);
  }
  EXPECT_EQ(read_text_file(folder.file("l")), "");
  EXPECT_THROW(AppendLog(folder.file("no/such/folder"), 0), Error);
}

std::vector<MetricsRecord> sample_metrics(int64_t steps) {
  std::vector<MetricsRecord> records(static_cast<size_t>(steps));
  for (int64_t i = 0; i < steps; ++i) {
    MetricsRecord& record = records[static_cast<size_t>(i)];
    record.step = i + 1;
    const double t = static_cast<double>(i + 1);
    record.train_loss = 1.3 + 4.2 * std::exp(-t / 60) + 0.06 * std::sin(t * 1.7) + 40 / (t + 100);
    if ((i + 1) % 100 == 0) record.val_loss = 1.45 + 40 / (t + 100);
  }
  return records;
}

TEST(Plot, DrawsBothFilesOrSaysWhyNot) {
  Folder folder;
  const LossPlot plot{folder.path(), "Mamba-1 on it's text", "nats/byte"};
  EXPECT_FALSE(draw_losses({}, plot).empty());
  const std::string note = draw_losses(sample_metrics(900), plot);
  if (::access("/usr/bin/gnuplot", X_OK) != 0) {
    EXPECT_NE(note.find("gnuplot"), std::string::npos);
    GTEST_SKIP() << "gnuplot is not installed";
  }
  EXPECT_EQ(note, "");
  EXPECT_EQ(read_text_file(folder.file("loss.png")).substr(1, 3), "PNG");
  EXPECT_NE(read_text_file(folder.file("loss.svg")).find("nats/byte"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder.file(".loss.png.tmp")));
  if (const char* keep = std::getenv("ADDER_KEEP_PLOT")) {
    fs::copy_file(folder.file("loss.png"), keep, fs::copy_options::overwrite_existing);
  }
  const LossPlot nowhere{folder.file("gone"), "t", "nats/byte"};
  EXPECT_FALSE(draw_losses(sample_metrics(10), nowhere).empty());
}

TEST(RunFolder, OneRunAtATime) {
  Folder folder;
  const RunLock lock(folder.file("out"));
  EXPECT_THROW(RunLock(folder.file("out")), Error);
  EXPECT_NO_THROW(refuse_existing_run(folder.file("out")));
}

TEST(Recipe, ChangesAreRefusedByName) {
  JsonValue before = JsonValue::object(), after = JsonValue::object();
  before.set("train.lr", 1e-3).set("train.steps", 10).set("log.every", 1);
  after.set("train.lr", 1e-3).set("train.steps", 20).set("log.every", 5);
  const std::vector<std::string> may = {"train.steps", "log.*"};
  EXPECT_NO_THROW(refuse_changed_recipe(before, after, may, "checkpoint"));
  before.set("model.dt_limit_max", parse_json("{\"__float__\": \"Infinity\"}", "test"));
  after.set("model.dt_limit_max", std::numeric_limits<double>::infinity());
  EXPECT_NO_THROW(refuse_changed_recipe(before, after, may, "checkpoint"));
  after.set("train.lr", 2e-3);
  try {
    refuse_changed_recipe(before, after, may, "checkpoint");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("'train.lr'"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace adder
