#include <cmath>

#include "layers/mamba1.h"
#include "models/stack.h"

namespace adder {
namespace {

Mamba1Config mamba1_config(const ModelConfig& config) {
  Mamba1Config mixer;
  mixer.d_model = config.d_model;
  mixer.d_inner = config.d_inner;
  mixer.state = config.d_state;
  mixer.conv_width = config.d_conv;
  mixer.dt_rank = config.dt_rank;
  mixer.bias = config.bias.value_or(false);
  mixer.conv_bias = config.conv_bias;
  mixer.dt_limit_low = config.dt_limit_min;
  mixer.dt_limit_high = config.dt_limit_max;
  mixer.dt_min = config.dt_min;
  mixer.dt_max = config.dt_max;
  mixer.dt_init_floor = config.dt_init_floor;
  mixer.dt_scale = config.dt_scale;
  mixer.dt_init_constant = config.dt_init == "constant";
  if (config.rescale_out_proj) {
    mixer.out_proj_scale = 1.0 / std::sqrt(static_cast<double>(config.n_layer));
  }
  return mixer;
}

template <class T>
std::unique_ptr<Mixer<T>> make_mixer(const ModelConfig& config) {
  if (config.arch == "mamba1") return std::make_unique<Mamba1Mixer<T>>(mamba1_config(config));
  throw Error({"this build has no such mixer", "model config: arch", "mamba1", config.arch});
}

}  // namespace

template <class T>
std::vector<Branch<T>> make_branches(const ModelConfig& config) {
  if (!config.attn_layer_idx.empty()) {
    throw Error({"this build has no attention layers", "model config: attn_layer_idx", "[]",
                 std::to_string(config.attn_layer_idx.size()) + " layers"});
  }
  if (config.d_intermediate > 0) {
    throw Error({"this build has no gated MLP", "model config: d_intermediate", "0",
                 std::to_string(config.d_intermediate)});
  }
  std::vector<Branch<T>> branches;
  for (int64_t i = 0; i < config.n_layer; ++i) {
    const std::string layer = "backbone.layers." + std::to_string(i) + ".";
    ResidualNorm<T> norm(layer + "norm", config.d_model, config.rms_norm, config.norm_eps);
    branches.push_back({std::move(norm), layer + "mixer.", make_mixer<T>(config)});
  }
  return branches;
}

template std::vector<Branch<double>> make_branches<double>(const ModelConfig&);
template std::vector<Branch<float>> make_branches<float>(const ModelConfig&);
template std::vector<Branch<Bf16>> make_branches<Bf16>(const ModelConfig&);

}  // namespace adder
