#include <cmath>

#include "core/error.h"
#include "formats/model_config.h"
#include "formats/model_config_fields.h"

namespace adder {
namespace {

JsonValue to_json(const std::string& value) { return value; }
JsonValue to_json(int64_t value) { return value; }
JsonValue to_json(double value) { return value; }
JsonValue to_json(bool value) { return value; }
JsonValue to_json(const JsonValue& value) { return value; }
JsonValue to_json(const std::vector<int64_t>& values) {
  JsonValue array = JsonValue::array();
  for (const int64_t value : values) array.push(value);
  return array;
}
template <class T>
JsonValue to_json(const std::optional<T>& value) {
  return value ? JsonValue(*value) : JsonValue();
}

/// One id as a number, several as a list, none as null.
JsonValue tokens_json(const std::vector<int64_t>& tokens) {
  if (tokens.empty()) return {};
  return tokens.size() == 1 ? JsonValue(tokens.front()) : to_json(tokens);
}

/// Writes 2 rather than 2.0, since readers expect an integer `expand` where it is one.
JsonValue whole_if_possible(double value) {
  const bool whole = std::floor(value) == value && std::abs(value) < 1e9;
  return whole ? JsonValue(static_cast<int64_t>(value)) : JsonValue(value);
}

JsonValue pair_json(double lower, double upper) {
  return JsonValue(JsonValue::Array{lower, upper});
}

JsonValue hf_json(const ModelConfig& config, std::string_view dtype) {
  const bool second = config.is_mamba2();
  JsonValue json = JsonValue::object();
  json.set("architectures",
           JsonValue::Array{JsonValue(second ? "Mamba2ForCausalLM" : "MambaForCausalLM")});
  json.set("bos_token_id", to_json(config.bos_token_id));
  if (second) json.set("chunk_size", config.chunk_size);
  json.set("conv_kernel", config.d_conv);
  json.set("dtype", dtype);
  json.set("eos_token_id", tokens_json(config.eos_token_ids));
  json.set("expand", whole_if_possible(config.expand));
  if (second) json.set("head_dim", config.headdim);
  json.set("hidden_act", "silu").set("hidden_size", config.d_model);
  json.set("initializer_range", config.initializer_range);
  if (!second) json.set("intermediate_size", config.d_inner);
  json.set("layer_norm_epsilon", config.norm_eps);
  json.set("model_type", second ? "mamba2" : "mamba");
  if (second) json.set("n_groups", config.ngroups).set("num_heads", config.heads());
  json.set("num_hidden_layers", config.n_layer);
  json.set("pad_token_id", to_json(config.pad_token_id));
  // The key concerns start values only, and the weights are stored: with it transformers would
  // divide the out_proj weights by sqrt(n_layer) once more while loading them.
  json.set("rescale_prenorm_residual", false);
  json.set("residual_in_fp32", config.residual_in_fp32);
  if (second) json.set("rms_norm", true);
  json.set("state_size", config.d_state);
  json.set("tie_word_embeddings", config.tie_embeddings);
  json.set("time_step_floor", config.dt_init_floor);
  if (!second) json.set("time_step_init_scheme", config.dt_init);
  // Versions of transformers spell an infinite limit differently; all take it by default.
  const bool limited = config.dt_limit_min > 0 || std::isfinite(config.dt_limit_max);
  if (second && limited) {
    json.set("time_step_limit", pair_json(config.dt_limit_min, config.dt_limit_max));
  }
  json.set("time_step_max", config.dt_max).set("time_step_min", config.dt_min);
  json.set("time_step_rank", config.dt_rank);
  if (!second) json.set("time_step_scale", config.dt_scale);
  json.set("use_bias", config.bias.value_or(false)).set("use_cache", true);
  json.set("use_conv_bias", config.conv_bias).set("vocab_size", config.vocab_size);
  return json;
}

JsonValue ssm_cfg_json(const ModelConfig& config) {
  JsonValue json = JsonValue::object();
  json.set("layer", config.is_mamba2() ? "Mamba2" : "Mamba1");
  json.set("d_state", config.d_state).set("d_conv", config.d_conv);
  json.set("expand", whole_if_possible(config.expand));
  json.set("dt_min", config.dt_min).set("dt_max", config.dt_max);
  json.set("dt_init_floor", config.dt_init_floor).set("conv_bias", config.conv_bias);
  if (config.bias) json.set("bias", *config.bias);
  if (!config.is_mamba2()) {
    json.set("dt_rank", config.dt_rank).set("dt_init", config.dt_init);
    return json.set("dt_scale", config.dt_scale);
  }
  json.set("headdim", config.headdim).set("ngroups", config.ngroups);
  if (config.d_ssm != config.d_inner) json.set("d_ssm", config.d_ssm);
  json.set("A_init_range", pair_json(config.a_init_min, config.a_init_max));
  json.set("D_has_hdim", config.d_has_hdim).set("rmsnorm", config.rmsnorm);
  json.set("norm_before_gate", config.norm_before_gate).set("chunk_size", config.chunk_size);
  const bool limited = config.dt_limit_min > 0 || std::isfinite(config.dt_limit_max);
  if (limited) json.set("dt_limit", pair_json(config.dt_limit_min, config.dt_limit_max));
  return json;
}

JsonValue native_json(const ModelConfig& config) {
  JsonValue json = JsonValue::object();
  json.set("d_model", config.d_model).set("d_intermediate", config.d_intermediate);
  json.set("n_layer", config.n_layer).set("vocab_size", config.vocab_size);
  json.set("ssm_cfg", ssm_cfg_json(config));
  json.set("attn_layer_idx", to_json(config.attn_layer_idx)).set("attn_cfg", config.attn_cfg);
  json.set("rms_norm", config.rms_norm).set("residual_in_fp32", config.residual_in_fp32);
  json.set("fused_add_norm", true);
  json.set("pad_vocab_size_multiple", config.pad_vocab_size_multiple);
  return json.set("tie_embeddings", config.tie_embeddings);
}

/// The fields that reading `native` back would not give, which only the "adder" object can hold.
JsonValue lost_fields(const ModelConfig& config, const JsonValue& native) {
  JsonValue wanted = JsonValue::object(), lost = JsonValue::object();
  visit_model_config(config,
                     [&](const char* key, const auto& field) { wanted.set(key, to_json(field)); });
  const ModelConfig read = read_native_config(native, "config.json");
  visit_model_config(read, [&](const char* key, const auto& field) {
    const JsonValue& value = *wanted.find(key);
    if (value != to_json(field)) lost.set(key, value);
  });
  return lost;
}

}  // namespace

JsonValue model_config_json(const ModelConfig& config, ConfigLayout layout,
                            std::string_view dtype) {
  ModelConfig full = config;
  resolve(full, "model config");
  if (layout == ConfigLayout::hf) {
    if (const auto reason = hf_cannot_express(full)) {
      throw Error("the Hugging Face layout cannot express " + *reason);
    }
    return hf_json(full, dtype);
  }
  JsonValue json = native_json(full);
  JsonValue lost = lost_fields(full, json);
  if (layout == ConfigLayout::native) {
    if (lost.as_object().empty()) return json;
    throw Error("the state-spaces layout cannot express the field " + lost.as_object().front().key);
  }
  return json.set("adder", std::move(lost));
}

JsonValue generation_config_json(const GenerationConfig& config) {
  JsonValue json = JsonValue::object();
  json.set("bos_token_id", to_json(config.bos_token_id));
  json.set("eos_token_id", tokens_json(config.eos_token_ids));
  json.set("pad_token_id", to_json(config.pad_token_id));
  visit_generation_config(config, [&](const char* key, const auto& value) {
    if (value) json.set(key, *value);
  });
  return json;
}

}  // namespace adder
