#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <numeric>
#include <stdexcept>

#include "adder/adder.h"
#include "api/text_generation.h"

namespace adder {
namespace {

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

ModelSpec tiny_spec() {
  ModelSpec spec;
  spec.d_model = 24;
  spec.n_layer = 2;
  spec.d_state = 8;
  return spec;
}

std::vector<int32_t> ids_of(std::string_view text) { return {text.begin(), text.end()}; }

struct TemporaryFolder {
  std::filesystem::path path;
  explicit TemporaryFolder(const std::string& name)
      : path(std::filesystem::temp_directory_path() /
             ("adder_api_" + std::to_string(getpid()) + "_" + name)) {
    std::filesystem::create_directories(path);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
};

std::string streamed(std::vector<std::string> stops, std::string_view bytes, size_t piece) {
  TextStream stream(std::move(stops));
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += piece) text += stream.push(bytes.substr(i, piece));
  return text + stream.finish();
}

// However the bytes are cut, the text ends before the stop string, and nothing else is lost.
TEST(TextStream, StopStringsStraddleTokens) {
  struct Case {
    std::vector<std::string> stops;
    std::string bytes, expected;
  };
  const std::vector<Case> cases = {
      {{}, "plain", "plain"},
      {{"END"}, "one ENDtwo", "one "},
      {{"END"}, "ENEND", "EN"},
      {{"aab"}, "aaab", "a"},
      {{"abab"}, "abaabab!", "aba"},
      {{"END"}, "almost EN", "almost EN"},
      {{"b", "abc"}, "xabc", "xa"},
      {{"c", "abc"}, "xabc", "x"},
      {{"abcd", "bc"}, "zabce", "za"},
      {{"\n\n"}, "a\nb\n\nc", "a\nb"},
      {{"\xC3\xA9"}, "caf\xC3\xA9!", "caf"},
      {{"!"}, "caf\xC3\xA9!", "caf\xC3\xA9"},
      {{"x"}, "cut \xC3", "cut \xEF\xBF\xBD"},
      {{"x"}, "bad \xFF ok", "bad \xEF\xBF\xBD ok"},
  };
  for (const Case& one : cases) {
    for (size_t piece = 1; piece <= one.bytes.size(); ++piece) {
      EXPECT_EQ(streamed(one.stops, one.bytes, piece), one.expected) << one.bytes << " " << piece;
    }
  }
  EXPECT_NE(message_of([] { TextStream stream({""}); }), "");
}

TEST(TextStream, ShowsWhatIsCertainAtOnce) {
  TextStream stream({"STOP"});
  EXPECT_EQ(stream.push("abcS"), "abc");
  EXPECT_EQ(stream.push("T"), "");
  EXPECT_EQ(stream.push("x"), "STx");
  EXPECT_EQ(stream.push("\xE2\x82"), "");
  EXPECT_EQ(stream.push("\xAC"), "\xE2\x82\xAC");
  EXPECT_FALSE(stream.stopped());
}

TEST(Api, CreateSaveLoadGivesTheSameBits) {
  const TemporaryFolder folder("save");
  ModelSpec spec = tiny_spec();
  spec.eos_token_ids = {3};
  spec.bos_token_id = 2;
  const Model model = Model::create(spec, 5);
  EXPECT_EQ(model.save(folder.path), "");
  const Model loaded = Model::load(folder.path);
  EXPECT_EQ(loaded.spec().d_inner, 48);
  EXPECT_EQ(loaded.spec().dt_rank, 2);
  EXPECT_EQ(loaded.spec().eos_token_ids, spec.eos_token_ids);
  EXPECT_EQ(loaded.spec().bos_token_id, spec.bos_token_id);
  EXPECT_EQ(loaded.parameter_count(), model.parameter_count());
  const auto ids = ids_of("the same bits");
  const auto expected = model.forward(ids);
  const auto got = loaded.forward(ids);
  ASSERT_EQ(expected.size(), ids.size() * 256);
  EXPECT_EQ(std::memcmp(expected.data(), got.data(), expected.size() * sizeof(float)), 0);
  int64_t count = 0;
  for (const ParameterInfo& info : loaded.parameters()) {
    const auto a = model.parameter(info.name), b = loaded.parameter(info.name);
    ASSERT_EQ(a, b) << info.name;
    count += std::accumulate(info.shape.begin(), info.shape.end(), int64_t{1}, std::multiplies<>());
  }
  EXPECT_EQ(count, model.parameter_count());
}

TEST(Api, Mamba2SpecsSurviveSaving) {
  const TemporaryFolder folder("mamba2");
  ModelSpec spec = tiny_spec();
  spec.arch = "mamba2";
  spec.head_dim = 12;
  spec.groups = 2;
  spec.d_intermediate = 128;
  const Model model = Model::create(spec, 5);
  EXPECT_NE(model.save(folder.path), "");
  const Model loaded = Model::load(folder.path);
  EXPECT_EQ(loaded.spec().arch, "mamba2");
  EXPECT_EQ(loaded.spec().head_dim, 12);
  EXPECT_EQ(loaded.spec().groups, 2);
  EXPECT_EQ(loaded.spec().d_intermediate, 128);
  const auto ids = ids_of("the same bits");
  EXPECT_EQ(model.forward(ids), loaded.forward(ids));
  EXPECT_EQ(Model::create(loaded.spec(), 5).forward(ids), model.forward(ids));
  spec.arch = "mamba9";
  EXPECT_NE(message_of([&] { Model::create(spec); }).find("mamba1 or mamba2"), std::string::npos);
}

// One directional derivative through every parameter at once.
TEST(Api, GradientsArePartialDerivativesOfTheLoss) {
  Model model = Model::create(tiny_spec(), 7);
  const auto ids = ids_of("the quick brown fox jumps over the lazy dog.");
  auto targets = ids_of("he quick brown fox jumps over the lazy dog..");
  targets.back() = -100;
  const double loss = model.loss_and_gradients(ids, targets, 4);
  EXPECT_NEAR(loss, model.loss(ids, targets, 4), 1e-12);
  double norm = 0;
  for (const auto& info : model.parameters()) {
    for (const float g : model.gradient(info.name)) norm += static_cast<double>(g) * g;
  }
  constexpr double kStep = 1e-3;
  const auto move = [&](double factor) {
    for (const auto& info : model.parameters()) {
      const auto g = model.gradient(info.name);
      auto p = model.parameter(info.name);
      for (size_t i = 0; i < p.size(); ++i) {
        p[i] += static_cast<float>(factor * g[i] / std::sqrt(norm));
      }
      model.set_parameter(info.name, p);
    }
  };
  move(kStep);
  const double up = model.loss(ids, targets, 4);
  move(-2 * kStep);
  const double down = model.loss(ids, targets, 4);
  EXPECT_NEAR((up - down) / (2 * kStep), std::sqrt(norm), 1e-2 * std::sqrt(norm));
}

TEST(Api, TrainingLearnsAndCanBeRepeated) {
  const auto ids = ids_of("abababababababababababab");
  const auto targets = ids_of("babababababababababababa");
  std::vector<std::vector<float>> ends;
  for (const int threads : {1, 2}) {
    ModelOptions options;
    options.threads = threads;
    Model model = Model::create(tiny_spec(), 1, options);
    TrainerOptions trainer_options;
    trainer_options.learning_rate = 1e-2;
    Trainer trainer(model, trainer_options);
    const double first = trainer.step(ids, targets, 2).loss;
    TrainStep last;
    for (int i = 0; i < 30; ++i) last = trainer.step(ids, targets, 2);
    EXPECT_LT(last.loss, 0.5 * first);
    EXPECT_EQ(trainer.steps(), 31);
    ends.push_back(model.forward(ids));
  }
  EXPECT_EQ(ends[0], ends[1]);
}

// Parameters are copies: what comes out does not change the model, what goes in does.
TEST(Api, ParametersPassByCopies) {
  Model model = Model::create(tiny_spec(), 1);
  const auto ids = ids_of("some text");
  const auto before = model.forward(ids);
  const std::string name = "backbone.layers.1.mixer.A_log";
  auto values = model.parameter(name);
  for (float& value : values) value -= 1.0f;
  EXPECT_EQ(model.forward(ids), before);
  model.set_parameter(name, values);
  EXPECT_EQ(model.parameter(name), values);
  EXPECT_NE(model.forward(ids), before);
}

TEST(Api, InferenceOnlyModelsComputeTheSameAndDoNotTrain) {
  const TemporaryFolder folder("lean");
  Model::create(tiny_spec(), 2).save(folder.path);
  ModelOptions options;
  options.precision = Precision::bf16;
  Model full = Model::load(folder.path, options);
  options.inference_only = true;
  Model lean = Model::load(folder.path, options);
  const auto ids = ids_of("the same bits");
  EXPECT_EQ(full.forward(ids), lean.forward(ids));
  const std::string name = "backbone.layers.0.mixer.in_proj.weight";
  EXPECT_NE(full.parameter(name), lean.parameter(name));
  EXPECT_NE(message_of([&] { Trainer trainer(lean); }).find("full precision"), std::string::npos);
  EXPECT_NE(message_of([&] { lean.loss_and_gradients(ids, ids); }).find("full precision"),
            std::string::npos);
}

TEST(Api, FrozenParametersStay) {
  Model model = Model::create(tiny_spec(), 1);
  EXPECT_EQ(model.freeze("*.A_log"), 2);
  const auto ids = ids_of("some text"), targets = ids_of("ome text ");
  const auto copy = [&](const char* name) { return model.parameter(name); };
  const auto frozen = copy("backbone.layers.0.mixer.A_log");
  const auto trained = copy("backbone.layers.0.mixer.D");
  Trainer trainer(model);
  trainer.step(ids, targets);
  EXPECT_EQ(frozen, copy("backbone.layers.0.mixer.A_log"));
  EXPECT_NE(trained, copy("backbone.layers.0.mixer.D"));
  EXPECT_NE(message_of([&] { model.freeze("*"); }), "");
}

TEST(Api, GenerationIsReproducibleAndStops) {
  const Model model = Model::create(tiny_spec(), 3);
  GenerateOptions options;
  options.max_tokens = 50;
  options.seed = 9;
  const auto prompt = ids_of("hello");
  const auto first = model.generate(prompt, options);
  EXPECT_EQ(first.ids.size(), 50u);
  EXPECT_EQ(first.reason, FinishReason::length);
  EXPECT_EQ(first.ids, model.generate(prompt, options).ids);
  options.seed = 10;
  EXPECT_NE(first.ids, model.generate(prompt, options).ids);

  options.seed = 9;
  std::string shown;
  const auto whole = model.generate_text("hello", options, [&](std::string_view piece) {
    shown += piece;
    return true;
  });
  EXPECT_EQ(shown, whole.text);
  ASSERT_GT(whole.text.size(), 20u);
  // A stop string taken from the middle cuts the same text there.
  options.stop = {whole.text.substr(10, 6)};
  const auto stopped = model.generate_text("hello", options);
  EXPECT_EQ(stopped.reason, FinishReason::stop_string);
  EXPECT_EQ(stopped.text, whole.text.substr(0, whole.text.find(options.stop[0])));
  options.stop.clear();
  const auto cut = model.generate_text("hello", options, [](std::string_view) { return false; });
  EXPECT_EQ(cut.reason, FinishReason::callback);
}

TEST(Api, SessionAgreesWithForward) {
  const Model model = Model::create(tiny_spec(), 3);
  const auto ids = ids_of("a session carries the state");
  const auto whole = model.forward(ids);
  Session session(model);
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto logits = session.feed({&ids[i], 1});
    for (size_t v = 0; v < 256; ++v) EXPECT_NEAR(logits[v], whole[i * 256 + v], 1e-4);
  }
  const auto bytes = session.state_bytes();
  EXPECT_GT(bytes, 0);
  session.reset();
  session.feed(ids);
  EXPECT_EQ(session.state_bytes(), bytes);
}

TEST(Api, ErrorsSayWhatIsWrong) {
  Model model = Model::create(tiny_spec(), 3);
  const auto ids = ids_of("abcd");
  EXPECT_NE(message_of([] { Model::load("/nonexistent/model"); }), "");
  EXPECT_NE(message_of([&] { model.forward(std::vector<int32_t>{1, 256}); }).find("256"),
            std::string::npos);
  EXPECT_NE(message_of([&] { model.forward(ids, 3); }), "");
  EXPECT_NE(message_of([&] { model.forward({}, 1); }), "");
  EXPECT_NE(message_of([&] { model.loss(ids, ids_of("abc")); }), "");
  EXPECT_NE(message_of([&] { model.loss(ids, std::vector<int32_t>(4, -100)); }), "");
  EXPECT_NE(message_of([&] { model.gradient("backbone.norm_f.weight"); }), "");
  EXPECT_NE(message_of([&] { model.generate({}); }), "");
  EXPECT_NE(message_of([&] {
              model.parameter("backbone.norm_f.wieght");
            }).find("'backbone.norm_f.weight'"),
            std::string::npos);
  EXPECT_NE(message_of([&] {
              model.set_parameter("backbone.norm_f.weight", std::vector<float>(3));
            }).find("expected 24, got 3"),
            std::string::npos);
  TrainerOptions options;
  options.beta1 = 1;
  EXPECT_NE(message_of([&] { Trainer trainer(model, options); }), "");
  ModelSpec spec = tiny_spec();
  spec.d_model = -1;
  EXPECT_NE(message_of([&] { Model::create(spec); }), "");
  spec = tiny_spec();
  spec.vocab_size = 61;
  EXPECT_NE(message_of([&] { Model::create(spec).generate_text("x"); }), "");
}

TEST(Api, EmptyTextPromptStartsFromANewline) {
  const Model model = Model::create(tiny_spec(), 3);
  GenerateOptions options;
  options.max_tokens = 20;
  EXPECT_EQ(model.generate_text("", options).text, model.generate_text("\n", options).text);
}

}  // namespace
}  // namespace adder
