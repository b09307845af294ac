// Reading documents from text files and turning them into token shards.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/token_shard.h"
#include "text/tokenizer.h"

namespace adder {

/// automatic chooses by the ending of the name (.jsonl, .ndjson; .tsv; else plain).
enum class DocumentFormat : uint8_t { automatic, plain, jsonl, tsv };
/// Takes "auto", "plain", "jsonl" or "tsv"; throws Error naming them.
DocumentFormat document_format_from_name(std::string_view name);

struct DocumentOptions {
  DocumentFormat format = DocumentFormat::automatic;
  std::string field = "text";  // JSONL: the member that holds the text
  int64_t column = 0;          // TSV: from 0; escapes \t \n \r \\ are undone
  bool skip_header = false;    // TSV: the first line names the columns
};

/// Calls `document` for each document in order; the view lives until it returns. Plain: the whole
/// file is one document (any bytes). JSONL and TSV: one a line, UTF-8, blank lines skipped. Errors
/// read FILE:LINE.
void read_documents(const std::string& path, const DocumentOptions& options,
                    const std::function<void(std::string_view)>& document);
std::vector<std::string> read_documents(const std::string& path,
                                        const DocumentOptions& options = {});

struct TokenizeOptions {
  DocumentOptions documents;
  std::optional<int32_t> separator;  // put after every document
};

/// Tokenizes a file into one shard, atomically. An input without any token is an Error.
TokenShardInfo tokenize_file(const std::string& input, const std::string& shard,
                             const Tokenizer& tokenizer, const TokenizeOptions& options = {});

}  // namespace adder
