// Adder inside of an application. Without arguments it trains a tiny model on a sentence, which
// takes a second; with --model it uses one that is there:
//   embed [--steps N]
//   embed --model out/shakespeare/model --prompt "ROMEO:"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "adder/adder.h"

namespace {

constexpr std::string_view kText =
    "An adder is a snake, and the circuit whose carry chain is a parallel prefix scan. ";

// Tokens are bytes where a model has 256 of them; a byte above 127 must not turn negative.
std::vector<int32_t> bytes_of(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char byte : text) ids.push_back(static_cast<unsigned char>(byte));
  return ids;
}

adder::Model train_tiny_model(int steps) {
  adder::ModelSpec spec;
  spec.d_model = 64;
  spec.n_layer = 2;
  adder::Model model = adder::Model::create(spec, /*seed=*/1);
  std::printf("a model of %lld parameters\n", static_cast<long long>(model.parameter_count()));

  const std::vector<int32_t> text = bytes_of(std::string(kText) + std::string(kText));
  const std::span<const int32_t> all = text;
  adder::TrainerOptions options;
  options.learning_rate = 5e-3;
  adder::Trainer trainer(model, options);
  for (int step = 1; step <= steps; ++step) {
    const adder::TrainStep result =
        trainer.step(all.first(all.size() - 1), all.subspan(1));  // each token's target follows it
    if (step % 20 == 0 || step == steps) {
      std::printf("step %d: loss %.3f nats/byte, gradient norm %.2f\n", step, result.loss,
                  result.gradient_norm);
    }
  }
  return model;
}

// Text as it is drawn; the callback could stop it at any time by returning false.
void write_some_text(const adder::Model& model, const std::string& prompt) {
  adder::GenerateOptions options;
  options.max_tokens = 200;
  options.temperature = 0.5;
  options.stop = {". "};
  std::printf("%s", prompt.c_str());
  model.generate_text(prompt, options, [](std::string_view piece) {
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
    return true;
  });
  std::printf("\n");
}

// One token at a time, with the state in hand: what follows "parallel" at best?
void look_inside(const adder::Model& model) {
  adder::Session session(model);
  session.feed(bytes_of("An adder is a snake, and the circuit whose carry chain is a "));
  const std::span<const float> logits = session.feed(bytes_of("parallel"));
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  std::printf("after \"parallel\" comes byte %lld; the state takes %lld bytes at any length\n",
              static_cast<long long>(best), static_cast<long long>(session.state_bytes()));
}

int run(const std::map<std::string, std::string>& given) {
  const auto value = [&](const char* name, const char* otherwise) {
    const auto found = given.find(name);
    return found == given.end() ? std::string(otherwise) : found->second;
  };
  const std::string directory = value("--model", "");
  const adder::Model model = directory.empty()
                                 ? train_tiny_model(std::atoi(value("--steps", "80").c_str()))
                                 : adder::Model::load(directory);
  write_some_text(model, value("--prompt", "An adder"));
  if (model.spec().vocab_size == 256) look_inside(model);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    std::map<std::string, std::string> given;
    for (int i = 1; i + 1 < argc; i += 2) given[argv[i]] = argv[i + 1];
    return run(given);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "embed: %s\n", error.what());
    return 1;
  }
}
