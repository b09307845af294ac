// Small models that the tests of this room share: every option of the mixers in pairwise variety,
// and what runs them.
#pragma once

#include <string>
#include <vector>

#include "core/rng.h"
#include "layers/head.h"
#include "models/model_runner.h"

namespace adder {

struct ModelCase {
  std::string name;
  ModelConfig config;
  int64_t batch = 2;
  int64_t len = 7;
  std::vector<int32_t> cu_seqlens;  // packed when not empty
  LossOptions loss;
};

inline ModelConfig small_config(const std::string& arch = "mamba1") {
  ModelConfig config = default_model_config(arch);
  config.vocab_size = 11;
  config.pad_vocab_size_multiple = 1;
  config.d_model = 6;
  config.n_layer = 2;
  config.d_state = 3;
  config.headdim = 3;
  config.initializer_range = 0.5;
  config.bias = false;
  return config;
}

inline std::vector<ModelCase> mamba1_cases() {
  std::vector<ModelCase> all;
  all.push_back({"base", small_config(), 2, 7, {}, {}});
  ModelCase options{"biases_layer_norm_untied", small_config(), 2, 5, {}, {0.1, 1e-3}};
  options.config.bias = true;
  options.config.rms_norm = false;
  options.config.tie_embeddings = false;
  options.config.d_conv = 3;
  options.config.pad_vocab_size_multiple = 4;
  all.push_back(options);
  ModelCase plain{"no_conv_bias_rank_2_constant_dt", small_config(), 1, 9, {}, {}};
  plain.config.conv_bias = false;
  plain.config.dt_rank = 2;
  plain.config.dt_init = "constant";
  plain.config.rescale_out_proj = false;
  plain.config.d_conv = 1;
  all.push_back(plain);
  all.push_back({"packed", small_config(), 1, 12, {0, 5, 5, 6, 12}, {}});
  all.push_back({"one_token", small_config(), 3, 1, {}, {}});
  ModelCase mlp{"mlp_packed", small_config(), 1, 9, {0, 4, 9}, {}};
  mlp.config.d_intermediate = 100;  // rounded up to 128
  all.push_back(mlp);
  return all;
}

// d_inner is 12: 4 heads of 3 channels unless d_ssm leaves some of it to the MLP path.
inline std::vector<ModelCase> mamba2_cases() {
  const ModelConfig small = small_config("mamba2");
  std::vector<ModelCase> all;
  all.push_back({"mamba2_base", small, 2, 7, {}, {}});

  ModelCase before{"mamba2_groups_norm_before_gate_d_per_channel", small, 2, 5, {}, {0.1, 1e-3}};
  before.config.ngroups = 2;
  before.config.norm_before_gate = true;
  before.config.d_has_hdim = true;
  before.config.bias = true;
  before.config.rms_norm = false;
  before.config.tie_embeddings = false;
  before.config.pad_vocab_size_multiple = 4;
  all.push_back(before);

  ModelCase no_norm{"mamba2_no_norm_mlp_path", small, 2, 6, {}, {}};
  no_norm.config.rmsnorm = false;
  no_norm.config.d_ssm = 9;
  no_norm.config.ngroups = 3;
  no_norm.config.conv_bias = false;
  no_norm.config.d_intermediate = 128;
  no_norm.config.tie_embeddings = false;
  all.push_back(no_norm);

  ModelCase limits{"mamba2_mlp_path_one_norm_group_dt_limits", small, 1, 9, {}, {}};
  limits.config.d_ssm = 6;
  limits.config.ngroups = 2;
  limits.config.norm_groups = 1;
  limits.config.d_has_hdim = true;
  limits.config.dt_limit_min = 0.01;
  limits.config.dt_limit_max = 0.06;
  limits.config.d_conv = 2;
  limits.config.rescale_out_proj = false;
  all.push_back(limits);

  ModelCase packed{"mamba2_packed", small, 1, 12, {0, 5, 5, 6, 12}, {}};
  packed.config.rmsnorm = false;
  packed.config.d_has_hdim = true;
  packed.config.ngroups = 4;
  packed.config.bias = true;
  packed.config.headdim = 1;
  all.push_back(packed);

  // Three chunks of 64; and packed sequences whose boundaries fall inside chunks.
  ModelCase chunks{"mamba2_three_chunks", small, 1, 131, {}, {}};
  chunks.config.ngroups = 2;
  chunks.config.headdim = 2;
  all.push_back(chunks);
  ModelCase packed_chunks{"mamba2_packed_chunks", small, 1, 140, {0, 70, 70, 75, 140}, {}};
  packed_chunks.config.norm_before_gate = true;
  packed_chunks.config.d_ssm = 9;
  packed_chunks.config.d_intermediate = 1;
  packed_chunks.config.rms_norm = false;
  packed_chunks.config.d_state = 5;
  all.push_back(packed_chunks);

  all.push_back({"mamba2_one_token", small, 3, 1, {}, {}});
  return all;
}

inline std::vector<ModelCase> all_cases() {
  std::vector<ModelCase> all = mamba1_cases();
  for (ModelCase& c : mamba2_cases()) all.push_back(std::move(c));
  return all;
}

struct Tokens {
  int64_t batch = 1, len = 0;
  std::vector<int32_t> ids, targets, cu_seqlens;

  CallInput input() const {
    return {.batch = batch, .len = len, .ids = ids, .targets = targets, .cu_seqlens = cu_seqlens};
  }
};

inline Tokens make_tokens(const ModelCase& c) {
  Tokens t{c.batch, c.len, {}, {}, c.cu_seqlens};
  for (int64_t i = 0; i < c.batch * c.len; ++i) {
    const auto index = static_cast<uint64_t>(i);
    const auto vocab = static_cast<uint64_t>(c.config.vocab_size);
    t.ids.push_back(static_cast<int32_t>(uniform_below(5, 1, index, vocab)));
    t.targets.push_back(i == 2 ? kIgnoreIndex
                               : static_cast<int32_t>(uniform_below(5, 2, index, vocab)));
  }
  return t;
}

template <class Acc>
std::unique_ptr<LanguageModel<Acc>> new_model(const ModelConfig& config, uint64_t seed,
                                              Dtype compute = dtype_of<Acc>) {
  ModelBuild build;
  build.compute = compute;
  auto model = make_model<Acc>(config, build);
  model->initialize(seed);
  return model;
}

/// Every gradient, one parameter after the other.
template <class Acc>
std::vector<Acc> all_gradients(const LanguageModel<Acc>& model) {
  std::vector<Acc> all;
  for (int64_t p = 0; p < model.params().size(); ++p) {
    if (!model.params().info(p).alias_of.empty()) continue;
    const auto one = model.store().read_gradient(p);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

/// Losses of the rows; gradients of scale * their sum are in the model's store afterwards.
template <class Acc>
std::vector<double> train_once(LanguageModel<Acc>& model, const Tokens& t, double scale,
                               const LossOptions& options = {}, int threads = 1) {
  model.enable_training();
  ModelRunner<Acc> runner(model, Context{.threads = threads}, "test");
  const auto losses = runner.losses_and_gradients(model, t.input(), scale, options);
  return {losses.begin(), losses.end()};
}

}  // namespace adder
