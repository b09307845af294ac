#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "apps/commands.h"
#include "apps/kernel_listing.h"
#include "apps/output.h"
#include "formats/json.h"
#include "formats/model_files.h"
#include "formats/safetensors.h"

namespace adder::apps {
namespace {

constexpr JsonStyle kOneLine{0, JsonNonFinite::tagged};

std::string directions_text(const KernelRow& row) {
  std::vector<std::string_view> names;
  for (const Direction direction : row.directions) names.push_back(direction_name(direction));
  return fmt::format("{}", fmt::join(names, " "));
}

JsonValue json_of(const KernelRow& row) {
  JsonValue directions = JsonValue::array();
  for (const Direction direction : row.directions) directions.push(direction_name(direction));
  JsonValue value = JsonValue::object();
  value.set("family", row.family)
      .set("operation", row.operation)
      .set("name", row.info.name)
      .set("device", device_name(row.info.device))
      .set("dtype", dtype_name(row.info.dtype))
      .set("types", row.types)
      .set("directions", directions)
      .set("exact_class", row.info.exact_class);
  return value;
}

void print_kernels(bool json) {
  const std::vector<KernelRow> rows = kernel_rows();
  if (json) {
    JsonValue list = JsonValue::array();
    for (const KernelRow& row : rows) list.push(json_of(row));
    put_line(write_json(JsonValue::object().set("kernels", list), kOneLine));
    return;
  }
  constexpr const char* kLayout = "{:<10} {:<13} {:<22} {:<6} {:<15} {:<16} {}";
  put_line(fmt::format(kLayout, "family", "operation", "name", "device", "types", "directions",
                       "exact class"));
  for (const KernelRow& row : rows) {
    const std::string exact =
        row.info.exact_class == 0 ? "-" : std::to_string(row.info.exact_class);
    put_line(fmt::format(kLayout, row.family, row.operation, row.info.name,
                         device_name(row.info.device), row.types, directions_text(row), exact));
  }
}

/// What is shown of a model or of one safetensors file.
struct ModelInfo {
  std::string path;
  std::string layout;  // empty: a file without a config
  JsonValue config;
  std::map<std::string, TensorInfo> tensors;
  std::vector<std::string> notes;
  int64_t total_elements = 0;
  int64_t total_bytes = 0;
};

ModelInfo read_model(const std::string& path) {
  ModelInfo model;
  model.path = path;
  if (std::filesystem::is_directory(path)) {
    const ModelFiles files(path);
    model.layout = config_layout_name(files.layout());
    model.config = model_config_json(files.config(), files.layout());
    for (const std::string& name : files.names()) model.tensors[name] = files.info(name);
    model.notes = files.notes();
  } else {
    model.tensors = SafetensorsFile(path).tensors();
  }
  for (const auto& [name, info] : model.tensors) {
    model.total_elements += info.elements();
    model.total_bytes += info.bytes();
  }
  return model;
}

void print_model_json(const ModelInfo& model) {
  JsonValue tensors = JsonValue::array();
  for (const auto& [name, info] : model.tensors) {
    JsonValue shape = JsonValue::array();
    for (const int64_t size : info.shape) shape.push(size);
    tensors.push(JsonValue::object()
                     .set("name", name)
                     .set("shape", shape)
                     .set("dtype", stored_dtype_name(info.dtype))
                     .set("count", info.elements()));
  }
  JsonValue notes = JsonValue::array();
  for (const std::string& note : model.notes) notes.push(note);
  JsonValue value = JsonValue::object();
  value.set("path", model.path)
      .set("layout", model.layout.empty() ? JsonValue() : JsonValue(model.layout))
      .set("config", model.config)
      .set("tensors", tensors)
      .set("parameters", model.total_elements)
      .set("bytes", model.total_bytes)
      .set("notes", notes);
  put_line(write_json(value, kOneLine));
}

void print_model(const ModelInfo& model) {
  if (!model.layout.empty()) {
    put_line(fmt::format("{}: {} layout", model.path, model.layout));
    for (const JsonMember& member : model.config.as_object()) {
      put_line(fmt::format("  {} = {}", member.key, write_json(member.value, kOneLine)));
    }
  }
  size_t widest = 4;
  for (const auto& [name, info] : model.tensors) widest = std::max(widest, name.size());
  put_line(fmt::format("{:<{}}  {:<6} {:>12}  {}", "name", widest, "dtype", "count", "shape"));
  for (const auto& [name, info] : model.tensors) {
    put_line(fmt::format("{:<{}}  {:<6} {:>12}  {}", name, widest, stored_dtype_name(info.dtype),
                         info.elements(), shape_text(info.shape)));
  }
  put_line(fmt::format("{} parameters in {} tensors, {} bytes", model.total_elements,
                       model.tensors.size(), model.total_bytes));
  for (const std::string& note : model.notes) put_line("note: " + note);
}

}  // namespace

void add_info_command(CLI::App& app) {
  struct Options {
    std::string subject;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* info =
      app.add_subcommand("info", "Show the kernels, or a model's config and parameters");
  info->add_option("WHAT", options->subject,
                   "\"kernels\", a model directory, or a .safetensors file")
      ->required();
  info->add_flag("--json", options->json, "Print JSON");
  info->callback([options] {
    if (options->subject == "kernels") return print_kernels(options->json);
    const ModelInfo model = read_model(options->subject);
    options->json ? print_model_json(model) : print_model(model);
  });
}

}  // namespace adder::apps
