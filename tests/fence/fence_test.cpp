// The product behind the fence: what the program prints and writes is what it does without one, and
// a host read of the memory of the device, planted into the same runs, ends them.
#include <csignal>

#include "formats/safetensors.h"
#include "tensor_files.h"
#include "train_runs.h"

namespace adder::tests {
namespace {

constexpr int64_t kSteps = 6;

struct Kind {
  const char* name;
  std::vector<std::string> settings;
};
void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

const Kind kKinds[] = {
    {"mamba1_f32", {"arch=mamba1"}},
    {"mamba1_bf16", {"arch=mamba1", "train.precision=bf16"}},
    {"mamba2_f32", {"arch=mamba2", "headdim=16", "d_intermediate=100", "rms_norm=false"}},
    {"mamba2_bf16", {"arch=mamba2", "headdim=16", "train.precision=bf16"}},
};

class FenceProduct : public TrainRuns, public testing::WithParamInterface<Kind> {
 protected:
  // Exit code and output of the program as it is and of the fenced one must be the same.
  RunResult run_both(const std::vector<std::string>& arguments) {
    const RunResult plain = run(arguments);
    const RunResult fenced = run_fenced(arguments);
    EXPECT_EQ(plain.code, 0) << plain.err;
    EXPECT_EQ(fenced.code, 0) << fenced.err;
    EXPECT_EQ(plain.out, fenced.out);
    return fenced;
  }
  RunResult run_fenced(const std::vector<std::string>& arguments, int64_t plant = 0) const {
    return run_binary(ADDER_FENCED_BINARY, arguments,
                      plant > 0 ? fmt::format("ADDER_FENCE_PLANT={}", plant) : "");
  }
  // The same call is ended by a planted read, early and late in it.
  void expect_caught(const std::vector<std::string>& arguments) const {
    for (const int64_t plant : {1, 5}) {
      const RunResult result = run_fenced(arguments, plant);
      EXPECT_TRUE(is_segmentation_fault(result))
          << "line " << plant << ": exit " << result.code << "\n"
          << result.err;
    }
  }
  // A sanitizer reports the signal and exits by itself.
  static bool is_segmentation_fault(const RunResult& result) {
    return result.code == 128 + SIGSEGV ||
           (result.code != 0 && contains(result.err, "SEGV on unknown address"));
  }
  std::vector<std::string> settings(std::vector<std::string> more = {}) const {
    for (const std::string& setting : GetParam().settings) {
      more.insert(more.end(), {"--set", setting});
    }
    return more;
  }
  std::string dtype() const { return contains(GetParam().name, "bf16") ? "bf16" : "f32"; }
};

TEST_P(FenceProduct, TrainsResumesEvaluatesAndGenerates) {
  const std::string recipe = write_recipe("recipe.toml", kSteps);
  ASSERT_EQ(run_train(recipe, "plain", settings()).code, 0) << read_file(path("stderr.txt"));
  // Behind the fence the run is killed at its first checkpoint and resumed, with the same bits.
  const auto fenced_train = [&](const std::vector<std::string>& more) {
    return train(recipe, "fenced", settings(more));
  };
  {
    Child::Options options = child_options();
    options.binary = ADDER_FENCED_BINARY;
    Child child(fenced_train({}), options);
    while (find_checkpoints(checkpoints("fenced")).empty()) {
      ASSERT_FALSE(child.wait_for(0.002)) << read_file(path("stderr.txt"));
    }
    child.send(SIGKILL);
    ASSERT_EQ(child.wait(), 128 + SIGKILL);
  }
  const RunResult resumed = run_fenced(fenced_train({"--resume"}));
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(fingerprint("fenced"), fingerprint("plain"));
  expect_whole_metrics("fenced", kSteps);
  expect_caught(train(recipe, "caught", settings()));

  const std::string model = path("plain") + "/model";
  write_file(path("text"), "Some text to be scored, as bytes.");
  for (const char* window : {"0", "7"}) {
    const RunResult eval = run_fenced({"eval", "--model", model, "--data", path("text"),
                                       "--seq-len", window, "--dtype", dtype(), "--json"});
    ASSERT_EQ(eval.code, 0) << eval.err;
    const RunResult plain = run({"eval", "--model", model, "--data", path("text"), "--seq-len",
                                 window, "--dtype", dtype(), "--json"});
    for (const char* key : {"nats_per_token", "tokens"}) {
      EXPECT_EQ(*parse_json(eval.out, "").find(key), *parse_json(plain.out, "").find(key));
    }
  }
  for (const char* penalty : {"1", "1.3"}) {
    run_both({"generate", "--model", model, "--prompt", "Some", "-n", "12", "--seed", "4",
              "--repetition-penalty", penalty, "--dtype", dtype()});
  }
  expect_caught({"generate", "--model", model, "--prompt", "Some", "-n", "4"});
}

TEST_P(FenceProduct, WritesLogitsAndGradients) {
  const std::string recipe = write_recipe("recipe.toml", 1);
  ASSERT_EQ(run_train(recipe, "run", settings()).code, 0) << read_file(path("stderr.txt"));
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < 40; ++i) ids.push_back(i * 7 % 256);
  write_safetensors(path("ids"), {tensor_source("input_ids", {2, 20}, ids.data())});
  const auto logits = [&](const std::string& output) {
    return std::vector<std::string>{"logits",    "--model",  path("run") + "/model", "--input",
                                    path("ids"), "--output", path(output),           "--grads",
                                    "--dtype",   dtype()};
  };
  ASSERT_EQ(run(logits("plain")).code, 0) << read_file(path("stderr.txt"));
  const RunResult fenced = run_fenced(logits("fenced"));
  ASSERT_EQ(fenced.code, 0) << fenced.err;
  EXPECT_EQ(read_file(path("plain")), read_file(path("fenced")));
  expect_caught(logits("caught"));
}
INSTANTIATE_TEST_SUITE_P(fence_models, FenceProduct, testing::ValuesIn(kKinds),
                         [](const auto& which) { return std::string(which.param.name); });

class FenceTools : public FenceProduct {};

TEST_P(FenceTools, RunsOperators) {
  write_tensors(
      path("conv1d"),
      {{"x", wave({2, 9, 5}, 0.7)}, {"w", wave({5, 4}, 0.3)}, {"gy", wave({2, 9, 5}, 1.1)}});
  const std::pair<const char*, std::string> operators[] = {
      {"s6", golden_path("ops_f64/s6_0.safetensors")},
      {"ssd", golden_path("ops_f64/ssd_0.safetensors")},
      {"conv1d", path("conv1d")}};
  for (const auto& [name, input] : operators) {
    const auto op = [&, operation = name, file = input](const std::string& output) {
      return std::vector<std::string>{"op",         operation, "--input", file,   "--output",
                                      path(output), "--grads", "--dtype", dtype()};
    };
    ASSERT_EQ(run(op("plain")).code, 0) << name << read_file(path("stderr.txt"));
    const RunResult fenced = run_fenced(op("fenced"));
    ASSERT_EQ(fenced.code, 0) << name << fenced.err;
    EXPECT_EQ(read_file(path("plain")), read_file(path("fenced"))) << name;
    EXPECT_TRUE(is_segmentation_fault(run_fenced(op("caught"), 1))) << name;
  }
}

TEST_P(FenceTools, Measures) {
  for (const auto& [family, filter] : {std::pair("s6", "len 1 dim 1536"), {"train", "mamba2"}}) {
    const std::vector<std::string> bench = {"bench",     family, "--filter",       dtype(),
                                            "--filter",  filter, "--min-time",     "0",
                                            "--threads", "2",    "--no-reference", "--json"};
    const RunResult result = run_fenced(bench);
    EXPECT_EQ(result.code, 0) << family << result.err;
    EXPECT_TRUE(contains(result.out, "median_us")) << result.out;
    if (family == std::string("s6")) EXPECT_TRUE(is_segmentation_fault(run_fenced(bench, 3)));
  }
}
INSTANTIATE_TEST_SUITE_P(fence_types, FenceTools, testing::Values(kKinds[0], kKinds[1]),
                         [](const auto& which) { return std::string(which.param.name); });

}  // namespace
}  // namespace adder::tests
