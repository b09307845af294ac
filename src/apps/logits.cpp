#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/op.h"
#include "apps/output.h"
#include "core/error.h"
#include "formats/json.h"
#include "formats/model_files.h"
#include "formats/safetensors.h"
#include "kernels/loss/loss.h"
#include "models/model_io.h"
#include "models/model_runner.h"

namespace adder::apps {
namespace {

struct LogitsCommand {
  std::string model;
  std::string input;
  std::string output;
  std::string dtype = "f32";
  int threads = 0;
  bool grads = false;
  bool json = false;
};

struct Tokens {
  int64_t batch = 0;
  int64_t len = 0;
  std::vector<int32_t> ids;
  std::vector<int32_t> targets;  // the next id of the row; kIgnoreIndex at its end

  CallInput input() const { return {.batch = batch, .len = len, .ids = ids, .targets = targets}; }
  int64_t predicted() const { return batch * (len - 1); }
};

Tokens read_tokens(const std::string& path, int64_t vocab) {
  const SafetensorsFile file(path);
  const TensorInfo info = file.info("input_ids");
  const std::string where = path + ": tensor 'input_ids'";
  if (info.shape.size() != 2 || info.elements() == 0) {
    throw Error({"wrong shape", where, "[batch, len], neither of them 0", shape_text(info.shape)});
  }
  std::vector<int64_t> stored(static_cast<size_t>(info.elements()));
  file.read_as("input_ids", stored.data());
  Tokens tokens;
  tokens.batch = info.shape[0];
  tokens.len = info.shape[1];
  for (size_t i = 0; i < stored.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i) / tokens.len;
    const int64_t column = static_cast<int64_t>(i) % tokens.len;
    if (stored[i] < 0 || stored[i] >= vocab) {
      throw Error({"token id out of range", fmt::format("{}[{}, {}]", where, row, column),
                   fmt::format("[0, {}): the model's vocabulary", vocab),
                   std::to_string(stored[i])});
    }
    tokens.ids.push_back(static_cast<int32_t>(stored[i]));
    if (column > 0) tokens.targets.push_back(tokens.ids.back());
    if (column == tokens.len - 1) tokens.targets.push_back(kIgnoreIndex);
  }
  return tokens;
}

// Writes `loss`, and the gradients into the model where they are asked for.
template <class Acc>
void compute_loss(LanguageModel<Acc>& model, ModelRunner<Acc>& runner, bool grads,
                  const Tokens& tokens, OpOutputs& out) {
  const auto count = static_cast<double>(tokens.predicted());
  const auto row_loss = grads ? runner.losses_and_gradients(model, tokens.input(), 1.0 / count)
                              : runner.losses(tokens.input());
  double sum = 0;
  for (const double value : row_loss) sum += value;
  *out.add<double>("loss", {1}) = sum / count;
}

template <class Acc>
void write_gradients(const LanguageModel<Acc>& model, const ModelFiles& files, OpOutputs& out) {
  const ParamTable& table = model.params();
  for (int64_t i = 0; i < table.size(); ++i) {
    if (!table.info(i).alias_of.empty()) continue;
    const std::string stored = files.stored_name(table.info(i).name);
    Acc* gradient = out.add<Acc>("grad." + stored, files.info(stored).shape);
    model.store().read_gradient(i, 0, table.info(i).count(), gradient);
  }
}

template <class Acc>
void run_typed(const LogitsCommand& command, Dtype dtype) {
  ModelBuild build;
  build.compute = dtype;
  build.masters = command.grads;
  build.context = with_threads({}, command.threads);
  const auto model = load_model<Acc>(command.model, build);
  const Tokens tokens = read_tokens(command.input, model->config().vocab_size);
  ModelRunner<Acc> runner(*model, build.context, "logits");
  OpOutputs out;
  Acc* logits = out.add<Acc>("logits", {tokens.batch, tokens.len, model->padded_vocab()});
  const auto computed = runner.logits(tokens.input());
  std::copy(computed.begin(), computed.end(), logits);
  if (tokens.predicted() > 0) {
    if (command.grads) model->enable_training();
    compute_loss(*model, runner, command.grads, tokens, out);
    if (command.grads) write_gradients(*model, ModelFiles(command.model), out);
  } else if (command.grads) {
    throw Error({"no token to predict", command.input, "rows of at least 2 tokens for --grads",
                 "rows of 1 token"});
  }
  write_safetensors(command.output, out.tensors());
  if (!command.json) return;
  JsonValue shape = JsonValue::array();
  for (const int64_t size : out.tensors()[0].shape) shape.push(size);
  JsonValue summary = JsonValue::object();
  summary.set("output", command.output)
      .set("logits", shape)
      .set("tensors", static_cast<int64_t>(out.tensors().size()));
  put_line(write_json(summary, {0, JsonNonFinite::tagged}));
}

void run_logits(const LogitsCommand& command) {
  if (command.dtype == "f64") return run_typed<double>(command, Dtype::f64);
  if (command.dtype == "f32") return run_typed<float>(command, Dtype::f32);
  if (command.dtype == "bf16") return run_typed<float>(command, Dtype::bf16);
  throw UsageError({"unknown type", "--dtype", "f64, f32 or bf16", command.dtype});
}

}  // namespace

void add_logits_command(CLI::App& app) {
  auto command = std::make_shared<LogitsCommand>();
  CLI::App* logits =
      app.add_subcommand("logits", "Logits, loss and gradients of a model, file to file");
  logits->add_option("--model", command->model, "The model directory")->required();
  logits->add_option("--input", command->input, "safetensors with input_ids, int64 (batch, len)")
      ->required();
  logits
      ->add_option("--output", command->output,
                   "safetensors: logits (batch, len, rows of the embedding) and loss, the mean "
                   "next-token cross-entropy in nats")
      ->required();
  logits->add_flag("--grads", command->grads,
                   "Write grad.<parameter> of that loss for every parameter of the file");
  logits->add_option("--dtype", command->dtype, "f32 (default), f64 or bf16 products");
  logits->add_option("--threads", command->threads, "Threads (default: all cores)")
      ->check(CLI::Range(1, 4096));
  logits->add_flag("--json", command->json, "Print what was written as JSON");
  logits->callback([command] { run_logits(*command); });
}

}  // namespace adder::apps
