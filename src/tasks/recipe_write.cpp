#include <fmt/format.h>

#include <algorithm>

#include "tasks/default_recipe.h"
#include "tasks/recipe_keys.h"

namespace adder {
namespace {

// A TOML basic string.
std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      result += fmt::format("\\{}", c);
    } else if (c == '\n') {
      result += "\\n";
    } else if (c == '\t') {
      result += "\\t";
    } else if (code < 0x20 || code == 0x7F) {
      result += fmt::format("\\u{:04X}", code);
    } else {
      result += c;
    }
  }
  return result + "\"";
}

std::string toml_value(bool value) { return value ? "true" : "false"; }
std::string toml_value(const std::optional<bool>& value) {
  return toml_value(value.value_or(false));
}
std::string toml_value(int64_t value) { return fmt::to_string(value); }
// The shortest text that reads back as the same number.
std::string toml_value(double value) { return fmt::format("{}", value); }
std::string toml_value(const std::string& value) { return quoted(value); }
std::string toml_value(const std::vector<std::string>& value) {
  std::string list;
  for (const std::string& item : value) list += (list.empty() ? "" : ", ") + quoted(item);
  return "[" + list + "]";
}

JsonValue json_value(bool value) { return value; }
JsonValue json_value(const std::optional<bool>& value) { return value.value_or(false); }
JsonValue json_value(int64_t value) { return value; }
JsonValue json_value(double value) { return value; }
JsonValue json_value(const std::string& value) { return value; }
JsonValue json_value(const std::vector<std::string>& value) {
  JsonValue list = JsonValue::array();
  for (const std::string& item : value) list.push(item);
  return list;
}

constexpr CompiledRecipe kCompiledRecipes[] = {
    {"recipes/tinyshakespeare.toml (compiled in)", kDefaultRecipe},
    {"recipes/tinyshakespeare_mamba2.toml (compiled in)", kDefaultRecipeMamba2},
};

std::string section_title(std::string_view section) {
  if (section == "model") return "the network";
  if (section == "train") return "optimizer, batches, schedule";
  if (section == "data") return "what it learns from";
  return "what is reported and kept; nothing here changes a weight";
}

}  // namespace

CompiledRecipe default_recipe(std::string_view arch) {
  return kCompiledRecipes[arch == "mamba2" ? 1 : 0];
}

bool is_default_recipe(std::string_view where) {
  return std::any_of(std::begin(kCompiledRecipes), std::end(kCompiledRecipes),
                     [&](const CompiledRecipe& recipe) { return where.starts_with(recipe.name); });
}

std::string recipe_toml(const Recipe& recipe) {
  std::string text, current;
  visit_recipe_keys(recipe,
                    [&](const char* section, const char* name, const auto& field, const char*) {
                      if (current != section) {
                        text += fmt::format("{}[{}]\n", current.empty() ? "" : "\n", section);
                        current = section;
                      }
                      text += fmt::format("{} = {}\n", name, toml_value(field));
                    });
  return text;
}

JsonValue recipe_json(const Recipe& recipe) {
  JsonValue json = JsonValue::object();
  visit_recipe_keys(recipe,
                    [&](const char* section, const char* name, const auto& field, const char*) {
                      json.set(fmt::format("{}.{}", section, name), json_value(field));
                    });
  return json;
}

std::string recipe_keys_markdown() {
  std::string text, current;
  const Recipe recipe = RecipeBuilder().build();
  visit_recipe_keys(recipe, [&](const char* section, const char* name, const auto& field,
                                const char* description) {
    if (current != section) {
      text +=
          fmt::format("\n## [{}]: {}\n\n| key | type | default | meaning |\n|---|---|---|---|\n",
                      section, section_title(section));
      current = section;
    }
    using Field = std::remove_cvref_t<decltype(field)>;
    text += fmt::format("| `{}` | {} | `{}` | {} |\n", name, recipe_type_name<Field>(),
                        toml_value(field), description);
  });
  return text;
}

}  // namespace adder
