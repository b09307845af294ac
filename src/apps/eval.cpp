#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "api/text_generation.h"
#include "apps/commands.h"
#include "apps/output.h"
#include "core/error.h"
#include "formats/json.h"
#include "formats/token_shard.h"
#include "infer/perplexity.h"
#include "text/documents.h"

namespace adder::apps {
namespace {

struct EvalCommand {
  std::string model;
  std::string data;
  std::string format = "auto";
  std::string field = "text";
  int64_t window = 0;
  std::string dtype = "f32";
  int threads = 0;
  bool json = false;
};

// The documents to be scored, as token ids one after the other.
struct EvalText {
  std::vector<int32_t> ids;
  std::vector<size_t> ends;
  int64_t text_bytes = 0;
};

bool is_shard(const std::string& path) {
  char magic[8] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof(magic));
  return std::string_view(magic, sizeof(magic)) == "ADDRTOK1";
}

EvalText read_shard(const std::string& path) {
  const TokenShard shard(path);
  EvalText text;
  text.ids.resize(static_cast<size_t>(shard.count()));
  shard.copy(0, shard.count(), text.ids.data());
  text.ends = {text.ids.size()};
  text.text_bytes = shard.info().text_bytes;
  return text;
}

EvalText read_text(const EvalCommand& command, const Tokenizer& tokenizer) {
  DocumentOptions options;
  options.format = document_format_from_name(command.format);
  options.field = command.field;
  EvalText text;
  read_documents(command.data, options, [&](std::string_view document) {
    const std::vector<int32_t> ids = tokenizer.encode(document);
    text.ids.insert(text.ids.end(), ids.begin(), ids.end());
    text.ends.push_back(text.ids.size());
    text.text_bytes += static_cast<int64_t>(document.size());
  });
  return text;
}

Perplexity score(const EvalCommand& command,
                 const std::shared_ptr<const LanguageModel<float>>& model, const EvalText& text) {
  PerplexityOptions options;
  options.threads = command.threads;
  options.window = command.window;
  const bool show = isatty(STDERR_FILENO) != 0;
  Perplexity sum;
  size_t begin = 0;
  for (const size_t end : text.ends) {
    const auto progress = [&](int64_t done) {
      const double share = static_cast<double>(begin + static_cast<size_t>(done)) /
                           static_cast<double>(text.ids.size());
      fmt::print(stderr, "\radder: eval {:3.0f}%", 100 * share);
    };
    const auto document = std::span<const int32_t>(text.ids).subspan(begin, end - begin);
    sum.add(measure_perplexity(model, document, options,
                               show ? ScoreProgress(progress) : ScoreProgress()));
    begin = end;
  }
  if (show) fmt::print(stderr, "\r{:20}\r", "");
  return sum;
}

void report(const EvalCommand& command, const EvalText& text, const Perplexity& sum,
            double seconds) {
  // Bytes of the predicted tokens, by the mean length of a token.
  const double bytes = static_cast<double>(text.text_bytes) * static_cast<double>(sum.tokens) /
                       static_cast<double>(text.ids.size());
  const double speed = static_cast<double>(sum.tokens) / seconds;
  if (command.json) {
    JsonValue result = JsonValue::object();
    result.set("model", command.model)
        .set("data", command.data)
        .set("tokens", sum.tokens)
        .set("text_bytes", text.text_bytes)
        .set("documents", static_cast<int64_t>(text.ends.size()))
        .set("seq_len", command.window)
        .set("nats_per_token", sum.nats_per_token())
        .set("perplexity", sum.perplexity())
        .set("bits_per_byte", sum.bits_per_byte(bytes))
        .set("seconds", seconds)
        .set("tokens_per_s", speed);
    return put_line(write_json(result, {0, JsonNonFinite::tagged}));
  }
  put_line(fmt::format(
      "{:.4f} nats/token, perplexity {:.4f}, {:.4f} bits/byte over {} tokens "
      "({:.0f} tok/s)",
      sum.nats_per_token(), sum.perplexity(), sum.bits_per_byte(bytes), sum.tokens, speed));
}

void run_eval(const EvalCommand& command) {
  if (command.dtype != "f32" && command.dtype != "bf16") {
    throw UsageError({"unknown type", "--dtype", "f32 or bf16", command.dtype});
  }
  const OpenedModel opened =
      open_model(command.model, inference_build(command.dtype, command.threads));
  const EvalText text = is_shard(command.data)
                            ? read_shard(command.data)
                            : read_text(command, *model_tokenizer(opened.model->config()));
  const auto start = std::chrono::steady_clock::now();
  const Perplexity sum = score(command, opened.model, text);
  if (sum.tokens == 0) {
    throw Error({"nothing to predict", command.data, "a document of at least two tokens",
                 fmt::format("{} tokens in {} documents", text.ids.size(), text.ends.size())});
  }
  report(command, text, sum,
         std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
}

}  // namespace

void add_eval_command(CLI::App& app) {
  auto command = std::make_shared<EvalCommand>();
  CLI::App* eval = app.add_subcommand("eval", "How well a model predicts a text");
  eval->add_option("--model", command->model, "The model directory")->required();
  eval->add_option("--data", command->data, "Text, JSONL, TSV or a token shard")->required();
  eval->add_option("--format", command->format, "auto (by the name's ending), plain, jsonl or tsv");
  eval->add_option("--field", command->field, "JSONL: the member with the text (text)");
  eval->add_option("--seq-len", command->window,
                   "Forget everything after so many tokens, as in training; 0 (default): the state "
                   "is carried through each document")
      ->check(CLI::NonNegativeNumber);
  eval->add_option("--dtype", command->dtype, "f32 (default) or bf16 products");
  eval->add_option("--threads", command->threads, "Threads (default: all cores)")
      ->check(CLI::Range(1, 4096));
  eval->add_flag("--json", command->json, "Print JSON");
  eval->callback([command] { run_eval(*command); });
}

}  // namespace adder::apps
