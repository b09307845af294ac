// From the files that a recipe names to token shards, and from those to what training reads.
#pragma once

#include <memory>
#include <string>

#include "formats/json.h"
#include "tasks/recipe.h"
#include "text/tokenizer.h"
#include "train/batch_source.h"

namespace adder {

struct TextData {
  std::unique_ptr<Tokenizer> tokenizer;
  TokenRange train;
  TokenRange validation;  // no shard: nothing is held out
  /// Counts and checksums of the tokens: equal for equal data.
  JsonValue fingerprint;
};

/// Where `path` is: as it stands, else below the source tree or the installed share folder for the
/// data that Adder ships. Throws Error naming the places that were tried.
std::string find_data_file(const std::string& path);

/// Opens `config.path` (and `config.validation`): shards are read in place, text is tokenized into
/// shards under `directory`. With `reuse`, shards that are there and valid are taken as they are,
/// so that a run resumes after its text file is gone. Documents of JSONL and TSV files end with a
/// special token of their own.
TextData open_text_data(const DataConfig& config, const std::string& directory, bool reuse);

}  // namespace adder
