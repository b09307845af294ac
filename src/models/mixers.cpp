#include <cmath>

#include "layers/gated_mlp.h"
#include "layers/mamba1.h"
#include "layers/mamba2.h"
#include "models/stack.h"

namespace adder {
namespace {

// Factor on the start values of what a branch adds to the residual (math.md 7.7).
double residual_scale(const ModelConfig& config) {
  return config.rescale_out_proj ? 1.0 / std::sqrt(static_cast<double>(config.n_layer)) : 1.0;
}

DtConfig dt_config(const ModelConfig& config) {
  return {config.dt_limit_min, config.dt_limit_max, config.dt_min, config.dt_max,
          config.dt_init_floor};
}

Mamba1Config mamba1_config(const ModelConfig& config) {
  if (config.ngroups != 1) {
    throw Error({"Mamba-1 has one group of B and C", "model config: ngroups", "1",
                 std::to_string(config.ngroups)});
  }
  Mamba1Config mixer;
  mixer.d_model = config.d_model;
  mixer.d_inner = config.d_inner;
  mixer.state = config.d_state;
  mixer.conv_width = config.d_conv;
  mixer.dt_rank = config.dt_rank;
  mixer.bias = config.bias.value_or(false);
  mixer.conv_bias = config.conv_bias;
  mixer.dt_scale = config.dt_scale;
  mixer.dt_init_constant = config.dt_init == "constant";
  mixer.dt = dt_config(config);
  mixer.out_proj_scale = residual_scale(config);
  return mixer;
}

Mamba2Config mamba2_config(const ModelConfig& config) {
  Mamba2Config mixer;
  mixer.d_model = config.d_model;
  mixer.d_inner = config.d_inner;
  mixer.d_ssm = config.d_ssm;
  mixer.head_dim = config.headdim;
  mixer.state = config.d_state;
  mixer.groups = config.ngroups;
  mixer.conv_width = config.d_conv;
  mixer.bias = config.bias.value_or(false);
  mixer.conv_bias = config.conv_bias;
  mixer.d_per_channel = config.d_has_hdim;
  mixer.norm = config.rmsnorm;
  mixer.norm_before_gate = config.norm_before_gate;
  mixer.norm_groups = config.norm_groups;
  mixer.norm_eps = config.norm_eps;
  mixer.a_min = config.a_init_min;
  mixer.a_max = config.a_init_max;
  mixer.dt = dt_config(config);
  mixer.out_proj_scale = residual_scale(config);
  return mixer;
}

GatedMlpConfig mlp_config(const ModelConfig& config) {
  return {config.d_model, config.mlp_width(), residual_scale(config)};
}

template <class T>
std::unique_ptr<Mixer<T>> make_mixer(const ModelConfig& config) {
  if (config.arch == "mamba1") return std::make_unique<Mamba1Mixer<T>>(mamba1_config(config));
  if (config.arch == "mamba2") return std::make_unique<Mamba2Mixer<T>>(mamba2_config(config));
  throw Error(
      {"this build has no such mixer", "model config: arch", "mamba1 or mamba2", config.arch});
}

}  // namespace

template <class T>
std::vector<Branch<T>> make_branches(const ModelConfig& config) {
  if (!config.attn_layer_idx.empty()) {
    throw Error({"this build has no attention layers", "model config: attn_layer_idx", "[]",
                 std::to_string(config.attn_layer_idx.size()) + " layers"});
  }
  std::vector<Branch<T>> branches;
  const auto add = [&](const std::string& norm, std::string prefix,
                       std::unique_ptr<Mixer<T>> mixer) {
    branches.push_back({ResidualNorm<T>(norm, config.d_model, config.rms_norm, config.norm_eps),
                        std::move(prefix), std::move(mixer)});
  };
  for (int64_t i = 0; i < config.n_layer; ++i) {
    const std::string layer = "backbone.layers." + std::to_string(i) + ".";
    add(layer + "norm", layer + "mixer.", make_mixer<T>(config));
    if (config.d_intermediate > 0) {
      add(layer + "norm2", layer + "mlp.", std::make_unique<GatedMlp<T>>(mlp_config(config)));
    }
  }
  return branches;
}

template std::vector<Branch<double>> make_branches<double>(const ModelConfig&);
template std::vector<Branch<float>> make_branches<float>(const ModelConfig&);
template std::vector<Branch<Bf16>> make_branches<Bf16>(const ModelConfig&);

}  // namespace adder
