#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/output.h"
#include "apps/train_progress.h"
#include "core/error.h"
#include "tasks/language_training.h"
#include "train/run_folder.h"

namespace adder::apps {
namespace {

constexpr int kInterrupted = 130;  // 128 + SIGINT
constexpr const char* kDefaultName = "shakespeare";

struct TrainCommand {
  std::string config;
  std::vector<std::string> assignments;
  std::string data, out, init;
  std::string device = "cpu";
  int64_t threads = -1;
  bool resume = false;
  bool json = false;
  bool keys = false;
};

std::atomic<int> g_stop_requests{0};
static_assert(std::atomic<int>::is_always_lock_free);

// The first signal asks for a stop after the step, the second does not ask.
extern "C" void request_stop(int) {
  if (g_stop_requests.fetch_add(1) > 0) ::_exit(kInterrupted);
}

class StopSignals {
 public:
  StopSignals() {
    g_stop_requests = 0;
    // oneDNN's products use the stack pointer as one more register: a handler on that "stack" would
    // write over their data.
    stack_t stack{};
    stack.ss_sp = stack_.data();
    stack.ss_size = stack_.size();
    sigaltstack(&stack, &old_stack_);
    struct sigaction action{};
    action.sa_handler = request_stop;
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    sigaction(SIGINT, &action, &old_interrupt_);
    sigaction(SIGTERM, &action, &old_terminate_);
    std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is a failed write, not a death
  }
  ~StopSignals() {
    sigaction(SIGINT, &old_interrupt_, nullptr);
    sigaction(SIGTERM, &old_terminate_, nullptr);
    sigaltstack(&old_stack_, nullptr);
  }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

 private:
  struct sigaction old_interrupt_{};
  struct sigaction old_terminate_{};
  stack_t old_stack_{};
  std::vector<char> stack_ = std::vector<char>(64 * 1024);  // the tiles of AMX are saved there too
};

std::string out_folder(const TrainCommand& command) {
  if (!command.out.empty()) return command.out;
  const std::string name =
      command.config.empty() ? kDefaultName : std::filesystem::path(command.config).stem().string();
  return "out/" + name;
}

// The base recipe: --config, else that of the run which is resumed, else the default one.
RecipeBuilder gather_recipe(const TrainCommand& command, const std::string& out) {
  RecipeBuilder recipe;
  const std::string earlier = recipe_path(out);
  if (!command.config.empty()) {
    recipe.add_file(command.config);
  } else if (command.resume && std::filesystem::exists(earlier)) {
    recipe.add_file(earlier);
  } else {
    RecipeBuilder asked;
    for (const std::string& assignment : command.assignments) asked.add_assignment(assignment);
    const CompiledRecipe compiled = default_recipe(asked.arch());
    recipe.add_toml(compiled.text, compiled.name);
  }
  if (!command.data.empty()) recipe.set("data.path", command.data, "--data");
  if (!command.init.empty()) recipe.set("train.init", command.init, "--init");
  for (const std::string& assignment : command.assignments) recipe.add_assignment(assignment);
  if (command.threads >= 0) recipe.set("train.threads", command.threads, "--threads");
  return recipe;
}

std::string finished_text(const TrainResult& result, const std::string& out) {
  std::string text;
  if (result.val_loss && result.bits_per_byte) {
    text +=
        fmt::format("validation loss  {:.4f} {}, {:.4f} bits/byte (weights of step {})\n",
                    *result.val_loss, result.loss_unit, *result.bits_per_byte, result.best_step);
  }
  text += fmt::format("training         {} steps, {} tokens in {}, {} tokens/s\n", result.step,
                      short_count(static_cast<double>(result.tokens)), clock_text(result.seconds),
                      short_count(result.tokens_per_s));
  if (result.skipped > 0) {
    text += fmt::format("skipped          {} steps that were not finite\n", result.skipped);
  }
  text += fmt::format("model            {}/model ({} parameters)\n", out,
                      short_count(static_cast<double>(result.parameters)));
  if (!result.model_note.empty()) {
    text += fmt::format("                 in Adder's own layout: {}\n", result.model_note);
  }
  text += fmt::format("curves           {0}/metrics.jsonl{1}, tensorboard --logdir {0}\n", out,
                      result.plot_note.empty() ? fmt::format(", {}/loss.png", out) : "");
  text += fmt::format("text             {}/sample.txt\n", out);
  text += fmt::format(
      "try next         adder generate --model {0}/model --prompt \"ROMEO:\"\n"
      "                 adder eval --model {0}/model --data FILE\n"
      "                 adder train --init {0}/model --data FILE --out out/mine",
      out);
  return text;
}

std::string stopped_text(const TrainResult& result, const std::string& out) {
  return fmt::format("stopped after step {} of {}; go on with: adder train --resume --out {}",
                     result.step, result.steps, out);
}

void check_usage(const TrainCommand& command) {
  if (command.device == "cuda") {
    throw Error({"this build has no CUDA", "--device", "cpu", "cuda"});
  }
  if (command.device != "cpu") {
    throw UsageError({"unknown device", "--device", "cpu or cuda", command.device});
  }
}

void run_train(const TrainCommand& command) {
  if (command.keys) {
    put(recipe_keys_markdown());
    return;
  }
  check_usage(command);
  const std::string out = out_folder(command);
  const StopSignals signals;
  TrainProgress progress;
  LanguageTraining training;
  training.recipe = gather_recipe(command, out);
  training.out = out;
  training.resume = command.resume;
  training.stop_requested = [] { return g_stop_requests > 0; };
  training.observer = &progress;
  const TrainResult result = train_language_model(training);
  progress.finish();
  if (command.json) {
    JsonValue json = train_result_json(result);
    json.set("out", out);
    put_line(write_json(json, {.indent = 0}));
  }
  if (!result.finished) {
    fmt::print(stderr, "{}\n", stopped_text(result, out));
    throw ExitWith{kInterrupted};
  }
  if (!command.json) put_line(finished_text(result, out));
}

}  // namespace

void add_train_command(CLI::App& app) {
  auto command = std::make_shared<TrainCommand>();
  CLI::App* train = app.add_subcommand("train", "Train a model on text as a recipe says");
  train->add_option(
      "--config", command->config,
      "Recipe (TOML); without one: recipes/tinyshakespeare.toml, or that of model.arch");
  train
      ->add_option("--set", command->assignments,
                   "section.key=value, over the recipe; may be repeated")
      ->allow_extra_args(false);
  train->add_option("--data", command->data, "Text, JSONL, TSV or token shard (data.path)");
  train->add_option("--out", command->out, "Folder of the run (out/NAME of the recipe)");
  train->add_flag("--resume", command->resume,
                  "Go on with the run in --out, by its own recipe unless --config is given");
  train->add_option("--init", command->init, "Start from the model in this directory (train.init)");
  train->add_option("--threads", command->threads, "0: every core (train.threads)")
      ->check(CLI::NonNegativeNumber);
  train->add_option("--device", command->device, "cpu or cuda");
  train->add_flag("--json", command->json, "Print the result as JSON");
  train->add_flag("--keys", command->keys, "List the keys of recipes and exit");
  train->callback([command] { run_train(*command); });
}

}  // namespace adder::apps
