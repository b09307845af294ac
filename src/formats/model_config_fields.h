// Every field of ModelConfig once, under the key that the "adder" object of config.json uses.
// Private to the room.
#pragma once

#include "formats/model_config.h"

namespace adder {

/// Calls visit(key, field) for each field, in the order of the struct.
template <class Config, class Visit>
void visit_model_config(Config& config, Visit&& visit) {
  visit("arch", config.arch);
  visit("vocab_size", config.vocab_size);
  visit("pad_vocab_size_multiple", config.pad_vocab_size_multiple);
  visit("d_model", config.d_model);
  visit("n_layer", config.n_layer);
  visit("d_intermediate", config.d_intermediate);
  visit("d_state", config.d_state);
  visit("d_conv", config.d_conv);
  visit("expand", config.expand);
  visit("d_inner", config.d_inner);
  visit("dt_rank", config.dt_rank);
  visit("dt_min", config.dt_min);
  visit("dt_max", config.dt_max);
  visit("dt_init", config.dt_init);
  visit("dt_scale", config.dt_scale);
  visit("dt_init_floor", config.dt_init_floor);
  visit("dt_limit_min", config.dt_limit_min);
  visit("dt_limit_max", config.dt_limit_max);
  visit("conv_bias", config.conv_bias);
  visit("bias", config.bias);
  visit("ngroups", config.ngroups);
  visit("headdim", config.headdim);
  visit("d_ssm", config.d_ssm);
  visit("a_init_min", config.a_init_min);
  visit("a_init_max", config.a_init_max);
  visit("d_has_hdim", config.d_has_hdim);
  visit("rmsnorm", config.rmsnorm);
  visit("norm_before_gate", config.norm_before_gate);
  visit("norm_groups", config.norm_groups);
  visit("chunk_size", config.chunk_size);
  visit("rms_norm", config.rms_norm);
  visit("norm_eps", config.norm_eps);
  visit("residual_in_fp32", config.residual_in_fp32);
  visit("tie_embeddings", config.tie_embeddings);
  visit("initializer_range", config.initializer_range);
  visit("rescale_out_proj", config.rescale_out_proj);
  visit("attn_layer_idx", config.attn_layer_idx);
  visit("attn_cfg", config.attn_cfg);
  visit("bos_token_id", config.bos_token_id);
  visit("eos_token_ids", config.eos_token_ids);
  visit("pad_token_id", config.pad_token_id);
}

/// The same for the fields of GenerationConfig that are a plain value or absent.
template <class Config, class Visit>
void visit_generation_config(Config& config, Visit&& visit) {
  visit("max_length", config.max_length);
  visit("max_new_tokens", config.max_new_tokens);
  visit("do_sample", config.do_sample);
  visit("temperature", config.temperature);
  visit("top_k", config.top_k);
  visit("top_p", config.top_p);
  visit("min_p", config.min_p);
  visit("repetition_penalty", config.repetition_penalty);
}

/// The native keys alone, with the derived sizes filled in and nothing checked beyond types.
ModelConfig read_native_config(const JsonValue& json, const std::string& where);
/// Fills the sizes that follow from others, where they are 0. Nothing is checked.
void fill_derived_sizes(ModelConfig& config);
/// Checks ranges and divisibilities; see resolve().
void check_model_config(const ModelConfig& config, const std::string& where);

}  // namespace adder
