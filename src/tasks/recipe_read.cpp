#include <fmt/format.h>

#include <toml++/toml.h>
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/mapped_file.h"
#include "tasks/recipe_keys.h"

namespace adder {
namespace {

constexpr const char* kSections[] = {"model", "train", "data", "log"};

std::vector<std::string> all_keys() {
  std::vector<std::string> keys;
  const Recipe recipe;
  visit_recipe_keys(recipe, [&](const char* section, const char* name, const auto&, const char*) {
    keys.push_back(fmt::format("{}.{}", section, name));
  });
  return keys;
}

std::string last_part(std::string_view key) { return std::string(key.substr(key.find('.') + 1)); }

// The known key nearest to an unknown one: in its section first, else anywhere by its last part.
std::string suggestion(const std::string& key) {
  const std::vector<std::string> known = all_keys();
  const std::string section = key.substr(0, key.find('.') + 1);
  std::vector<std::string> names, everywhere;
  for (const std::string& candidate : known) {
    if (!section.empty() && candidate.rfind(section, 0) == 0) names.push_back(last_part(candidate));
    everywhere.push_back(last_part(candidate));
  }
  const std::string here = nearest_name(last_part(key), names);
  const std::string anywhere = nearest_name(last_part(key), everywhere);
  const bool elsewhere =
      here.empty() || (anywhere != here && edit_distance(last_part(key), anywhere) == 0);
  const std::string best = elsewhere ? anywhere : here;
  if (best.empty()) return "";
  for (const std::string& candidate : known) {
    if (last_part(candidate) == best && (elsewhere || candidate.rfind(section, 0) == 0)) {
      return fmt::format(", did you mean '{}'?", candidate);
    }
  }
  return "";
}

[[noreturn]] void unknown_key(const std::string& key, const std::string& where) {
  throw Error({fmt::format("unknown key '{}'{}", key, suggestion(key)), where, "", ""});
}

[[noreturn]] void wrong_type(const std::string& key, const std::string& where, std::string expected,
                             std::string got) {
  throw Error({fmt::format("wrong type of '{}'", key), where, std::move(expected), std::move(got)});
}

std::string toml_type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a number with a fraction";
    case toml::node_type::boolean:
      return "a boolean";
    default:
      return "a date or time";
  }
}

std::string article(const char* type) { return std::string(type[0] == 'i' ? "an " : "a ") + type; }

RecipeValue value_of(const toml::node& node, const std::string& key, const std::string& where) {
  if (const auto* value = node.as_boolean()) return value->get();
  if (const auto* value = node.as_integer()) return value->get();
  if (const auto* value = node.as_floating_point()) return value->get();
  if (const auto* value = node.as_string()) return value->get();
  if (const auto* list = node.as_array()) {
    std::vector<std::string> items;
    for (const toml::node& item : *list) {
      const auto* text = item.as_string();
      if (text == nullptr)
        wrong_type(key, where, "a list of strings", "a list with " + toml_type_name(item));
      items.push_back(text->get());
    }
    return items;
  }
  wrong_type(key, where, "a value", toml_type_name(node));
}

std::string describe(const RecipeValue& value) {
  constexpr const char* kNames[] = {"a boolean", "an integer", "a number with a fraction",
                                    "a string", "a list"};
  return kNames[value.index()];
}

// Stores a value in a field of its type; integers are numbers too.
template <class T>
bool store(const RecipeValue& value, T& field) {
  if constexpr (std::is_same_v<T, std::optional<bool>>) {
    if (const auto* given = std::get_if<bool>(&value)) return field = *given, true;
  } else {
    if (const auto* given = std::get_if<T>(&value)) return field = *given, true;
  }
  if constexpr (std::is_same_v<T, double>) {
    if (const auto* given = std::get_if<int64_t>(&value)) {
      return field = static_cast<double>(*given), true;
    }
  }
  return false;
}

void apply(Recipe& recipe, const RecipeSetting& setting) {
  bool known = false;
  visit_recipe_keys(recipe, [&](const char* section, const char* name, auto& field, const char*) {
    if (known || setting.key != fmt::format("{}.{}", section, name)) return;
    known = true;
    if (store(setting.value, field)) return;
    wrong_type(setting.key, setting.where,
               article(recipe_type_name<std::remove_reference_t<decltype(field)>>()),
               describe(setting.value));
  });
  if (!known) unknown_key(setting.key, setting.where);
}

// The whole name of a key that may come without its section.
std::string whole_key(const std::string& key, const std::string& where) {
  if (key.find('.') != std::string::npos) return key;
  std::vector<std::string> matches;
  for (const std::string& candidate : all_keys()) {
    if (last_part(candidate) == key) matches.push_back(candidate);
  }
  if (matches.size() == 1) return matches.front();
  if (matches.empty()) unknown_key(key, where);
  throw Error({fmt::format("'{}' is a key of several sections", key), where,
               fmt::format("{}", fmt::join(matches, " or ")), ""});
}

bool is_text_key(const std::string& key) {
  const Recipe recipe;
  bool text = false;
  visit_recipe_keys(recipe,
                    [&](const char* section, const char* name, const auto& field, const char*) {
                      if (key == fmt::format("{}.{}", section, name)) {
                        text = std::is_same_v<std::remove_cvref_t<decltype(field)>, std::string>;
                      }
                    });
  return text;
}

std::string trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t") - begin + 1));
}

RecipeValue parse_value(const std::string& key, const std::string& text, const std::string& where) {
  const bool quoted = text.size() >= 2 && (text.front() == '"' || text.front() == '\'');
  if (is_text_key(key) && !quoted) return text;
  try {
    const toml::table table = toml::parse("value = " + text);
    if (table.size() == 1) return value_of(*table.get("value"), key, where);
  } catch (const toml::parse_error&) {
    // Falls through to the word itself: freeze=backbone.* is a list of one.
  }
  bool is_list = false;
  const Recipe recipe;
  visit_recipe_keys(recipe,
                    [&](const char* section, const char* name, const auto& field, const char*) {
                      using Field = std::remove_cvref_t<decltype(field)>;
                      if (key == fmt::format("{}.{}", section, name)) {
                        is_list = std::is_same_v<Field, std::vector<std::string>>;
                      }
                    });
  if (is_list && text.find('[') == std::string::npos) return std::vector<std::string>{text};
  return text;
}

void check_data(const DataConfig& data, const std::function<std::string(std::string_view)>& where) {
  if (!(data.validation_fraction >= 0 && data.validation_fraction < 1)) {
    throw Error({"'validation_fraction' is out of range", where("validation_fraction"),
                 "0 to below 1", fmt::to_string(data.validation_fraction)});
  }
  if (data.column < 0) {
    throw Error(
        {"'column' is out of range", where("column"), "at least 0", fmt::to_string(data.column)});
  }
  if (data.tokenizer != "bytes") {
    throw Error({"unknown tokenizer", where("tokenizer"), "bytes", data.tokenizer});
  }
}

}  // namespace

void RecipeBuilder::add_toml(std::string_view text, const std::string& file) {
  const auto at = [&file](const toml::source_position& position) {
    return fmt::format("{}:{}", file, position.line);
  };
  toml::table root;
  try {
    root = toml::parse(text);
  } catch (const toml::parse_error& error) {
    throw Error({std::string(error.description()), at(error.source().begin), "", ""});
  }
  for (const auto& [section, node] : root) {
    const std::string name(section.str());
    const std::string where = at(section.source().begin);
    if (std::find(std::begin(kSections), std::end(kSections), name) == std::end(kSections)) {
      if (!node.is_table()) unknown_key(name, where);
      const std::string nearest = nearest_name(name, kSections);
      throw Error({fmt::format("unknown section '{}'{}", name,
                               nearest.empty() ? "" : ", did you mean '" + nearest + "'?"),
                   where, "model, train, data or log", ""});
    }
    const toml::table* table = node.as_table();
    if (table == nullptr)
      wrong_type(name, where, "a section, [" + name + "]", toml_type_name(node));
    for (const auto& [key, value] : *table) {
      const std::string place = at(key.source().begin);
      const std::string whole = name + "." + std::string(key.str());
      set(whole, value_of(value, whole, place), place);
    }
  }
}

void RecipeBuilder::add_file(const std::string& path) { add_toml(read_text_file(path), path); }

void RecipeBuilder::add_assignment(std::string_view assignment) {
  const size_t equals = assignment.find('=');
  const std::string where = fmt::format("--set {}", assignment);
  if (equals == std::string_view::npos || trimmed(assignment.substr(0, equals)).empty()) {
    throw UsageError({"no assignment", where, "section.key=value", ""});
  }
  const std::string key = whole_key(trimmed(assignment.substr(0, equals)), where);
  set(key, parse_value(key, trimmed(assignment.substr(equals + 1)), where), where);
}

void RecipeBuilder::set(std::string_view key, RecipeValue value, const std::string& where) {
  RecipeSetting setting{std::string(key), std::move(value), where};
  Recipe scratch;
  apply(scratch, setting);  // unknown keys and wrong types fail here, with their place
  settings_.push_back(std::move(setting));
}

std::string RecipeBuilder::where(std::string_view key) const {
  for (auto setting = settings_.rbegin(); setting != settings_.rend(); ++setting) {
    if (setting->key == key) return setting->where;
  }
  return "";
}

std::string RecipeBuilder::arch() const {
  std::string arch = "mamba1", arch_where;
  for (const RecipeSetting& setting : settings_) {
    if (setting.key != "model.arch") continue;
    arch = std::get<std::string>(setting.value);
    arch_where = setting.where;
  }
  if (arch != "mamba1" && arch != "mamba2") {
    throw Error({"unknown architecture", arch_where, "mamba1 or mamba2", "'" + arch + "'"});
  }
  return arch;
}

Recipe RecipeBuilder::build() const {
  Recipe recipe;
  recipe.model = default_model_config(arch());
  recipe.model.vocab_size = 0;
  recipe.model.bias = false;
  for (const RecipeSetting& setting : settings_) apply(recipe, setting);
  const auto place = [this](const char* section) {
    return [this, section](std::string_view key) {
      const std::string whole = fmt::format("{}.{}", section, key);
      const std::string given = where(whole);
      return given.empty() ? whole : given;
    };
  };
  recipe.train.check(place("train"));
  check_data(recipe.data, place("data"));
  recipe.log.check(place("log"));
  return recipe;
}

}  // namespace adder
