// `adder train` as a user meets it: what a run leaves, resuming, Ctrl-C, a full disk, broken
// checkpoints, wrong recipes.
#include <chrono>
#include <thread>

#include "formats/token_shard.h"
#include "train_runs.h"

namespace adder::tests {
namespace {

using TrainCommand = TrainRuns;
namespace fs = std::filesystem;

void expect_error(const RunResult& result, int code, const std::vector<std::string>& parts) {
  EXPECT_EQ(result.code, code) << result.err;
  EXPECT_TRUE(contains(result.err, "adder: error: ")) << result.err;
  for (const std::string& part : parts) {
    EXPECT_TRUE(contains(result.err, part)) << "wanted '" << part << "' in: " << result.err;
  }
}

void flip_a_byte(const std::string& path) {
  std::string bytes = read_file(path);
  const size_t middle = bytes.size() / 2;
  bytes[middle] = static_cast<char>(bytes[middle] ^ 0x10);
  write_file(path, bytes);
}

TEST_F(TrainCommand, LeavesEverythingItPromises) {
  const std::string recipe = write_recipe("recipe.toml", 20);
  const RunResult result = run_train(recipe, "out", {"--json", "--set", "plot=true"});
  ASSERT_EQ(result.code, 0) << result.err;
  const JsonValue json = parse_json(result.out, "stdout");
  EXPECT_EQ(json.find("step")->as_int(), 20);
  EXPECT_TRUE(json.find("finished")->as_bool());
  EXPECT_GT(json.find("val_loss")->as_double(), 0);
  for (const char* name :
       {"config.toml", "metrics.jsonl", "sample.txt", "events.out.tfevents.adder", "result.json",
        "model/config.json", "model/model.safetensors", "model/generation_config.json"}) {
    EXPECT_GT(fs::file_size(path("out") + "/" + name), 0u) << name;
  }
  if (json.find("plot_note")->as_string().empty()) {
    EXPECT_GT(fs::file_size(path("out") + "/loss.svg"), 0u);
    EXPECT_GT(fs::file_size(path("out") + "/loss.png"), 0u);
  }
  expect_whole_metrics("out", 20);
  const auto kept = find_checkpoints(checkpoints("out"));
  EXPECT_GE(kept.size(), 2u);
  EXPECT_LE(kept.size(), 3u);
  EXPECT_EQ(kept.front().step, 20);
  std::istringstream lines(read_file(path("out") + "/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const JsonValue record = parse_json(line, "metrics.jsonl");
    const bool validated = record.find("step")->as_int() % 10 == 0;
    EXPECT_EQ(record.find("val_loss")->is_null(), !validated) << line;
    EXPECT_EQ(record.find("tokens")->as_int(), 64 * record.find("step")->as_int());
  }
}

TEST_F(TrainCommand, AFinishedRunOnlyReports) {
  const std::string recipe = write_recipe("recipe.toml", 12);
  ASSERT_EQ(run_train(recipe, "out").code, 0);
  const auto before = fingerprint("out");
  const auto time = fs::last_write_time(path("out") + "/metrics.jsonl");
  const RunResult again = run_train(recipe, "out", {"--resume"});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_TRUE(contains(again.out, "validation loss")) << again.out;
  EXPECT_EQ(fingerprint("out"), before);
  EXPECT_EQ(fs::last_write_time(path("out") + "/metrics.jsonl"), time);
  // Without --resume it is not overwritten; with more steps it goes on, by its own recipe.
  expect_error(run_train(recipe, "out"), 1, {"holds a run already", "--resume"});
  const RunResult more = run({"train", "--resume", "--out", path("out"), "--set", "steps=15"});
  EXPECT_EQ(more.code, 0) << more.err;
  expect_whole_metrics("out", 15);
}

TEST_F(TrainCommand, ResumeRefusesAnotherRecipeByKey) {
  const std::string recipe = write_recipe("recipe.toml", 12);
  ASSERT_EQ(run_train(recipe, "out").code, 0);
  expect_error(run_train(recipe, "out", {"--resume", "--set", "lr=1e-3", "--set", "steps=20"}), 1,
               {"'train.lr'", "expected 0.01, got 0.001"});
  expect_error(run_train(recipe, "out", {"--resume", "--set", "d_state=8"}), 1,
               {"'model.d_state'"});
  write_file(path("text.txt"), std::string(6000, 'x'));
  fs::remove_all(path("out") + "/data");
  expect_error(run_train(recipe, "out", {"--resume", "--set", "steps=20"}), 1,
               {"the data is not that of the run"});
  EXPECT_TRUE(contains(read_file(path("out") + "/config.toml"), "steps = 12"));
}

TEST_F(TrainCommand, ResumesWithoutItsText) {
  const std::string recipe = write_recipe("recipe.toml", 12);
  ASSERT_EQ(run_train(recipe, "out").code, 0);
  fs::remove(path("text.txt"));
  EXPECT_EQ(run_train(recipe, "out", {"--resume", "--set", "steps=15"}).code, 0);
}

TEST_F(TrainCommand, CtrlCSavesAndResumesTheVeryBits) {
  const std::string recipe = write_recipe("recipe.toml", 200, 0);
  ASSERT_EQ(run_train(recipe, "whole").code, 0);
  for (const int signal : {SIGINT, SIGTERM}) {
    const std::string out = fmt::format("out{}", signal);
    Child child(train(recipe, out), child_options());
    const auto begin = std::chrono::steady_clock::now();
    while (read_file(path(out) + "/metrics.jsonl").empty()) {
      ASSERT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    child.send(signal);
    ASSERT_EQ(child.wait(), 130) << read_file(path("stderr.txt"));
    EXPECT_TRUE(contains(read_file(path("stderr.txt")), "--resume --out " + path(out)));
    const auto saved = find_checkpoints(checkpoints(out));
    ASSERT_FALSE(saved.empty());
    EXPECT_LT(saved.front().step, 200);
    ASSERT_EQ(run({"train", "--resume", "--out", path(out)}).code, 0);
    EXPECT_EQ(fingerprint(out), fingerprint("whole"));
    expect_whole_metrics(out, 200);
  }
}

TEST_F(TrainCommand, ASecondCtrlCDoesNotWait) {
  // One step of this takes far longer than the test waits.
  const std::string recipe = write_recipe("recipe.toml", 200, 0);
  Child child(
      train(recipe, "out", {"--set", "batch=64", "--set", "len=512", "--set", "accumulation=500"}),
      child_options());
  std::this_thread::sleep_for(std::chrono::seconds(2));
  child.send(SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  child.send(SIGINT);
  const auto code = child.wait_for(5);
  ASSERT_TRUE(code.has_value()) << "it still runs";
  EXPECT_EQ(*code, 130);
}

TEST_F(TrainCommand, ABrokenCheckpointIsLeftAside) {
  const std::string recipe = write_recipe("recipe.toml", 12);
  ASSERT_EQ(run_train(recipe, "whole", {"--set", "steps=20"}).code, 0);
  ASSERT_EQ(run_train(recipe, "out", {"--set", "steps=20", "--set", "checkpoint_every=4"}).code, 0);
  for (const auto& file : find_checkpoints(checkpoints("out"))) {
    if (file.step == 20) flip_a_byte(file.path);
  }
  const RunResult resumed = run_train(recipe, "out", {"--resume", "--set", "steps=20"});
  EXPECT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_TRUE(contains(resumed.err, "warning: checkpoint left aside")) << resumed.err;
  EXPECT_EQ(fingerprint("out"), fingerprint("whole"));
  expect_whole_metrics("out", 20);

  for (const auto& file : find_checkpoints(checkpoints("out"))) flip_a_byte(file.path);
  const RunResult lost = run_train(recipe, "out", {"--resume", "--set", "steps=20"});
  expect_error(lost, 1, {"checkpoint"});
}

TEST_F(TrainCommand, AFullDiskCostsNoCheckpoint) {
  const std::string recipe = write_recipe("recipe.toml", 30, 5);
  ASSERT_EQ(run_train(recipe, "whole").code, 0);
  {
    Child child(train(recipe, "out"), child_options());
    while (find_checkpoints(checkpoints("out")).empty()) {
      ASSERT_FALSE(child.wait_for(0.001).has_value());
    }
    child.send(SIGKILL);
    child.wait();
  }
  const auto before = find_checkpoints(checkpoints("out"));
  ASSERT_FALSE(before.empty());
  const auto size = fs::file_size(before.front().path);
  for (const rlim_t limit : {size / 2, size - 1, uintmax_t{1}}) {
    Child::Options options = child_options();
    options.file_limit = limit;
    // stderr is a file, too: what it says is below every limit but the last.
    Child child(train(recipe, "out", {"--resume"}), options);
    EXPECT_EQ(child.wait(), 1);
    if (limit > 1) {
      const std::string said = read_file(path("stderr.txt"));
      EXPECT_TRUE(contains(said, "adder: error: ")) << said;
      EXPECT_TRUE(contains(said, "File too large")) << said;
    }
    EXPECT_TRUE(open_newest_valid(checkpoints("out")).has_value());
    EXPECT_FALSE(has_temporary("out"));
  }
  const RunResult resumed = run_train(recipe, "out", {"--resume"});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(fingerprint("out"), fingerprint("whole"));
}

TEST_F(TrainCommand, ASaveThatFailsDoesNotEndTheRun) {
  const std::string recipe = write_recipe("recipe.toml", 30);
  const std::vector<std::string> resume = {"--resume", "--set", "checkpoint_every=10"};
  for (const char* out : {"whole", "out", "ends"}) {
    ASSERT_EQ(run_train(recipe, out, {"--set", "steps=8"}).code, 0);
  }
  ASSERT_EQ(run_train(recipe, "whole", resume).code, 0);
  const auto model = [&](const char* out) {
    return read_file(path(out) + "/model/model.safetensors");
  };
  // A folder stands where a checkpoint should go.
  fs::create_directory(checkpoints("out") + "/" + checkpoint_name(10));
  const RunResult result = run_train(recipe, "out", resume);
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_TRUE(contains(result.err, "warning: checkpoint of step 10 not saved")) << result.err;
  EXPECT_TRUE(contains(result.err, "the run goes on")) << result.err;
  EXPECT_TRUE(model("out") == model("whole"));
  expect_whole_metrics("out", 30);
  // Without the last one the run could not go on from its end: that is an error.
  const std::string last = checkpoints("ends") + "/" + checkpoint_name(30);
  fs::create_directory(last);
  expect_error(run_train(recipe, "ends", resume), 1, {"last checkpoint", "cannot replace"});
  EXPECT_TRUE(model("ends") == model("whole"));  // the trained model is there all the same
  fs::remove(last);
  ASSERT_EQ(run_train(recipe, "ends", resume).code, 0);
  EXPECT_TRUE(model("ends") == model("whole"));
  expect_whole_metrics("ends", 30);
}

TEST_F(TrainCommand, FineTunesFromAModel) {
  const std::string recipe = write_recipe("recipe.toml", 12);
  ASSERT_EQ(run_train(recipe, "base").code, 0);
  const std::string model = path("base") + "/model";
  const std::vector<std::string> tune = {
      "train",          "--init", model,     "--out", path("tuned"),      "--data",
      path("text.txt"), "--set",  "steps=3", "--set", "freeze=*.mixer.*", "--set",
      "len=32",         "--set",  "batch=2", "--set", "plot=false"};
  // Nobody asked for the default recipe's [model], so it does not count.
  const RunResult other = run(tune);
  EXPECT_EQ(other.code, 0) << other.err;
  EXPECT_TRUE(contains(read_file(path("tuned") + "/config.toml"), "d_model = 32"));
  expect_error(run_train(recipe, "refused", {"--init", model, "--set", "d_state=16"}), 1,
               {"model.d_state", "expected 4, got 16"});
  expect_error(run_train(recipe, "refused", {"--init", path("nowhere")}), 1, {"nowhere"});
  expect_error(run_train(recipe, "refused", {"--set", "freeze=nothing"}), 1, {"nothing"});
}

TEST_F(TrainCommand, OtherInputs) {
  const std::string recipe = write_recipe("recipe.toml", 4);
  std::string jsonl;
  for (int i = 0; i < 60; ++i) jsonl += "{\"text\": \"a document of some words\"}\n";
  write_file(path("text.jsonl"), jsonl);
  const RunResult documents = run_train(recipe, "jsonl", {"--data", path("text.jsonl")});
  EXPECT_EQ(documents.code, 0) << documents.err;
  EXPECT_TRUE(contains(read_file(path("jsonl") + "/config.toml"), "vocab_size = 257"));

  ASSERT_EQ(run({"tokenize", "--input", path("text.txt"), "--output", path("text.tokens")}).code,
            0);
  const RunResult shard = run_train(recipe, "shard", {"--data", path("text.tokens")});
  EXPECT_EQ(shard.code, 0) << shard.err;
  ASSERT_EQ(run_train(recipe, "plain").code, 0);
  EXPECT_EQ(fingerprint("shard"), fingerprint("plain"));

  const RunResult apart =
      run_train(recipe, "apart",
                {"--set", "data.validation=" + path("text.tokens"), "--set", "log.sample=false"});
  EXPECT_EQ(apart.code, 0) << apart.err;
  const RunResult without = run_train(recipe, "without", {"--set", "validation_fraction=0"});
  EXPECT_EQ(without.code, 0) << without.err;
}

TEST_F(TrainCommand, MistakesAreNamed) {
  const std::string recipe = write_recipe("recipe.toml", 4);
  expect_error(run_train(recipe, "out", {"--device", "cuda"}), 1, {"no CUDA"});
  expect_error(run_train(recipe, "out", {"--device", "tpu"}), 2, {"cpu or cuda"});
  expect_error(run_train(recipe, "out", {"--set", "stepps=1"}), 1, {"did you mean 'train.steps'"});
  expect_error(run_train(recipe, "out", {"--set", "steps"}), 2, {"section.key=value"});
  expect_error(run_train(recipe, "out", {"--data", path("gone.txt")}), 1,
               {"gone.txt", "no such data file"});
  expect_error(run_train(path("gone.toml"), "out"), 1, {"gone.toml"});
  write_file(path("bad.toml"), "[train]\nsteps = 4\nlearning_rate = 1\n");
  expect_error(run_train(path("bad.toml"), "out"), 1, {"bad.toml:3", "train.learning_rate"});
  write_file(path("empty.txt"), "");
  expect_error(run_train(recipe, "out", {"--data", path("empty.txt")}), 1, {"empty.txt"});
  write_file(path("short.txt"), "abc");
  expect_error(run_train(recipe, "out", {"--data", path("short.txt")}), 1, {"too few tokens"});
  expect_error(run_train(recipe, "out", {"--set", "d_state=0"}), 1,
               {"--set d_state=0", "model.d_state"});
  expect_error(run_train(recipe, "out", {"--set", "vocab_size=100"}), 1,
               {"vocab_size", "at least 256"});
  write_file(path("file"), "");
  expect_error(run_train(recipe, "file"), 1, {"file"});
  const RunResult keys = run({"train", "--keys"});
  EXPECT_EQ(keys.code, 0);
  EXPECT_TRUE(contains(keys.out, "| `steps` | integer | `1000` |"));
}

TEST_F(TrainCommand, ALossThatStaysInfiniteEndsTheRun) {
  const std::string recipe = write_recipe("recipe.toml", 200);
  const RunResult result = run_train(
      recipe, "out",
      {"--set", "lr=1e38", "--set", "warmup=0", "--set", "clip=0", "--set", "sample=false"});
  expect_error(result, 1, {"50 steps in a row were not finite", "train.lr"});
  EXPECT_TRUE(contains(result.err, "skipped: loss")) << result.err;
}

}  // namespace
}  // namespace adder::tests
