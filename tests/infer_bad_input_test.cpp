// The inference subcommands meet bad input. Every failure exits with 1 (2 for wrong usage),
// writes "adder: error: ..." and leaves no output.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>

#include "infer_fixture.h"

namespace adder::tests {
namespace {

namespace fs = std::filesystem;

class InferBadInput : public InferCommand {};

TEST_F(InferBadInput, WrongUsage) {
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

TEST_F(InferBadInput, BadIdsDataAndPaths) {
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

TEST_F(InferBadInput, SpoiledModels) {
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
TEST_F(InferBadInput, WeightsThatAreNotNumbers) {
  Model model = Model::load(model_);
  const std::string norm = "backbone.norm_f.weight";
  model.set_parameter(norm, std::vector<float>(model.parameter(norm).size(), NAN));
  model.save(path("nan"));
  expect_error(run({"generate", "--model", path("nan"), "--prompt", "x"}), 1, "", "NaN weights");
}

TEST_F(InferBadInput, FullDisk) {
  const RunResult full = generate({"--prompt", "x"}, ">/dev/full");
  EXPECT_EQ(full.code, 1);
  EXPECT_EQ(full.err.rfind("adder: error: ", 0), 0u) << full.err;
}

}  // namespace
}  // namespace adder::tests
