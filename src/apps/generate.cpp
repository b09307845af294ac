#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "api/text_generation.h"
#include "apps/commands.h"
#include "apps/output.h"
#include "core/error.h"
#include "core/mapped_file.h"
#include "formats/json.h"
#include "infer/open_model.h"

namespace adder::apps {
namespace {

constexpr int64_t kDefaultTokens = 256;
constexpr int64_t kPromptLimit = int64_t{1} << 30;  // bytes

struct GenerateCommand {
  std::string model;
  std::string prompt, prompt_file, ids;
  std::vector<std::string> stops;
  int64_t tokens = kDefaultTokens;
  SamplingOptions sampling;
  std::string dtype = "f32";
  int threads = 0;
  bool json = false;
  CLI::App* app = nullptr;

  bool given(const char* option) const { return app->get_option(option)->count() > 0; }
};

struct Reply {
  GenerationResult tokens;
  std::string text;  // empty with --ids
  std::string reason;
};

std::string_view reason_name(StopReason reason) {
  switch (reason) {
    case StopReason::length:
      return "length";
    case StopReason::end_token:
      return "end_token";
    case StopReason::callback:
      break;
  }
  return "callback";
}

std::vector<int32_t> parse_ids(std::string_view text) {
  std::vector<int32_t> ids;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    std::string_view word = text.substr(0, comma);
    while (!word.empty() && word.front() == ' ') word.remove_prefix(1);
    int32_t id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size()) {
      throw UsageError({"not a list of token ids", "--ids", "whole numbers with commas between",
                        "'" + std::string(word) + "'"});
    }
    ids.push_back(id);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
  }
  return ids;
}

std::string read_prompt(const GenerateCommand& command) {
  if (command.given("--prompt")) return command.prompt;
  if (command.given("--prompt-file")) return read_text_file(command.prompt_file, kPromptLimit);
  if (isatty(STDIN_FILENO) != 0) {
    fmt::print(stderr, "adder: the prompt is read from standard input; end it with Ctrl-D\n");
  }
  std::string text{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  if (std::cin.bad()) throw Error({"cannot be read", "standard input", {}, {}});
  return text;
}

// The model's own way to draw, overruled by what the command line gives.
Generation request_of(const GenerateCommand& command, const OpenedModel& opened) {
  Generation request = generation_defaults(opened.generation, opened.model->config().vocab_size);
  if (command.given("-n") || !opened.generation.max_new_tokens) {
    request.max_tokens = command.tokens;
  }
  SamplingOptions& sampling = request.sampling;
  if (command.given("--temperature")) sampling.temperature = command.sampling.temperature;
  if (command.given("--top-k")) sampling.top_k = command.sampling.top_k;
  if (command.given("--top-p")) sampling.top_p = command.sampling.top_p;
  if (command.given("--min-p")) sampling.min_p = command.sampling.min_p;
  if (command.given("--repetition-penalty")) {
    sampling.repetition_penalty = command.sampling.repetition_penalty;
  }
  sampling.seed = command.sampling.seed;
  return request;
}

Reply reply_in_ids(const GenerateCommand& command, Engine& engine, const Generation& request) {
  Reply reply;
  bool first = true;
  reply.tokens = engine.generate(0, parse_ids(command.ids), request, [&](int32_t id) {
    if (command.json) return true;
    put(fmt::format("{}{}", first ? "" : ",", id));
    flush_output();
    first = false;
    return true;
  });
  if (!command.json) put_line("");
  reply.reason = reason_name(reply.tokens.reason);
  return reply;
}

Reply reply_in_text(const GenerateCommand& command, Engine& engine, const OpenedModel& opened,
                    const Generation& request) {
  const auto tokenizer = model_tokenizer(opened.model->config());
  const auto prompt = prompt_ids(*tokenizer, opened.generation, read_prompt(command));
  TextResult result = generate_text(engine, *tokenizer, prompt, {request, command.stops},
                                    [&](std::string_view text) {
                                      if (command.json) return true;
                                      put(text);
                                      flush_output();
                                      return true;
                                    });
  if (!command.json && isatty(STDOUT_FILENO) != 0) put_line("");
  Reply reply;
  reply.reason = result.stop_string ? "stop_string" : reason_name(result.tokens.reason);
  reply.tokens = std::move(result.tokens);
  reply.text = std::move(result.text);
  return reply;
}

double per_second(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

void report_json(const Reply& reply) {
  const GenerationResult& tokens = reply.tokens;
  JsonValue ids = JsonValue::array();
  for (const int32_t id : tokens.ids) ids.push(int64_t{id});
  JsonValue result = JsonValue::object();
  result.set("text", reply.text)
      .set("ids", ids)
      .set("stop", reply.reason)
      .set("prompt_tokens", tokens.prompt_tokens)
      .set("prefill_seconds", tokens.prefill_seconds)
      .set("prefill_tokens_per_s", per_second(tokens.prompt_tokens, tokens.prefill_seconds))
      .set("decode_steps", tokens.steps)
      .set("decode_seconds", tokens.decode_seconds)
      .set("decode_tokens_per_s", per_second(tokens.steps, tokens.decode_seconds));
  put_line(write_json(result, {0, JsonNonFinite::tagged}));
}

void report_timing(const Reply& reply) {
  const GenerationResult& tokens = reply.tokens;
  fmt::print(stderr, "adder: prefill {} tokens, {:.0f} tok/s; decode {} tokens, {:.0f} tok/s; {}\n",
             tokens.prompt_tokens, per_second(tokens.prompt_tokens, tokens.prefill_seconds),
             tokens.ids.size(), per_second(tokens.steps, tokens.decode_seconds),
             "stopped by " + reply.reason);
}

void check_usage(const GenerateCommand& command) {
  if (command.dtype != "f32" && command.dtype != "bf16") {
    throw UsageError({"unknown type", "--dtype", "f32 or bf16", command.dtype});
  }
  if (command.given("--ids") && !command.stops.empty()) {
    throw UsageError("--stop works on text, not with --ids");
  }
  for (const std::string& stop : command.stops) {
    if (stop.empty()) throw UsageError({"empty stop string", "--stop", "at least one byte", ""});
  }
  try {
    command.sampling.check();
  } catch (const Error& error) {
    throw UsageError(error.parts());
  }
}

void run_generate(const GenerateCommand& command) {
  check_usage(command);
  const OpenedModel opened =
      open_model(command.model, inference_build(command.dtype, command.threads));
  const Generation request = request_of(command, opened);
  EngineOptions options;
  options.threads = command.threads;
  Engine engine(opened.model, options);
  const Reply reply = command.given("--ids") ? reply_in_ids(command, engine, request)
                                             : reply_in_text(command, engine, opened, request);
  if (command.json) report_json(reply);
  report_timing(reply);
}

void add_sampling_options(CLI::App& generate, SamplingOptions& sampling) {
  generate.add_option("--temperature", sampling.temperature,
                      "0: the likeliest token; default: the model's own, else 0.8");
  generate.add_option("--top-k", sampling.top_k, "Draw from the k likeliest; 0: off");
  generate.add_option("--top-p", sampling.top_p,
                      "Draw from the fewest tokens of this probability together; 1: off");
  generate.add_option("--min-p", sampling.min_p,
                      "Leave out what is less likely than this times the likeliest; 0: off");
  generate.add_option("--repetition-penalty", sampling.repetition_penalty,
                      "Above 1: what was there is less likely; 1: off");
  generate.add_option("--seed", sampling.seed, "The same seed draws the same text (0)");
}

}  // namespace

void add_generate_command(CLI::App& app) {
  auto command = std::make_shared<GenerateCommand>();
  CLI::App* generate = app.add_subcommand(
      "generate", "Continue a prompt (--prompt, --prompt-file, --ids or standard input)");
  command->app = generate;
  generate->add_option("--model", command->model, "The model directory")->required();
  auto* prompt = generate->add_option("--prompt", command->prompt,
                                      "The text to continue; empty: from the model's start token, "
                                      "or else a newline");
  auto* file = generate->add_option("--prompt-file", command->prompt_file, "A file with that text");
  auto* ids = generate->add_option("--ids", command->ids,
                                   "Token ids instead of text, with commas, in and out");
  prompt->excludes(file)->excludes(ids);
  file->excludes(ids);
  generate
      ->add_option("-n,--tokens", command->tokens,
                   fmt::format("Tokens at most ({})", kDefaultTokens))
      ->check(CLI::NonNegativeNumber);
  // One value each time: "[END]" is a text and no list.
  generate->add_option("--stop", command->stops, "Stop before this text; may be given again")
      ->allow_extra_args(false);
  add_sampling_options(*generate, command->sampling);
  generate->add_option("--dtype", command->dtype, "f32 (default) or bf16 products");
  generate->add_option("--threads", command->threads, "Threads (default: all cores)")
      ->check(CLI::Range(1, 4096));
  generate->add_flag("--json", command->json, "Print one JSON object at the end");
  generate->callback([command] { run_generate(*command); });
}

}  // namespace adder::apps
