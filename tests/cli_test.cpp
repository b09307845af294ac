// The command line as a user meets it: help, errors, exit codes, output that can be read by
// machines.
#include "formats/token_shard.h"
#include "run_adder.h"
#include "tensor_files.h"

namespace adder::tests {
namespace {

using Cli = AdderTest;

constexpr const char* kErrorPrefix = "adder: error: ";

void expect_error(const RunResult& result, int code, const std::string& part) {
  EXPECT_EQ(result.code, code) << result.err;
  EXPECT_EQ(result.err.rfind(kErrorPrefix, 0), 0u) << result.err;
  EXPECT_TRUE(contains(result.err, part)) << "wanted '" << part << "' in: " << result.err;
  EXPECT_TRUE(result.out.empty()) << result.out;
}

Tensors small_s6() {
  return {{"u", wave({1, 4, 3}, 0.7)},    {"dt", wave({1, 4, 3}, 0.3)},
          {"B", wave({1, 4, 1, 2}, 0.9)}, {"C", wave({1, 4, 1, 2}, 1.1)},
          {"A", filled({3, 2}, -0.5)},    {"D", filled({3}, 1)},
          {"gy", filled({1, 4, 3}, 1)},   {"softplus", filled({1}, 1)}};
}

TEST_F(Cli, HelpAndVersion) {
  const RunResult help = run({"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_TRUE(help.err.empty());
  for (const char* command : {"op", "bench", "info", "tokenize"}) {
    EXPECT_TRUE(contains(help.out, command)) << help.out;
    const RunResult own = run({command, "--help"});
    EXPECT_EQ(own.code, 0);
    EXPECT_TRUE(contains(own.out, "--json")) << command;
  }
  const RunResult version = run({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_EQ(version.out.rfind("adder ", 0), 0u) << version.out;
}

TEST_F(Cli, WrongUsageIsTwo) {
  expect_error(run({}), 2, "a command is required");
  expect_error(run({"bnech"}), 2, "did you mean 'bench'?");
  expect_error(run({"zzzzzz"}), 2, "unknown command 'zzzzzz'");
  expect_error(run({"--nonsense"}), 2, "--nonsense");
  expect_error(run({"op"}), 2, "NAME");
  expect_error(run({"op", "s6", "--input", "x"}), 2, "--output");
  expect_error(run({"op", "s6", "--input", "x", "--output", "y", "--bogus"}), 2, "--bogus");
  expect_error(run({"op", "s6", "--input", "x", "--output", "y", "--threads", "0"}), 2,
               "--threads");
  expect_error(run({"op", "s66", "--input", "x", "--output", "y"}), 2, "did you mean s6?");
  expect_error(run({"op", "s6", "--input", "x", "--output", "y", "--dtype", "f33"}), 2, "f33");
  expect_error(run({"bench", "sx"}), 2, "unknown family");
  expect_error(run({"bench", "s6", "--filter", "no such row"}), 2, "nothing to measure");
  expect_error(run({"bench", "s6", "--simd", "MMX"}), 2, "MMX");
  expect_error(run({"tokenize", "--input", "x", "--output", "y", "--format", "doc"}), 2, "doc");
  write_tensors(path("in.safetensors"), small_s6(), {"softplus"});
  expect_error(run({"op", "s6", "--input", path("in.safetensors"), "--output", path("out"),
                    "--impl", "quantum"}),
               2, "reference");
}

TEST_F(Cli, MissingAndBrokenFilesAreOne) {
  expect_error(run({"op", "s6", "--input", path("no.safetensors"), "--output", path("out")}), 1,
               "no.safetensors");
  expect_error(run({"info", path("no-model")}), 1, "no-model");
  expect_error(run({"tokenize", "--input", path("no.txt"), "--output", path("out")}), 1, "no.txt");
  write_file(path("torn.safetensors"), std::string("\x40\0\0\0\0\0\0\0{\"u\":", 13));
  expect_error(run({"op", "s6", "--input", path("torn.safetensors"), "--output", path("out")}), 1,
               "torn.safetensors");
  expect_error(run({"info", path("torn.safetensors")}), 1, "torn.safetensors");
  write_tensors(path("in.safetensors"), small_s6(), {"softplus"});
  expect_error(run({"op", "s6", "--input", path("in.safetensors"), "--output", path("no/dir/out")}),
               1, "no/dir");
  EXPECT_FALSE(std::filesystem::exists(path("out")));
}

TEST_F(Cli, WrongShapesNameTensorExpectedAndGot) {
  struct Case {
    const char* name;
    Tensor tensor;
    std::vector<const char*> parts;
  };
  const Case cases[] = {
      {"D", filled({4}, 1), {"'D'", "expected [3]", "got [4]"}},
      {"dt", filled({1, 5, 3}, 1), {"'dt'", "expected [1, 4, 3]", "got [1, 5, 3]"}},
      {"A", filled({3, 5}, -1), {"'B'", "[1, 4, 1, 5]", "[1, 4, 1, 2]"}},
      {"u", filled({4, 3}, 1), {"'u'", "[batch, len, dim]", "[4, 3]"}},
      {"h0", filled({2, 3, 2}, 1), {"'h0'", "[1, 3, 2]", "[2, 3, 2]"}},
      {"softplus", filled({1}, 2), {"'softplus'", "0 or 1", "2"}},
      {"u", filled({0, int64_t{1} << 41, 3}, 0), {"'u'", "too large"}},
      {"dt_limit", {{2}, {0.5, 0.1}}, {"'dt_limit'", "low <= high"}},
      {"cu_seqlens", {{3}, {0, 3, 2}}, {"'cu_seqlens'", "ascending from 0 to the length 4"}},
      {"B", filled({1, 4, 2, 2}, 1), {"groups"}},
  };
  for (const Case& one : cases) {
    Tensors in = small_s6();
    in[one.name] = one.tensor;
    if (std::string(one.name) == "B") in["C"] = one.tensor;
    write_tensors(path("in.safetensors"), in, {"softplus", "cu_seqlens"});
    const RunResult result = run({"op", "s6", "--input", path("in.safetensors"), "--output",
                                  path("out.safetensors"), "--grads"});
    for (const char* part : one.parts) expect_error(result, 1, part);
    EXPECT_FALSE(std::filesystem::exists(path("out.safetensors"))) << one.name;
  }
}

TEST_F(Cli, MissingTensorsAndGradients) {
  Tensors in = small_s6();
  in.erase("gy");
  write_tensors(path("in.safetensors"), in, {"softplus"});
  expect_error(
      run({"op", "s6", "--input", path("in.safetensors"), "--output", path("out"), "--grads"}), 1,
      "gy or ghT");
  in = small_s6();
  in.erase("C");
  write_tensors(path("in.safetensors"), in, {"softplus"});
  expect_error(run({"op", "s6", "--input", path("in.safetensors"), "--output", path("out")}), 1,
               "'C'");
}

TEST_F(Cli, AMisspelledOptionIsNotSilent) {
  Tensors in = small_s6();
  in["dt_bais"] = filled({3}, 0.1);
  write_tensors(path("in.safetensors"), in, {"softplus"});
  const RunResult result =
      run({"op", "s6", "--input", path("in.safetensors"), "--output", path("out.safetensors")});
  EXPECT_EQ(result.code, 0);
  EXPECT_TRUE(contains(result.err, "adder: note: ")) << result.err;
  EXPECT_TRUE(contains(result.err, "did you mean 'dt_bias'?")) << result.err;
}

TEST_F(Cli, OpJson) {
  write_tensors(path("in.safetensors"), small_s6(), {"softplus"});
  const RunResult result = run({"op", "s6", "--input", path("in.safetensors"), "--output",
                                path("out.safetensors"), "--grads", "--json", "--dtype", "f32"});
  ASSERT_EQ(result.code, 0) << result.err;
  const JsonValue json = parse_json(result.out, "stdout");
  EXPECT_EQ(json.find("op")->as_string(), "s6");
  EXPECT_EQ(json.find("dtype")->as_string(), "f32");
  EXPECT_EQ(json.find("lines")->as_array().size(), 2u);  // forward and backward
  const SafetensorsFile file(path("out.safetensors"));
  EXPECT_EQ(json.find("tensors")->as_array().size(), file.names().size());
  EXPECT_TRUE(file.has("d_A"));
  EXPECT_FALSE(file.has("d_z"));
}

TEST_F(Cli, ClosedOutputsDoNotCrash) {
  EXPECT_LE(run({"info", "kernels"}, ">&-").code, 1);
  EXPECT_LE(run({"info", "kernels"}, "| head -c 10 >/dev/null").code, 1);
  EXPECT_LE(run({"--help"}, "| true").code, 1);
  const RunResult full = run({"info", "kernels"}, ">/dev/full");
  EXPECT_EQ(full.code, 1);
  EXPECT_TRUE(contains(full.err, "standard output")) << full.err;
}

TEST_F(Cli, InfoKernels) {
  const RunResult text = run({"info", "kernels"});
  EXPECT_EQ(text.code, 0);
  EXPECT_TRUE(contains(text.out, "s6"));
  const RunResult result = run({"info", "kernels", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const JsonValue json = parse_json(result.out, "stdout");
  std::set<std::string> families;
  for (const JsonValue& row : json.find("kernels")->as_array()) {
    families.insert(row.find("family")->as_string());
    EXPECT_FALSE(row.find("name")->as_string().empty());
    EXPECT_FALSE(row.find("directions")->as_array().empty()) << row.find("name")->as_string();
    EXPECT_GE(row.find("exact_class")->as_int(), 0);
  }
  for (const char* family : {"s6", "conv1d", "norm", "gemm", "embed", "loss", "optim", "sample"}) {
    EXPECT_EQ(families.count(family), 1u) << family;
  }
  // Every family of the list can be measured under the same name.
  const RunResult unknown = run({"bench", "nosuch"});
  for (const std::string& family : families) {
    EXPECT_TRUE(contains(unknown.err, family)) << family << " in: " << unknown.err;
  }
}

TEST_F(Cli, InfoModel) {
  const RunResult result = run({"info", golden_path("models_hf/mamba_base"), "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const JsonValue json = parse_json(result.out, "stdout");
  EXPECT_EQ(json.find("config")->find("model_type")->as_string(), "mamba");
  const SafetensorsFile file(golden_path("models_hf/mamba_base/model.safetensors"));
  int64_t elements = 0;
  for (const auto& [name, info] : file.tensors()) elements += info.elements();
  EXPECT_EQ(json.find("parameters")->as_int(), elements);
  EXPECT_EQ(json.find("tensors")->as_array().size(), file.names().size());

  const RunResult text = run({"info", golden_path("models_hf/mamba_base/model.safetensors")});
  EXPECT_EQ(text.code, 0);
  EXPECT_TRUE(contains(text.out, fmt::format("{} parameters", elements))) << text.out;
}

TEST_F(Cli, TokenizeTextJsonlAndTsv) {
  write_file(path("a.txt"), "ab\xff");
  write_file(path("b.txt"), "c");
  const std::string shard = path("out.tokens");
  RunResult result =
      run({"tokenize", "--input", path("a.txt"), path("b.txt"), "--output", shard, "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(parse_json(result.out, "stdout").find("tokens")->as_int(), 4);
  {
    const TokenShard tokens(shard);
    ASSERT_EQ(tokens.count(), 4);
    EXPECT_EQ(tokens.at(2), 0xff);
    EXPECT_EQ(tokens.at(3), 'c');
    EXPECT_EQ(tokens.info().documents, 2);
    EXPECT_EQ(tokens.info().vocab_size, 256);
  }
  write_file(path("c.jsonl"), "{\"text\": \"xy\"}\n{\"text\": \"z\"}\n");
  result = run({"tokenize", "--input", path("c.jsonl"), "--output", shard, "--separator"});
  ASSERT_EQ(result.code, 0) << result.err;
  {
    const TokenShard tokens(shard);
    ASSERT_EQ(tokens.count(), 5);
    EXPECT_EQ(tokens.at(2), 256);
    EXPECT_EQ(tokens.info().vocab_size, 257);
  }
  write_file(path("d.data"), "label\ttext\n1\thello\n");
  result = run({"tokenize", "--input", path("d.data"), "--output", shard, "--format", "tsv",
                "--column", "1", "--skip-header"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(TokenShard(shard).count(), 5);
}

TEST_F(Cli, TokenizeRefusesBadText) {
  const std::string shard = path("out.tokens");
  write_file(path("empty.txt"), "");
  expect_error(run({"tokenize", "--input", path("empty.txt"), "--output", shard}), 1, "empty.txt");
  write_file(path("bad.jsonl"), "{\"text\": \"ok\"}\n{\"text\": \"\xff\"}\n");
  expect_error(run({"tokenize", "--input", path("bad.jsonl"), "--output", shard}), 1,
               "bad.jsonl:2");
  write_file(path("other.jsonl"), "{\"words\": \"ok\"}\n");
  expect_error(run({"tokenize", "--input", path("other.jsonl"), "--output", shard}), 1,
               "other.jsonl:1");
  EXPECT_FALSE(std::filesystem::exists(shard)) << "a failed run left a shard behind";
}

TEST_F(Cli, BenchPrintsCheckedRows) {
  const RunResult result =
      run({"bench", "conv1d", "--filter", "f32", "--filter", "forward", "--json", "--threads", "1",
           "--min-time", "0.001", "--no-reference"});
  ASSERT_EQ(result.code, 0) << result.err;
  std::istringstream lines(result.out);
  std::string line;
  int rows = 0, ceilings = 0;
  while (std::getline(lines, line)) {
    const JsonValue json = parse_json(line, "stdout");
    EXPECT_FALSE(json.find("commit")->as_string().empty());
    if (json.find("kind")->as_string() == "ceilings") {
      ++ceilings;
      continue;
    }
    EXPECT_EQ(json.find("family")->as_string(), "conv1d");
    EXPECT_TRUE(json.find("passed")->as_bool());
    EXPECT_GT(json.find("median_us")->as_double(), 0);
    EXPECT_GT(json.find("percent_of_floor")->as_double(), 0);
    ++rows;
  }
  EXPECT_EQ(ceilings, 1);
  EXPECT_GT(rows, 0);
}

}  // namespace
}  // namespace adder::tests
