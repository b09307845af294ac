// The sizes of config.json against the shapes of the stored tensors: a disagreement is an error
// that names both (formats.md section 1).
#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "formats/model_files.h"
#include "formats/model_names.h"

namespace adder {
namespace {

struct ExpectedShape {
  std::string name;
  std::vector<int64_t> shape;
  const char* because;  // how the shape follows from the config
};

void add_mamba1(const ModelConfig& c, const std::string& mixer, std::vector<ExpectedShape>& out) {
  const int64_t bc = 2 * c.ngroups * c.d_state;
  out.push_back({mixer + "in_proj.weight", {2 * c.d_inner, c.d_model}, "[2 d_inner, d_model]"});
  out.push_back({mixer + "conv1d.weight", {c.d_inner, 1, c.d_conv}, "[d_inner, 1, d_conv]"});
  out.push_back({mixer + "x_proj.weight",
                 {c.dt_rank + bc, c.d_inner},
                 "[dt_rank + 2 ngroups d_state, d_inner]"});
  out.push_back({mixer + "dt_proj.weight", {c.d_inner, c.dt_rank}, "[d_inner, dt_rank]"});
  out.push_back({mixer + "A_log", {c.d_inner, c.d_state}, "[d_inner, d_state]"});
  out.push_back({mixer + "D", {c.d_inner}, "[d_inner]"});
  out.push_back({mixer + "out_proj.weight", {c.d_model, c.d_inner}, "[d_model, d_inner]"});
}

void add_mamba2(const ModelConfig& c, const std::string& mixer, std::vector<ExpectedShape>& out) {
  const int64_t channels = c.d_ssm + 2 * c.ngroups * c.d_state;
  // z0 and x0 of the MLP path, z, xBC, dt (math.md 7.3).
  const int64_t rows = 2 * (c.d_inner - c.d_ssm) + c.d_ssm + channels + c.heads();
  out.push_back({mixer + "in_proj.weight",
                 {rows, c.d_model},
                 "[2 d_inner + 2 ngroups d_state + heads, d_model]"});
  out.push_back(
      {mixer + "conv1d.weight", {channels, 1, c.d_conv}, "[d_ssm + 2 ngroups d_state, 1, d_conv]"});
  out.push_back({mixer + "A_log", {c.heads()}, "[heads]"});
  out.push_back({mixer + "D", {c.d_has_hdim ? c.d_ssm : c.heads()}, "[heads], or [d_ssm]"});
  if (c.rmsnorm) out.push_back({mixer + "norm.weight", {c.d_ssm}, "[d_ssm]"});
  out.push_back({mixer + "out_proj.weight", {c.d_model, c.d_inner}, "[d_model, d_inner]"});
}

/// One more than the highest index in "backbone.layers.{i}.".
int64_t count_layers(const std::vector<std::string>& names) {
  constexpr std::string_view kPrefix = "backbone.layers.";
  int64_t count = 0;
  for (const std::string& name : names) {
    if (!name.starts_with(kPrefix)) continue;
    int64_t layer = -1;
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
    if (layer >= 0 && layer < (int64_t{1} << 40)) count = std::max(count, layer + 1);
  }
  return count;
}

[[noreturn]] void disagree(const std::string& directory, const std::string& what,
                           std::string config, std::string tensors) {
  throw Error({what + ": config.json and the tensors disagree", directory,
               std::move(config) + " (config.json)", std::move(tensors) + " (tensors)"});
}

}  // namespace

void ModelFiles::check_sizes() {
  const int64_t layers = count_layers(names());
  if (layers != config_.n_layer) {
    disagree(directory_, "number of layers", std::to_string(config_.n_layer),
             std::to_string(layers));
  }
  std::vector<ExpectedShape> expected = {
      {kEmbeddingName, {config_.padded_vocab_size(), config_.d_model}, "[padded vocab, d_model]"},
      {"backbone.norm_f.weight", {config_.d_model}, "[d_model]"}};
  const auto& attention = config_.attn_layer_idx;
  int64_t layer = 0;  // the first that is no attention layer
  while (std::find(attention.begin(), attention.end(), layer) != attention.end()) ++layer;
  if (layer < layers) {
    const std::string mixer = "backbone.layers." + std::to_string(layer) + ".mixer.";
    (config_.is_mamba2() ? add_mamba2 : add_mamba1)(config_, mixer, expected);
    resolve_bias("bias", mixer + "in_proj.bias", config_.bias);
    std::optional<bool> conv_bias = config_.conv_bias;
    resolve_bias("conv_bias", mixer + "conv1d.bias", conv_bias);
  } else if (!config_.bias) {
    config_.bias = false;
  }
  for (const ExpectedShape& tensor : expected) {
    const TensorInfo stored = info(tensor.name);
    if (stored.shape != tensor.shape) {
      disagree(directory_, "tensor '" + stored_name(tensor.name) + "' " + tensor.because,
               shape_text(tensor.shape), shape_text(stored.shape));
    }
  }
}

void ModelFiles::resolve_bias(const char* key, const std::string& name,
                              std::optional<bool>& setting) {
  const bool stored = has(name);
  if (setting && *setting != stored) {
    disagree(directory_, key, *setting ? "true" : "false",
             stored ? "a '" + name + "'" : "no '" + name + "'");
  }
  setting = stored;
}

}  // namespace adder
