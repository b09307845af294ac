// The inference subcommands through the real binary: what they print, and what they say of bad input.
// Every failure exits with 1 (2 for wrong usage), writes "adder: error: ..." and leaves no output.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>

#include "adder/adder.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "run_adder.h"

namespace adder::tests {
namespace {

namespace fs = std::filesystem;
const std::string kGolden = golden_path("models_hf/mamba_base");

class Command : public AdderTest {
 protected:
  void SetUp() override {
    AdderTest::SetUp();
    ModelSpec spec;
    spec.d_model = 16;
    spec.n_layer = 2;
    spec.d_state = 4;
    model_ = path("bytes");
    Model::create(spec, 1).save(model_);
    write_file(path("text"), "Some text to be scored, a line and no more.\n");
    write_ids("ids", {1, 4}, {1, 2, 3, 4});
  }

  void write_ids(const std::string& name, std::vector<int64_t> shape,
                 const std::vector<int64_t>& ids) const {
    write_safetensors(path(name), {tensor_source("input_ids", std::move(shape), ids.data())});
  }
  RunResult generate(std::vector<std::string> words, const std::string& redirect = "") const {
    words.insert(words.begin(), {"generate", "--model", model_});
    if (std::find(words.begin(), words.end(), "-n") == words.end()) {
      words.insert(words.end(), {"-n", "20"});
    }
    return run(words, redirect);
  }
  static void expect_error(const RunResult& outcome, int code, const std::string& says,
                           const std::string& about) {
    EXPECT_EQ(outcome.code, code) << about << "\n" << outcome.err;
    EXPECT_EQ(outcome.err.rfind("adder: error: ", 0), 0u) << about << "\n" << outcome.err;
    EXPECT_NE(outcome.err.find(says), std::string::npos) << about << "\n" << outcome.err;
    EXPECT_EQ(outcome.out, "") << about;
  }

  std::string model_;
};

TEST_F(Command, GenerateStreamsReproducibly) {
  const auto first = generate({"--prompt", "abc", "--seed", "4"});
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_FALSE(first.out.empty());
  EXPECT_TRUE(is_utf8(first.out));
  EXPECT_NE(first.err.find("tok/s"), std::string::npos);
  EXPECT_EQ(generate({"--prompt", "abc", "--seed", "4", "--threads", "1"}).out, first.out);
  EXPECT_NE(generate({"--prompt", "abc", "--seed", "5"}).out, first.out);
  write_file(path("prompt"), "abc");
  EXPECT_EQ(generate({"--prompt-file", path("prompt"), "--seed", "4"}).out, first.out);
  EXPECT_EQ(generate({"--seed", "4"},
                     "<" + shell_quoted(path("prompt")) + " >" + shell_quoted(path("stdout.txt")))
                .out,
            first.out);
}

TEST_F(Command, GenerateJsonSaysTheSame) {
  const auto text = generate({"--prompt", "abc"});
  const auto json = generate({"--prompt", "abc", "--json"});
  ASSERT_EQ(json.code, 0) << json.err;
  const JsonValue value = parse_json(json.out, "stdout");
  EXPECT_EQ(value.find("text")->as_string(), text.out);
  EXPECT_EQ(value.find("stop")->as_string(), "length");
  EXPECT_EQ(value.find("ids")->as_array().size(), 20u);
  EXPECT_EQ(value.find("prompt_tokens")->as_int(), 3);
}

TEST_F(Command, GenerateStopsBeforeAStopString) {
  const auto whole = generate({"--prompt", "abc", "-n", "100"}).out;
  // A stop string of whole characters out of the middle; shells and brackets do not matter.
  const auto json = generate({"--prompt", "abc", "-n", "100", "--stop", "[no list]", "--json"});
  EXPECT_EQ(parse_json(json.out, "stdout").find("text")->as_string(), whole);
  size_t begin = whole.size() / 2;
  while ((static_cast<unsigned char>(whole[begin]) & 0x80) != 0) ++begin;
  const std::string stop = whole.substr(begin, 1);
  const auto cut =
      generate({"--prompt", "abc", "-n", "100", "--stop", "never there", "--stop", stop});
  EXPECT_EQ(cut.code, 0) << cut.err;
  EXPECT_EQ(cut.out, whole.substr(0, whole.find(stop)));
  EXPECT_NE(cut.err.find("stop_string"), std::string::npos);
}

TEST_F(Command, GoldenGreedyInIds) {
  const SafetensorsFile golden(kGolden + "/golden.safetensors");
  std::vector<int64_t> ids(33);
  golden.read_as("greedy", ids.data());
  std::string prompt, expected;
  for (size_t i = 0; i < ids.size(); ++i) {
    (i < 9 ? prompt : expected) += (i == 0 || i == 9 ? "" : ",") + std::to_string(ids[i]);
  }
  const auto outcome =
      run({"generate", "--model", kGolden, "--ids", prompt, "-n", "24", "--temperature", "0"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, expected + "\n");
}

TEST_F(Command, DefinedAnswersToOddRequests) {
  EXPECT_EQ(generate({"--prompt", "abc", "-n", "0"}).out, "");
  EXPECT_EQ(generate({"--prompt", "abc", "-n", "0"}).code, 0);
  // A prompt of length 0 starts from a newline where the model has no start token.
  const auto newline = generate({"--prompt", "\n"});
  EXPECT_EQ(newline.code, 0) << newline.err;
  for (const auto& empty : {generate({"--prompt", ""}), generate({})}) {
    EXPECT_EQ(empty.code, 0) << empty.err;
    EXPECT_EQ(empty.out, newline.out);
  }
  // ... and from its start token where it has one.
  const auto bos = run({"generate", "--model", kGolden, "--ids", "", "-n", "5"});
  EXPECT_EQ(bos.code, 0) << bos.err;
  EXPECT_EQ(bos.out, run({"generate", "--model", kGolden, "--ids", "0", "-n", "5"}).out);
  // Bytes that are no UTF-8 are tokens like others; what is printed is valid.
  const auto invalid = generate({"--prompt", "\xFF\xC3(", "--json"});
  EXPECT_EQ(invalid.code, 0) << invalid.err;
  EXPECT_TRUE(is_utf8(invalid.out));
  EXPECT_EQ(parse_json(invalid.out, "stdout").find("prompt_tokens")->as_int(), 3);
}

TEST_F(Command, WrongUsage) {
  const std::vector<std::vector<std::string>> table = {
      {"generate", "--prompt", "x"},
      {"generate", "--model", model_, "--prompt", "x", "--ids", "1"},
      {"generate", "--model", model_, "--ids", "1,two"},
      {"generate", "--model", model_, "--ids", "1,,2"},
      {"generate", "--model", model_, "--ids", "99999999999999999999"},
      {"generate", "--model", model_, "--ids", "1", "--stop", "x"},
      {"generate", "--model", model_, "--prompt", "x", "--stop", ""},
      {"generate", "--model", model_, "--prompt", "x", "-n", "-1"},
      {"generate", "--model", model_, "--prompt", "x", "-n", "many"},
      {"generate", "--model", model_, "--prompt", "x", "--temperature", "-1"},
      {"generate", "--model", model_, "--prompt", "x", "--temperature", "nan"},
      {"generate", "--model", model_, "--prompt", "x", "--top-p", "1.5"},
      {"generate", "--model", model_, "--prompt", "x", "--top-k", "-3"},
      {"generate", "--model", model_, "--prompt", "x", "--min-p", "2"},
      {"generate", "--model", model_, "--prompt", "x", "--repetition-penalty", "0"},
      {"generate", "--model", model_, "--prompt", "x", "--dtype", "f16"},
      {"generate", "--model", model_, "--prompt", "x", "--threads", "0"},
      {"eval", "--model", model_},
      {"eval", "--model", model_, "--data", path("text"), "--seq-len", "-1"},
      {"eval", "--model", model_, "--data", path("text"), "--dtype", "int"},
      {"logits", "--model", model_, "--input", path("ids")},
      {"logits", "--model", model_, "--input", path("ids"), "--output", path("o"), "--dtype", "u8"},
  };
  for (const auto& words : table) {
    std::string about;
    for (const auto& word : words) about += word + " ";
    expect_error(run(words), 2, "", about);
  }
}

TEST_F(Command, BadIdsDataAndPaths) {
  struct Case {
    std::vector<std::string> words;
    std::string says;
  };
  write_ids("large", {2, 2}, {1, 2, 3, 256});
  write_ids("huge", {1, 1}, {int64_t{1} << 40});
  write_ids("negative", {1, 2}, {-1, 2});
  write_ids("flat", {4}, {1, 2, 3, 4});
  write_ids("empty", {0, 4}, {});
  write_ids("single", {2, 1}, {1, 2});
  write_file(path("one byte"), "x");
  write_file(path("nothing"), "");
  write_file(path("bad.jsonl"), "{\"text\": \"fine\"}\n{\"text\": 3}\n");
  const float number = 1;
  write_safetensors(path("float"), {tensor_source("input_ids", {1, 1}, &number)});
  write_safetensors(path("other"), {tensor_source("ids", {1, 1}, &number)});
  const std::vector<std::string> golden_ids = {"generate", "--model", kGolden};
  const auto logits = [&](const std::string& input) {
    return std::vector<std::string>{"logits",    "--model",  model_,    "--input",
                                    path(input), "--output", path("o"), "--grads"};
  };
  const auto eval = [&](const std::string& data) {
    return std::vector<std::string>{"eval", "--model", model_, "--data", path(data)};
  };
  const std::vector<Case> table = {
      {{"generate", "--model", model_, "--ids", "1,2,256"}, "position 2"},
      {{"generate", "--model", model_, "--ids", "-5"}, "position 0"},
      {{"generate", "--model", model_, "--ids", ""}, "empty prompt"},
      {{"generate", "--model", kGolden, "--prompt", "x"}, "97 tokens"},
      {{"generate", "--model", model_, "--prompt-file", path("absent")}, "absent"},
      {{"generate", "--model", model_, "--prompt-file", directory_.string()}, ""},
      {{"eval", "--model", kGolden, "--data", path("text")}, "97 tokens"},
      {eval("absent"), "absent"},
      {eval("one byte"), "at least two tokens"},
      {eval("nothing"), ""},
      {eval("bad.jsonl"), "bad.jsonl:2"},
      {logits("absent"), "absent"},
      {logits("large"), "[1, 1]"},
      {logits("huge"), "1099511627776"},
      {logits("negative"), "[0, 0]"},
      {logits("flat"), "[batch, len]"},
      {logits("empty"), "[batch, len]"},
      {logits("single"), "at least 2 tokens"},
      {logits("float"), "input_ids"},
      {logits("other"), "input_ids"},
      {{"logits", "--model", model_, "--input", path("ids"), "--output", path("no/folder/o")}, "o"},
  };
  for (const Case& one : table) {
    std::string about;
    for (const auto& word : one.words) about += word + " ";
    expect_error(run(one.words), 1, one.says, about);
    EXPECT_FALSE(fs::exists(path("o"))) << about;
  }
}

TEST_F(Command, SpoiledModels) {
  struct Case {
    const char* name;
    std::function<void(const fs::path&)> spoil;
    bool info_too = true;  // what contradicts the config only shows when the model is built
  };
  const std::string weights = read_file(model_ + "/model.safetensors");
  const std::string config = read_file(model_ + "/config.json");
  const auto with_weights = [](std::string bytes) {
    return
        [bytes](const fs::path& dir) { write_file((dir / "model.safetensors").string(), bytes); };
  };
  const auto with_config = [](std::string bytes) {
    return [bytes](const fs::path& dir) { write_file((dir / "config.json").string(), bytes); };
  };
  const auto replaced = [](std::string text, const std::string& from, const std::string& to) {
    const size_t found = text.find(from);
    EXPECT_NE(found, std::string::npos) << from;
    return found == std::string::npos ? text : text.replace(found, from.size(), to);
  };
  const std::vector<Case> table = {
      {"no folder", [](const fs::path& dir) { fs::remove_all(dir); }},
      {"no config", [](const fs::path& dir) { fs::remove(dir / "config.json"); }},
      {"no weights", [](const fs::path& dir) { fs::remove(dir / "model.safetensors"); }},
      {"one byte less", with_weights(weights.substr(0, weights.size() - 1))},
      {"one byte more", with_weights(weights + "x")},
      {"half of the weights", with_weights(weights.substr(0, weights.size() / 2))},
      {"half of the header", with_weights(weights.substr(0, 100))},
      {"seven bytes", with_weights(weights.substr(0, 7))},
      {"empty weights", with_weights("")},
      {"a header of 2^63 bytes", with_weights(std::string(7, '\0') + "\x80" + weights.substr(8))},
      {"a header that is no JSON", with_weights(replaced(weights, "{", "["))},
      {"another dtype", with_weights(replaced(weights, "\"F32\"", "\"F99\""))},
      {"offsets that overlap",
       with_weights(replaced(weights, "\"data_offsets\":[0", "\"data_offsets\":[8"))},
      {"a name twice", with_weights(replaced(weights, "layers.1.mixer.D\"", "layers.0.mixer.D\""))},
      {"an unknown tensor",
       with_weights(replaced(weights, "layers.1.mixer.D\"", "layers.1.mixer.E\"")), false},
      {"half of the config", with_config(config.substr(0, config.size() / 2))},
      {"empty config", with_config("")},
      {"config with invalid UTF-8", with_config(replaced(config, "MambaForCausalLM", "Mamba\xFF"))},
      {"another width",
       with_config(replaced(config, "\"hidden_size\": 16", "\"hidden_size\": 24"))},
      {"a width below 1",
       with_config(replaced(config, "\"hidden_size\": 16", "\"hidden_size\": -1"))},
      {"a width beyond memory", with_config(replaced(config, "\"hidden_size\": 16",
                                                     "\"hidden_size\": 4611686018427387904"))},
      {"more layers",
       with_config(replaced(config, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3")),
       false},
      {"fewer layers",
       with_config(replaced(config, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1")),
       false},
      {"a text for a number",
       with_config(replaced(config, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": \"2\""))},
      {"another architecture",
       with_config(replaced(config, "\"model_type\": \"mamba\"", "\"model_type\": \"bert\""))},
  };
  const std::string spoiled = path("spoiled");
  for (const Case& one : table) {
    fs::remove_all(spoiled);
    fs::copy(model_, spoiled, fs::copy_options::recursive);
    one.spoil(spoiled);
    expect_error(run({"generate", "--model", spoiled, "--prompt", "x"}), 1, "", one.name);
    expect_error(run({"eval", "--model", spoiled, "--data", path("text")}), 1, "", one.name);
    expect_error(run({"logits", "--model", spoiled, "--input", path("ids"), "--output", path("o")}),
                 1, "", one.name);
    EXPECT_FALSE(fs::exists(path("o"))) << one.name;
    if (one.info_too) expect_error(run({"info", spoiled}), 1, "", one.name);
  }
}

// Weights that are not numbers give no token instead of an arbitrary one.
TEST_F(Command, WeightsThatAreNotNumbers) {
  Model model = Model::load(model_);
  for (float& value : model.parameter("backbone.norm_f.weight")) value = NAN;
  model.save(path("nan"));
  expect_error(run({"generate", "--model", path("nan"), "--prompt", "x"}), 1, "", "NaN weights");
}

TEST_F(Command, FullDisk) {
  const RunResult full = generate({"--prompt", "x"}, ">/dev/full");
  EXPECT_EQ(full.code, 1);
  EXPECT_EQ(full.err.rfind("adder: error: ", 0), 0u) << full.err;
}

TEST_F(Command, EvalAndLogitsAgree) {
  write_file(path("abcd"), "abcd");
  write_ids("abcd ids", {1, 4}, {97, 98, 99, 100});
  const auto eval = run({"eval", "--model", model_, "--data", path("abcd"), "--json"});
  ASSERT_EQ(eval.code, 0) << eval.err;
  const JsonValue value = parse_json(eval.out, "stdout");
  EXPECT_EQ(value.find("tokens")->as_int(), 3);
  const double nats = value.find("nats_per_token")->as_double();
  EXPECT_NEAR(value.find("perplexity")->as_double(), std::exp(nats), 1e-9 * std::exp(nats));
  EXPECT_NEAR(value.find("bits_per_byte")->as_double(), nats / std::log(2.0), 1e-9);
  for (const char* dtype : {"f32", "f64", "bf16"}) {
    const auto logits = run({"logits", "--model", model_, "--input", path("abcd ids"), "--output",
                             path("o"), "--dtype", dtype, "--grads"});
    ASSERT_EQ(logits.code, 0) << logits.err;
    double loss = 0;
    const SafetensorsFile file(path("o"));
    file.read_as("loss", &loss);
    EXPECT_NEAR(loss, nats, std::string(dtype) == "bf16" ? 2e-2 : 1e-5) << dtype;
    EXPECT_EQ(file.info("logits").shape, (std::vector<int64_t>{1, 4, 256}));
    EXPECT_EQ(file.info("grad.backbone.layers.0.mixer.conv1d.weight").shape,
              (std::vector<int64_t>{32, 1, 4}));
  }
  // The same text as JSONL, as a shard, and in windows.
  write_file(path("abcd.jsonl"), "{\"text\": \"abcd\"}\n");
  run({"tokenize", "--input", path("abcd"), "--output", path("shard")});
  for (const std::string& data : {path("abcd.jsonl"), path("shard")}) {
    const auto other = run({"eval", "--model", model_, "--data", data, "--json"});
    ASSERT_EQ(other.code, 0) << other.err;
    EXPECT_EQ(parse_json(other.out, "stdout").find("nats_per_token")->as_double(), nats) << data;
  }
  const auto windows =
      run({"eval", "--model", model_, "--data", path("text"), "--seq-len", "8", "--json"});
  ASSERT_EQ(windows.code, 0) << windows.err;
  EXPECT_EQ(parse_json(windows.out, "stdout").find("tokens")->as_int(), 43);
}

}  // namespace
}  // namespace adder::tests
