// Recipes: what a run is, as TOML with the sections [model], [train], [data] and [log]. Every key
// is checked at the door; a mistake names file, line, key and the nearest known key.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "formats/json.h"
#include "formats/model_config.h"
#include "train/train_config.h"

namespace adder {

/// Section [data].
struct DataConfig {
  std::string path = "data/tinyshakespeare.txt";  // text, JSONL, TSV or a token shard
  std::string validation;                         // empty: the end of `path`
  double validation_fraction = 0.1;
  std::string tokenizer = "bytes";
  std::string format = "auto";  // auto, plain, jsonl, tsv
  std::string field = "text";
  int64_t column = 0;
  bool skip_header = false;
};

struct Recipe {
  ModelConfig model;  // vocab_size 0: that of the tokenizer
  TrainConfig train;
  DataConfig data;
  LogConfig log;
};

/// Checked against the key's type; optional<bool> fields of a config take a boolean.
using RecipeValue = std::variant<bool, int64_t, double, std::string, std::vector<std::string>>;

/// One `section.key = value` and where it was written ("recipes/x.toml:12", "--set").
struct RecipeSetting {
  std::string key;
  RecipeValue value;
  std::string where;
};

/// Later settings win. Not thread-safe.
class RecipeBuilder {
 public:
  /// Parses a recipe. Throws Error for wrong syntax, an unknown section or key, a wrong type.
  void add_toml(std::string_view text, const std::string& file);
  void add_file(const std::string& path);
  /// "section.key=value", or "key=value" where only one section has the key. The value is written
  /// as in TOML; strings need no quotes.
  void add_assignment(std::string_view assignment);
  void set(std::string_view key, RecipeValue value, const std::string& where);

  /// Was the key given, and where? Empty: no.
  std::string where(std::string_view key) const;
  /// model.arch as it is set so far, or its default. Throws Error when there is no such one.
  std::string arch() const;
  /// The recipe over the defaults of its architecture; the ranges of [train], [data] and [log] are
  /// checked, those of [model] by resolve() once the tokenizer is known.
  Recipe build() const;

 private:
  std::vector<RecipeSetting> settings_;
};

/// A recipe that is compiled into the program.
struct CompiledRecipe {
  const char* name;  // where its settings say that they come from
  const char* text;
};
/// What `adder train` runs when no recipe is named: that of the architecture.
CompiledRecipe default_recipe(std::string_view arch = "mamba1");
/// Does a setting that was written at `where` come from one of them?
bool is_default_recipe(std::string_view where);

/// Every key with its value, as a recipe file.
std::string recipe_toml(const Recipe& recipe);
/// {"section.key": value}, for comparing.
JsonValue recipe_json(const Recipe& recipe);
/// The keys, types, defaults and meanings as Markdown tables: the body of recipes/README.md.
std::string recipe_keys_markdown();

}  // namespace adder
