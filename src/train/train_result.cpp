#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"
#include "train/loop.h"

namespace adder {
namespace {

std::map<std::string, JsonValue> flat_members(const JsonValue& recipe) {
  std::map<std::string, JsonValue> members;
  for (const JsonMember& item : recipe.as_object()) members[item.key] = item.value;
  return members;
}

}  // namespace

void refuse_changed_recipe(const JsonValue& stored, const JsonValue& now,
                           const std::vector<std::string>& may_change, const std::string& where) {
  const auto before = flat_members(stored);
  const auto after = flat_members(now);
  for (const auto& [key, value] : after) {
    const auto match = [&key = key](const std::string& pattern) {
      return glob_match(pattern, key);
    };
    if (std::any_of(may_change.begin(), may_change.end(), match)) continue;
    const auto old = before.find(key);
    const std::string wanted = write_json(value, {.indent = 0});
    const std::string had =
        old == before.end() ? "no such key" : write_json(old->second, {.indent = 0});
    if (had == wanted) continue;  // as written: infinity comes back from a file as an object
    throw Error(
        {"the recipe of the run cannot be changed on resume: '" + key + "'", where, had, wanted});
  }
}

JsonValue train_result_json(const TrainResult& result) {
  const auto number = [](const std::optional<double>& value) {
    return value && std::isfinite(*value) ? JsonValue(*value) : JsonValue(nullptr);
  };
  JsonValue json;
  json.set("finished", result.finished);
  json.set("step", result.step);
  json.set("steps", result.steps);
  json.set("tokens", result.tokens);
  json.set("skipped", result.skipped);
  json.set("seconds", result.seconds);
  json.set("tokens_per_s", result.tokens_per_s);
  json.set("parameters", result.parameters);
  json.set("best_step", result.best_step);
  json.set("val_loss", number(result.val_loss));
  json.set("bits_per_byte", number(result.bits_per_byte));
  json.set("loss_unit", result.loss_unit);
  json.set("train_loss", number(result.train_loss));
  json.set("model_note", result.model_note);
  json.set("plot_note", result.plot_note);
  return json;
}

TrainResult train_result_from_json(const JsonValue& json, const std::string& where) {
  JsonFields fields(json, where);
  TrainResult result;
  result.finished = fields.get_bool("finished");
  result.step = fields.get_int("step");
  result.steps = fields.get_int("steps");
  result.tokens = fields.get_int("tokens");
  result.skipped = fields.get_int("skipped");
  result.seconds = fields.get_double("seconds");
  result.tokens_per_s = fields.get_double("tokens_per_s");
  result.parameters = fields.get_int("parameters");
  result.best_step = fields.get_int("best_step");
  if (fields.has("val_loss")) result.val_loss = fields.get_double("val_loss");
  if (fields.has("bits_per_byte")) result.bits_per_byte = fields.get_double("bits_per_byte");
  result.train_loss = fields.has("train_loss") ? fields.get_double("train_loss") : NAN;
  result.loss_unit = fields.get_string("loss_unit", "nats/token");
  result.model_note = fields.get_string("model_note", "");
  result.plot_note = fields.get_string("plot_note", "");
  return result;
}

}  // namespace adder
