// The inference subcommands through the real binary: what they print.
#include <gtest/gtest.h>

#include <cmath>

#include "formats/json.h"
#include "infer_fixture.h"

namespace adder::tests {
namespace {

TEST_F(InferCommand, GenerateStreamsReproducibly) {
  const auto first = generate({"--prompt", "abc", "--seed", "4"});
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_FALSE(first.out.empty());
  EXPECT_TRUE(is_utf8(first.out));
  EXPECT_NE(first.err.find("tok/s"), std::string::npos);
  EXPECT_EQ(generate({"--prompt", "abc", "--seed", "4", "--threads", "1"}).out, first.out);
  EXPECT_NE(generate({"--prompt", "abc", "--seed", "5"}).out, first.out);
  write_file(path("prompt"), "abc");
  EXPECT_EQ(generate({"--prompt-file", path("prompt"), "--seed", "4"}).out, first.out);
  const auto piped = generate({"--seed", "4"}, fmt::format("<{} >{}", shell_quoted(path("prompt")),
                                                           shell_quoted(path("stdout.txt"))));
  EXPECT_EQ(piped.out, first.out);
}

TEST_F(InferCommand, GenerateJsonSaysTheSame) {
  const auto text = generate({"--prompt", "abc"});
  const auto json = generate({"--prompt", "abc", "--json"});
  ASSERT_EQ(json.code, 0) << json.err;
  const JsonValue value = parse_json(json.out, "stdout");
  EXPECT_EQ(value.find("text")->as_string(), text.out);
  EXPECT_EQ(value.find("stop")->as_string(), "length");
  EXPECT_EQ(value.find("ids")->as_array().size(), 20u);
  EXPECT_EQ(value.find("prompt_tokens")->as_int(), 3);
}

TEST_F(InferCommand, GenerateStopsBeforeAStopString) {
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

TEST_F(InferCommand, GoldenGreedyInIds) {
  const SafetensorsFile golden(kGolden + "/golden.safetensors");
  std::vector<int64_t> ids(33);
  golden.read_as("greedy", ids.data());
  std::string prompt, expected;
  for (size_t i = 0; i < ids.size(); ++i) {
    std::string& list = i < 9 ? prompt : expected;
    if (!list.empty()) list += ',';
    list += std::to_string(ids[i]);
  }
  const auto outcome =
      run({"generate", "--model", kGolden, "--ids", prompt, "-n", "24", "--temperature", "0"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, expected + "\n");
}

TEST_F(InferCommand, DefinedAnswersToOddRequests) {
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

TEST_F(InferCommand, EvalAndLogitsAgree) {
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
