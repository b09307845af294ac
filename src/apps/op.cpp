#include "apps/op.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "apps/commands.h"
#include "apps/output.h"
#include "formats/json.h"

namespace adder::apps {
namespace {

struct Op {
  const char* name;
  void (*run)(const OpRequest&, OpInputs&, OpOutputs&);
};
constexpr Op kOps[] = {
    {"s6", run_s6_op},
    {"ssd", run_ssd_op},
    {"conv1d", run_conv1d_op},
};

// Outputs and upstream gradients, which an input file may carry along (the goldens do).
constexpr std::string_view kCarried[] = {"y", "hT", "sT", "gy", "ghT", "gsT"};

struct OpOptions {
  std::string name;
  std::string input;
  std::string output;
  std::string dtype = "f64";
  std::string impl;
  int threads = 0;
  bool grads = false;
  bool json = false;
};

const Op& find_op(const std::string& name) {
  std::vector<std::string> known;
  for (const Op& op : kOps) {
    if (name == op.name) return op;
    known.emplace_back(op.name);
  }
  const std::string nearest = nearest_name(name, known);
  throw UsageError({"unknown operator", "op", fmt::format("{}", fmt::join(known, ", ")),
                    name + (nearest.empty() ? "" : " (did you mean " + nearest + "?)")});
}

Dtype dtype_option(const std::string& name) {
  if (name == "f64" || name == "f32" || name == "bf16") return dtype_from_name(name);
  throw UsageError({"unknown type", "--dtype", "f64, f32 or bf16", name});
}

void print_summary(const OpOptions& options, const OpRequest& request, const OpOutputs& out) {
  JsonValue tensors = JsonValue::array();
  for (const TensorSource& tensor : out.tensors()) {
    JsonValue shape = JsonValue::array();
    for (const int64_t size : tensor.shape) shape.push(size);
    tensors.push(JsonValue::object()
                     .set("name", tensor.name)
                     .set("dtype", stored_dtype_name(tensor.dtype))
                     .set("shape", shape));
  }
  JsonValue lines = JsonValue::array();
  for (const std::string& line : out.lines()) lines.push(line);
  JsonValue summary = JsonValue::object();
  summary.set("op", options.name)
      .set("dtype", dtype_name(request.dtype))
      .set("lines", lines)
      .set("grads", request.grads)
      .set("output", options.output)
      .set("tensors", tensors);
  put_line(write_json(summary, {0, JsonNonFinite::tagged}));
}

void run_op(const OpOptions& options) {
  const Op& op = find_op(options.name);
  OpRequest request;
  request.dtype = dtype_option(options.dtype);
  request.grads = options.grads;
  request.impl = options.impl;
  request.threads = options.threads > 0 ? options.threads : available_threads();
  OpInputs in(options.input);
  OpOutputs out;
  op.run(request, in, out);
  for (const std::string& name : in.unknown_names()) {
    const std::string nearest = nearest_name(name, in.asked());
    std::fprintf(stderr, "adder: note: %s: tensor '%s' is no input of %s%s: ignored\n",
                 options.input.c_str(), name.c_str(), op.name,
                 nearest.empty() ? "" : (" (did you mean '" + nearest + "'?)").c_str());
  }
  write_safetensors(options.output, out.tensors());
  if (options.json) print_summary(options, request, out);
}

}  // namespace

bool OpInputs::has(std::string_view name) {
  if (std::find(asked_.begin(), asked_.end(), name) == asked_.end()) asked_.emplace_back(name);
  return file_.has(name);
}

std::vector<int64_t> OpInputs::sizes(std::string_view name,
                                     std::initializer_list<const char*> names) {
  has(name);  // known from here on
  const TensorInfo info = file_.info(name);
  if (info.shape.size() != names.size()) {
    fail(name, "wrong number of dimensions", fmt::format("[{}]", fmt::join(names, ", ")),
         shape_text(info.shape));
  }
  // Sizes of tensors without elements are free: no product of ours may overflow.
  constexpr double kLargest = 0x1p40;
  double product = 1;
  for (const int64_t size : info.shape) product *= static_cast<double>(std::max<int64_t>(size, 1));
  if (product > kLargest) {
    fail(name, "too large", "at most 2^40 elements", shape_text(info.shape));
  }
  return info.shape;
}

template <class T>
OpArray<T> OpInputs::read(std::string_view name, const std::vector<int64_t>& shape) {
  has(name);
  const TensorInfo info = file_.info(name);
  if (info.shape != shape) fail(name, "wrong shape", shape_text(shape), shape_text(info.shape));
  OpArray<T> array(shape);
  file_.read_as(name, array.data());
  return array;
}

template OpArray<double> OpInputs::read(std::string_view, const std::vector<int64_t>&);
template OpArray<float> OpInputs::read(std::string_view, const std::vector<int64_t>&);
template OpArray<Bf16> OpInputs::read(std::string_view, const std::vector<int64_t>&);
template OpArray<int32_t> OpInputs::read(std::string_view, const std::vector<int64_t>&);

bool OpInputs::flag(std::string_view name, bool fallback) {
  if (!has(name)) return fallback;
  const TensorInfo info = file_.info(name);
  if (info.elements() != 1) fail(name, "not a flag", "one element", shape_text(info.shape));
  int64_t value = 0;
  if (info.dtype == Dtype::boolean) {
    value = static_cast<int64_t>(file_.data(name)[0]);
  } else {
    file_.read_as(name, &value);
  }
  if (value != 0 && value != 1) fail(name, "not a flag", "0 or 1", std::to_string(value));
  return value == 1;
}

std::vector<int32_t> OpInputs::sequence_starts(int64_t batch, int64_t len) {
  constexpr std::string_view kName = "cu_seqlens";
  if (!has(kName)) return {};
  const std::vector<int64_t> shape = sizes(kName, {"sequences + 1"});
  if (shape[0] < 2) fail(kName, "wrong shape", "at least 2 entries", shape_text(shape));
  if (batch != 1) fail(kName, "packed sequences", "batch 1", std::to_string(batch));
  const OpArray<int32_t> read_starts = read<int32_t>(kName, shape);
  const std::vector<int32_t> starts(read_starts.data(), read_starts.data() + shape[0]);
  if (starts.front() != 0 || starts.back() != len ||
      !std::is_sorted(starts.begin(), starts.end())) {
    fail(kName, "wrong sequence bounds", fmt::format("ascending from 0 to the length {}", len),
         fmt::format("[{}]", fmt::join(starts, ", ")));
  }
  return starts;
}

void OpInputs::read_into(std::string_view name, const std::vector<int64_t>& shape,
                         measure::Array& array) {
  has(name);  // known from here on
  const TensorInfo info = file_.info(name);
  if (info.shape != shape) fail(name, "wrong shape", shape_text(shape), shape_text(info.shape));
  std::byte* data = array.image(measure::Side::host);
  switch (array.dtype()) {
    case Dtype::f64:
      return file_.read_as(name, reinterpret_cast<double*>(data));
    case Dtype::f32:
      return file_.read_as(name, reinterpret_cast<float*>(data));
    default:
      ADDER_CHECK(array.dtype() == Dtype::bf16);
      return file_.read_as(name, reinterpret_cast<Bf16*>(data));
  }
}

void OpInputs::fail(std::string_view name, std::string what, std::string expected,
                    std::string got) const {
  throw Error({std::move(what), fmt::format("{}: tensor '{}'", file_.path(), name),
               std::move(expected), std::move(got)});
}

std::vector<std::string> OpInputs::unknown_names() const {
  std::vector<std::string> unknown;
  for (const std::string& name : file_.names()) {
    const bool carried =
        name.rfind("d_", 0) == 0 ||
        std::find(std::begin(kCarried), std::end(kCarried), name) != std::end(kCarried);
    const bool asked = std::find(asked_.begin(), asked_.end(), name) != asked_.end();
    if (!carried && !asked) unknown.push_back(name);
  }
  return unknown;
}

void read_call(const OpRequest& request, OpInputs& in, const OpShapes& shapes,
               measure::Call& call) {
  std::vector<const char*> upstream;
  bool any = false;
  for (const measure::Listed& each : call.arrays()) {
    const auto shape = shapes.find(each.name);
    if (each.role == measure::Role::input && shape != shapes.end()) {
      in.read_into(each.name, shape->second, *each.array);
    } else if (each.role == measure::Role::upstream && request.grads) {
      upstream.push_back(each.name);
      if (in.has(each.name)) {
        in.read_into(each.name, shapes.at(each.name), *each.array);
        any = true;
      } else if (each.token > 0) {
        each.array->zero();  // an upstream gradient of tokens is needed
      } else {
        *each.array = measure::Array();
      }
    } else if (each.role == measure::Role::gradient && !each.of->present()) {
      *each.array = measure::Array();
    } else if (each.role != measure::Role::input) {
      each.array->zero();
    }
  }
  if (request.grads && !any) {
    in.fail("gy", "--grads", fmt::format("{}", fmt::join(upstream, " or ")), "neither");
  }
}

void OpOutputs::add_call(std::unique_ptr<measure::Call> call, const OpShapes& shapes, bool grads) {
  const auto all = call->arrays();
  const auto name_of = [&](const measure::Array* array) {
    return std::string(std::find_if(all.begin(), all.end(), [&](const measure::Listed& each) {
                         return each.array == array;
                       })->name);
  };
  for (const measure::Listed& each : all) {
    const bool gradient = each.written(Direction::backward);
    const std::string source = gradient ? name_of(each.of) : each.name;
    const auto shape = shapes.find(source);
    if (!(gradient ? grads : each.written(Direction::forward)) || shape == shapes.end()) continue;
    const auto bytes = static_cast<size_t>(each.array->count() * dtype_bytes(each.array->dtype()));
    sources_.push_back({(gradient ? "d_" : "") + source,
                        each.array->dtype(),
                        shape->second,
                        {each.array->image(measure::Side::host), bytes}});
  }
  calls_.push_back(std::move(call));
}

void add_op_command(CLI::App& app) {
  auto options = std::make_shared<OpOptions>();
  CLI::App* command = app.add_subcommand("op", "Run one operator on tensors from a file");
  std::vector<const char*> names;
  for (const Op& op : kOps) names.push_back(op.name);
  command
      ->add_option("NAME", options->name, fmt::format("The operator: {}", fmt::join(names, ", ")))
      ->required();
  command->add_option("--input", options->input, "Inputs, safetensors; an absent one is off")
      ->required();
  command->add_option("--output", options->output, "Outputs, safetensors")->required();
  command->add_flag("--grads", options->grads,
                    "Read the upstream gradients gy, ghT, gsT and write d_<input>");
  command->add_option("--dtype", options->dtype, "f64 (default), f32 or bf16");
  command->add_option("--impl", options->impl,
                      "A line of `adder info kernels`, or reference (default in f64)");
  command->add_option("--threads", options->threads, "Threads (default: all cores)")
      ->check(CLI::Range(1, 4096));
  command->add_flag("--json", options->json, "Print what was written as JSON");
  command->callback([options] { run_op(*options); });
}

}  // namespace adder::apps
