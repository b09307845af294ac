// The smallest use of an installed Adder: create, train a few steps, save, load, generate.
#include <adder/adder.h>

#include <cstdio>
#include <exception>
#include <string_view>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: uses_adder DIRECTORY-TO-SAVE-A-MODEL-IN\n");
    return 2;
  }
  try {
    adder::ModelSpec spec;
    spec.d_model = 32;
    spec.n_layer = 2;
    adder::Model model = adder::Model::create(spec);

    constexpr std::string_view kText = "abcdefghijklmnopqrstuvwxyz";
    const std::vector<int32_t> ids(kText.begin(), kText.end() - 1);
    const std::vector<int32_t> targets(kText.begin() + 1, kText.end());
    adder::TrainerOptions options;
    options.learning_rate = 1e-2;
    adder::Trainer trainer(model, options);
    const double first = trainer.step(ids, targets).loss;
    for (int i = 0; i < 60; ++i) trainer.step(ids, targets);
    const double last = model.loss(ids, targets);

    model.save(argv[1]);
    const adder::Model loaded = adder::Model::load(argv[1]);
    adder::GenerateOptions greedy;
    greedy.temperature = 0;
    greedy.max_tokens = 10;
    const std::string text = loaded.generate_text("abcde", greedy).text;
    std::printf("adder %s: loss %.3f -> %.3f, abcde -> %s\n", adder::version(), first, last,
                text.c_str());
    return last < first && loaded.forward(ids) == model.forward(ids) ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "uses_adder: %s\n", error.what());
    return 1;
  }
}
