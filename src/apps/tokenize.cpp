#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/output.h"
#include "core/error.h"
#include "formats/json.h"
#include "formats/token_shard.h"
#include "text/documents.h"
#include "text/tokenizer.h"

namespace adder::apps {
namespace {

struct TokenizeCommand {
  std::vector<std::string> inputs;
  std::string output;
  std::string format = "auto";
  DocumentOptions documents;
  bool separator = false;
  bool json = false;
};

TokenShardInfo write_shard(const TokenizeCommand& command, const Tokenizer& tokenizer) {
  TokenShardWriter writer(command.output, tokenizer.vocab_size(), tokenizer.name());
  // The one special token, after the bytes.
  const auto separator = static_cast<int32_t>(tokenizer.vocab_size() - 1);
  int64_t tokens = 0;
  for (const std::string& input : command.inputs) {
    read_documents(input, command.documents, [&](std::string_view text) {
      std::vector<int32_t> ids = tokenizer.encode(text);
      if (command.separator) ids.push_back(separator);
      writer.append(ids);
      writer.add_text_bytes(static_cast<int64_t>(text.size()));
      writer.add_document();
      tokens += static_cast<int64_t>(ids.size());
    });
  }
  if (tokens == 0) throw Error({"no tokens in the input", command.inputs.front(), "some text", {}});
  return writer.finish();
}

void print_result(const TokenizeCommand& command, const TokenShardInfo& info) {
  if (command.json) {
    JsonValue result = JsonValue::object();
    result.set("output", command.output)
        .set("tokenizer", info.tokenizer)
        .set("vocab_size", info.vocab_size)
        .set("tokens", info.count)
        .set("text_bytes", info.text_bytes)
        .set("documents", info.documents)
        .set("token_bytes", info.token_bytes);
    put_line(write_json(result, {0, JsonNonFinite::tagged}));
    return;
  }
  put_line(fmt::format("{}: {} tokens of {} bytes each from {} bytes of text in {} document{}",
                       command.output, info.count, info.token_bytes, info.text_bytes,
                       info.documents, info.documents == 1 ? "" : "s"));
}

void run_tokenize(TokenizeCommand command) {
  const std::string format = command.format == "text" ? "plain" : command.format;
  if (format != "auto" && format != "plain" && format != "jsonl" && format != "tsv") {
    throw UsageError({"unknown format", "--format", "auto, text, jsonl or tsv", command.format});
  }
  command.documents.format = document_format_from_name(format);
  const ByteTokenizer tokenizer(command.separator ? 1 : 0);
  print_result(command, write_shard(command, tokenizer));
}

}  // namespace

void add_tokenize_command(CLI::App& app) {
  auto command = std::make_shared<TokenizeCommand>();
  CLI::App* tokenize = app.add_subcommand("tokenize", "Turn text files into a token shard (bytes)");
  tokenize->add_option("--input", command->inputs, "Text files; their documents follow each other")
      ->required();
  tokenize->add_option("--output", command->output, "The shard")->required();
  tokenize->add_option("--format", command->format,
                       "auto (by the name's ending), text, jsonl or tsv");
  tokenize->add_option("--field", command->documents.field,
                       "JSONL: the member with the text (text)");
  tokenize->add_option("--column", command->documents.column, "TSV: the column, from 0")
      ->check(CLI::NonNegativeNumber);
  tokenize->add_flag("--skip-header", command->documents.skip_header,
                     "TSV: the first line names the columns");
  tokenize->add_flag("--separator", command->separator, "Put the token 256 after every document");
  tokenize->add_flag("--json", command->json, "Print what was written as JSON");
  tokenize->callback([command] { run_tokenize(*command); });
}

}  // namespace adder::apps
