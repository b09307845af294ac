// Mamba-2 through the real binary: train, resume after kill -9, info, eval, logits, generate; in
// the layout of transformers where that can say it, else in Adder's own.
#include <cmath>

#include "formats/safetensors.h"
#include "train_runs.h"

namespace adder::tests {
namespace {

constexpr int64_t kSteps = 20;

/// Small models: the options of the second cannot be said in the layout of transformers.
struct Variant {
  const char* name;
  std::vector<std::string> settings;
  const char* note;  // why not the layout of transformers, or ""
};
void PrintTo(const Variant& which, std::ostream* out) { *out << which.name; }

const Variant kVariants[] = {
    {"heads", {"arch=mamba2", "headdim=16"}, ""},
    {"options",
     {"arch=mamba2", "headdim=16", "d_ssm=32", "ngroups=2", "d_has_hdim=true",
      "norm_before_gate=true", "d_intermediate=100", "rms_norm=false", "bias=true"},
     "an MLP after every mixer"},
};

class Mamba2Command : public TrainRuns, public testing::WithParamInterface<Variant> {
 protected:
  std::vector<std::string> settings(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words;
    for (const std::string& setting : GetParam().settings) {
      words.insert(words.end(), {"--set", setting});
    }
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
};

TEST_P(Mamba2Command, ResumesAfterAKillWithTheVeryBits) {
  const std::string recipe = write_recipe("recipe.toml", kSteps);
  ASSERT_EQ(run_train(recipe, "whole", settings()).code, 0) << read_file(path("stderr.txt"));
  const auto expected = fingerprint("whole");
  ASSERT_GT(expected.size(), 10u);
  {
    Child child(train(recipe, "killed", settings({"--threads", "2"})), child_options());
    // At least one checkpoint, then no mercy.
    while (find_checkpoints(checkpoints("killed")).empty()) {
      ASSERT_FALSE(child.wait_for(0.002)) << read_file(path("stderr.txt"));
    }
    child.send(SIGKILL);
    ASSERT_EQ(child.wait(), 128 + SIGKILL);
  }
  ASSERT_EQ(run_train(recipe, "killed", settings({"--resume"})).code, 0);
  EXPECT_EQ(fingerprint("killed"), expected);
  expect_whole_metrics("killed", kSteps);
  // The comparison can go red.
  ASSERT_EQ(run_train(recipe, "other", settings({"--set", "a_init_max=8"})).code, 0);
  EXPECT_NE(fingerprint("other"), expected);
}

TEST_P(Mamba2Command, ATrainedModelIsShownScoredAndContinued) {
  const std::string recipe = write_recipe("recipe.toml", kSteps);
  const RunResult trained = run_train(recipe, "out", settings({"--json"}));
  ASSERT_EQ(trained.code, 0) << trained.err;
  const JsonValue result = parse_json(trained.out, "stdout");
  EXPECT_LT(result.find("val_loss")->as_double(), std::log(256.0));
  const std::string model = path("out") + "/model";
  const std::string note = GetParam().note;
  EXPECT_TRUE(contains(result.find("model_note")->as_string(), note));

  const RunResult info = run({"info", model, "--json"});
  ASSERT_EQ(info.code, 0) << info.err;
  const JsonValue shown = parse_json(info.out, "stdout");
  EXPECT_EQ(shown.find("layout")->as_string(), note.empty() ? "hf" : "adder");
  EXPECT_EQ(shown.find("parameters")->as_int(), result.find("parameters")->as_int());

  write_file(path("text"), "Some text to be scored.");
  const RunResult eval = run({"eval", "--model", model, "--data", path("text"), "--json"});
  ASSERT_EQ(eval.code, 0) << eval.err;
  const double nats = parse_json(eval.out, "stdout").find("nats_per_token")->as_double();

  const std::string text = read_file(path("text"));
  std::vector<int64_t> ids(text.begin(), text.end());
  const auto len = static_cast<int64_t>(ids.size());
  write_safetensors(path("ids"), {tensor_source("input_ids", {1, len}, ids.data())});
  const RunResult logits = run({"logits", "--model", model, "--input", path("ids"), "--output",
                                path("logits"), "--dtype", "f64", "--grads"});
  ASSERT_EQ(logits.code, 0) << logits.err;
  const SafetensorsFile file(path("logits"));
  double loss = 0;
  file.read_as("loss", &loss);
  EXPECT_NEAR(loss, nats, 1e-5 * nats);
  EXPECT_TRUE(file.has("grad.backbone.layers.1.mixer.A_log"));
  EXPECT_TRUE(file.has("grad.backbone.layers.0.mixer.dt_bias"));

  // Greedy text is the argmax of the logits, token by token.
  const RunResult greedy =
      run({"generate", "--model", model, "--ids", "83,111,109", "-n", "1", "--temperature", "0"});
  ASSERT_EQ(greedy.code, 0) << greedy.err;
  std::vector<double> scores(static_cast<size_t>(len * 256));
  file.read_as("logits", scores.data());
  const auto row = scores.begin() + 2 * 256;
  EXPECT_EQ(greedy.out, std::to_string(std::max_element(row, row + 256) - row) + "\n");
  const RunResult sampled =
      run({"generate", "--model", model, "--prompt", "Some", "-n", "30", "--seed", "4"});
  EXPECT_EQ(sampled.code, 0) << sampled.err;
  EXPECT_EQ(run({"generate", "--model", model, "--prompt", "Some", "-n", "30", "--seed", "4",
                 "--threads", "1"})
                .out,
            sampled.out);
}

INSTANTIATE_TEST_SUITE_P(Models, Mamba2Command, testing::ValuesIn(kVariants),
                         [](const auto& which) { return std::string(which.param.name); });

using Mamba2Golden = AdderTest;

template <class T = double>
std::vector<T> tensor(const SafetensorsFile& file, const std::string& name) {
  std::vector<T> values(static_cast<size_t>(file.info(name).elements()));
  file.read_as(name, values.data());
  return values;
}

// The answers of transformers, by `logits --grads` and by `generate`.
TEST_F(Mamba2Golden, LogitsGradientsAndGreedyText) {
  const std::string model = golden_path("models_hf/mamba2_base");
  const SafetensorsFile golden(model + "/golden.safetensors");
  const RunResult logits = run({"logits", "--model", model, "--input",
                                model + "/golden.safetensors", "--output", path("out"), "--grads"});
  ASSERT_EQ(logits.code, 0) << logits.err;
  const SafetensorsFile file(path("out"));
  int compared = 0;
  for (const std::string& name : golden.names()) {
    if (name != "logits" && name != "loss" && !name.starts_with("grad.")) continue;
    const std::vector<double> expected = tensor(golden, name), got = tensor(file, name);
    ASSERT_EQ(got.size(), expected.size()) << name;
    double scale = 0, worst = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      scale = std::max(scale, std::abs(expected[i]));
      worst = std::max(worst, std::abs(got[i] - expected[i]));
    }
    EXPECT_LE(worst, 1e-5 * scale) << name;  // that code's scan is float32 (golden/README.md)
    ++compared;
  }
  EXPECT_EQ(compared, 32);

  const auto greedy = tensor<int64_t>(golden, "greedy");
  std::string prompt, expected;
  for (size_t i = 0; i < greedy.size(); ++i) {
    std::string& list = i < 9 ? prompt : expected;
    if (!list.empty()) list += ',';
    list += std::to_string(greedy[i]);
  }
  const RunResult text =
      run({"generate", "--model", model, "--ids", prompt, "-n", "24", "--temperature", "0"});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_EQ(text.out, expected + "\n");
}

using Mamba2Recipe = TrainRuns;

// Without a recipe, arch=mamba2 runs the recipe of that architecture.
TEST_F(Mamba2Recipe, TheArchitectureChoosesTheDefaultRecipe) {
  const RunResult trained =
      run({"train", "--set", "arch=mamba2", "--set", "steps=1", "--set", "batch=1", "--set",
           "len=16", "--set", "n_layer=1", "--set", "sample=false", "--set", "plot=false", "--data",
           path("text.txt"), "--out", path("out")});
  ASSERT_EQ(trained.code, 0) << trained.err;
  const std::string recipe = read_file(path("out") + "/config.toml");
  for (const char* line : {"arch = \"mamba2\"", "d_state = 64", "headdim = 64", "n_layer = 1"}) {
    EXPECT_TRUE(contains(recipe, line)) << line << "\n" << recipe;
  }
}

TEST_F(Mamba2Recipe, SizesThatDoNotFitNameTheKey) {
  const auto refused = [&](const std::string& setting, const std::string& key,
                           const std::string& expected) {
    const RunResult result = run({"train", "--set", "arch=mamba2", "--set", setting, "--data",
                                  path("text.txt"), "--out", path("out")});
    EXPECT_EQ(result.code, 1) << setting;
    EXPECT_TRUE(contains(result.err, key)) << result.err;
    EXPECT_TRUE(contains(result.err, expected)) << result.err;
  };
  refused("headdim=48", "headdim", "a divisor of d_ssm 512");
  refused("ngroups=3", "ngroups", "a divisor of the number of heads 8");
  refused("d_ssm=576", "d_ssm", "1 to 512");
  refused("norm_groups=7", "norm_groups", "a divisor of d_ssm 512");
}

}  // namespace
}  // namespace adder::tests
