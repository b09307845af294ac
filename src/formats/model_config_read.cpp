#include <filesystem>

#include "core/error.h"
#include "formats/model_config.h"
#include "formats/model_config_fields.h"

namespace adder {
namespace {

// ---- pieces that several layouts share

std::string shown(const JsonValue& value) {
  return value.is_object() ? "an object" : write_json(value, {0, JsonNonFinite::bare});
}

/// An integer or "auto" (0: derived later).
int64_t get_rank(JsonFields& fields, std::string_view key) {
  const JsonValue* value = fields.find(key);
  if (value == nullptr || *value == JsonValue("auto")) return 0;
  if (value->kind() != JsonValue::Kind::integer) {
    fields.fail(key, "wrong type", "an integer or \"auto\"", shown(*value));
  }
  return value->as_int();
}

void get_pair(JsonFields& fields, std::string_view key, double* lower, double* upper) {
  const std::vector<double> pair = fields.get_doubles(key, std::vector<double>{*lower, *upper});
  if (pair.size() != 2) fields.fail(key, "wrong length", "2", std::to_string(pair.size()));
  *lower = pair[0];
  *upper = pair[1];
}

/// A token id; null says that there is none, a missing key takes the fallback.
std::optional<int64_t> get_token(JsonFields& fields, const JsonValue& object, std::string_view key,
                                 std::optional<int64_t> fallback) {
  const JsonValue* stored = object.find(key);
  if (stored != nullptr && stored->is_null()) {
    fields.ignore(key);
    return {};
  }
  if (stored == nullptr && !fallback) {
    fields.ignore(key);
    return {};
  }
  return fields.get_int(key, fallback);
}

/// eos_token_id: an integer, a list of them, or null.
std::vector<int64_t> get_tokens(JsonFields& fields, const JsonValue& object, std::string_view key,
                                std::vector<int64_t> fallback) {
  const JsonValue* stored = object.find(key);
  if (stored != nullptr && stored->is_array()) return fields.get_ints(key);
  const auto one = fallback.empty() ? std::optional<int64_t>{} : fallback.front();
  const auto token = get_token(fields, object, key, one);
  return token ? std::vector<int64_t>{*token} : std::vector<int64_t>{};
}

// ---- transformers

void read_hf_mixer(JsonFields& fields, ModelConfig& config) {
  config.d_conv = fields.get_int("conv_kernel", 4);
  config.expand = fields.get_double("expand", 2.0);
  config.d_inner = fields.get_int("intermediate_size", 0);
  config.dt_min = fields.get_double("time_step_min", 0.001);
  config.dt_max = fields.get_double("time_step_max", 0.1);
  config.dt_init_floor = fields.get_double("time_step_floor", 1e-4);
  config.conv_bias = fields.get_bool("use_conv_bias", true);
  if (fields.has("use_bias")) config.bias = fields.get_bool("use_bias");
  const std::string activation = fields.get_string("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    fields.fail("hidden_act", "not supported", "silu", activation);
  }
}

void read_hf_mamba1(JsonFields& fields, ModelConfig& config) {
  config.vocab_size = fields.get_int("vocab_size", 50280);
  config.d_model = fields.get_int("hidden_size", 768);
  config.n_layer = fields.get_int("num_hidden_layers", 32);
  config.d_state = fields.get_int("state_size", 16);
  config.dt_rank = get_rank(fields, "time_step_rank");
  config.dt_init = fields.get_string("time_step_init_scheme", "random");
  config.dt_scale = fields.get_double("time_step_scale", 1.0);
  config.tie_embeddings = fields.get_bool("tie_word_embeddings", true);
}

void read_hf_mamba2(JsonFields& fields, ModelConfig& config) {
  config.vocab_size = fields.get_int("vocab_size", 32768);
  config.d_model = fields.get_int("hidden_size", 4096);
  config.n_layer = fields.get_int("num_hidden_layers", 64);
  config.d_state = fields.get_int("state_size", 128);
  config.headdim = fields.get_int("head_dim", 64);
  config.ngroups = fields.get_int("n_groups", 8);
  config.chunk_size = fields.get_int("chunk_size", 256);
  config.tie_embeddings = fields.get_bool("tie_word_embeddings", false);
  get_pair(fields, "time_step_limit", &config.dt_limit_min, &config.dt_limit_max);
  const int64_t heads = fields.get_int("num_heads", 128);
  fill_derived_sizes(config);
  int64_t width = 0;
  if (__builtin_mul_overflow(heads, config.headdim, &width) || width != config.d_inner) {
    fields.fail("num_heads", "disagrees with hidden_size * expand / head_dim",
                std::to_string(config.d_inner) + " / " + std::to_string(config.headdim),
                std::to_string(heads));
  }
}

ModelConfig read_hf(const JsonValue& json, const std::string& where) {
  JsonFields fields(json, where);
  const std::string type = fields.get_string("model_type");
  if (type != "mamba" && type != "mamba2") {
    fields.fail("model_type", "not supported", "mamba or mamba2", type);
  }
  ModelConfig config = default_model_config(type == "mamba" ? "mamba1" : "mamba2");
  read_hf_mixer(fields, config);
  const bool second = config.is_mamba2();
  second ? read_hf_mamba2(fields, config) : read_hf_mamba1(fields, config);
  config.norm_eps = fields.get_double("layer_norm_epsilon", 1e-5);
  config.residual_in_fp32 = fields.get_bool("residual_in_fp32", true);
  config.initializer_range = fields.get_double("initializer_range", 0.1);
  config.bos_token_id = get_token(fields, json, "bos_token_id", 0);
  config.eos_token_ids = get_tokens(fields, json, "eos_token_id", {second ? 2 : 0});
  config.pad_token_id = get_token(fields, json, "pad_token_id", second ? 1 : 0);
  fill_derived_sizes(config);
  return config;
}

// ---- state-spaces/mamba

void read_ssm_cfg(JsonFields& fields, ModelConfig& config) {
  config.d_state = fields.get_int("d_state", config.d_state);
  config.d_conv = fields.get_int("d_conv", 4);
  config.expand = fields.get_double("expand", 2.0);
  config.dt_min = fields.get_double("dt_min", 0.001);
  config.dt_max = fields.get_double("dt_max", 0.1);
  config.dt_init_floor = fields.get_double("dt_init_floor", 1e-4);
  config.conv_bias = fields.get_bool("conv_bias", true);
  if (fields.has("bias")) config.bias = fields.get_bool("bias");
  if (!config.is_mamba2()) {
    config.dt_rank = get_rank(fields, "dt_rank");
    config.dt_init = fields.get_string("dt_init", "random");
    config.dt_scale = fields.get_double("dt_scale", 1.0);
  } else {
    config.headdim = fields.get_int("headdim", 64);
    config.d_ssm = fields.get_int("d_ssm", 0);
    config.ngroups = fields.get_int("ngroups", 1);
    get_pair(fields, "A_init_range", &config.a_init_min, &config.a_init_max);
    config.d_has_hdim = fields.get_bool("D_has_hdim", false);
    config.rmsnorm = fields.get_bool("rmsnorm", true);
    config.norm_before_gate = fields.get_bool("norm_before_gate", false);
    get_pair(fields, "dt_limit", &config.dt_limit_min, &config.dt_limit_max);
    config.chunk_size = fields.get_int("chunk_size", 256);
    if (fields.get_string("activation", "silu") != "silu") {
      fields.fail("activation", "not supported", "silu", fields.get_string("activation"));
    }
    fields.ignore("conv_init");  // a range for the initial values
    fields.ignore("use_mem_eff_path");
    fields.ignore("sequence_parallel");
  }
  fields.ignore("use_fast_path");
  fields.refuse_unknown();
}

std::string arch_of_layer(JsonFields& fields) {
  const std::string layer = fields.get_string("layer", "Mamba1");
  if (layer == "Mamba1") return "mamba1";
  if (layer == "Mamba2") return "mamba2";
  fields.fail("layer", "not supported", "Mamba1 or Mamba2", layer);
}

void read_field(JsonFields& fields, const char* key, std::string& field) {
  field = fields.get_string(key);
}
void read_field(JsonFields& fields, const char* key, int64_t& field) {
  field = fields.get_int(key);
}
void read_field(JsonFields& fields, const char* key, double& field) {
  field = fields.get_double(key);
}
void read_field(JsonFields& fields, const char* key, bool& field) { field = fields.get_bool(key); }
void read_field(JsonFields& fields, const char* key, std::vector<int64_t>& field) {
  field = fields.get_ints(key);
}

/// Reads one field of the "adder" object over the value that the native keys gave.
struct Override {
  JsonFields& fields;
  const JsonValue& object;

  bool present(std::string_view key) const {
    fields.ignore(key);
    return object.find(key) != nullptr;
  }
  template <class T>
  void operator()(const char* key, T& field) const {
    if (present(key)) read_field(fields, key, field);
  }
  template <class T>
  void operator()(const char* key, std::optional<T>& field) const {
    if (!present(key)) return;
    field.reset();
    if (!object.find(key)->is_null()) read_field(fields, key, field.emplace());
  }
  void operator()(const char* key, JsonValue& field) const {
    if (present(key)) field = *object.find(key);
  }
};

}  // namespace

ModelConfig read_native_config(const JsonValue& json, const std::string& where) {
  JsonFields fields(json, where);
  const JsonValue empty = JsonValue::object();
  const JsonValue* ssm = fields.find("ssm_cfg");
  JsonFields ssm_fields(ssm != nullptr ? *ssm : empty, where + ": ssm_cfg");
  ModelConfig config = default_model_config(arch_of_layer(ssm_fields));
  read_ssm_cfg(ssm_fields, config);
  config.d_model = fields.get_int("d_model", 2560);
  config.d_intermediate = fields.get_int("d_intermediate", 0);
  config.n_layer = fields.get_int("n_layer", 64);
  config.vocab_size = fields.get_int("vocab_size", 50277);
  config.attn_layer_idx = fields.get_ints("attn_layer_idx", std::vector<int64_t>{});
  if (const JsonValue* attention = fields.find("attn_cfg")) config.attn_cfg = *attention;
  config.rms_norm = fields.get_bool("rms_norm", true);
  config.residual_in_fp32 = fields.get_bool("residual_in_fp32", true);
  config.pad_vocab_size_multiple = fields.get_int("pad_vocab_size_multiple", 8);
  config.tie_embeddings = fields.get_bool("tie_embeddings", true);
  fields.get_bool("fused_add_norm", true);  // changes nothing in the result
  for (const char* key : {"adder", "model_type", "architectures", "torch_dtype", "dtype",
                          "transformers_version", "_name_or_path"}) {
    fields.ignore(key);
  }
  fields.refuse_unknown();
  fill_derived_sizes(config);
  return config;
}

ReadConfig parse_model_config(const JsonValue& json, const std::string& where) {
  JsonFields fields(json, where);
  ReadConfig read;
  // -hf files carry the native keys too: there the names of transformers win.
  if (fields.has("hidden_size") || (fields.has("model_type") && !fields.has("d_model"))) {
    read.config = read_hf(json, where);
    read.layout = ConfigLayout::hf;
  } else if (fields.has("d_model")) {
    read.config = read_native_config(json, where);
    read.layout = ConfigLayout::native;
    if (const JsonValue* more = fields.find("adder")) {
      JsonFields overrides(*more, where + ": adder");
      visit_model_config(read.config, Override{overrides, *more});
      overrides.refuse_unknown();
      read.layout = ConfigLayout::adder;
    }
  } else {
    throw Error({"unknown kind of model", where,
                 "model_type and hidden_size (transformers) or d_model (state-spaces)", "neither"});
  }
  resolve(read.config, where);
  return read;
}

ReadConfig read_model_config(const std::string& directory) {
  const std::filesystem::path path(directory);
  const bool folder = std::filesystem::is_directory(path);
  const std::string file = folder ? (path / "config.json").string() : directory;
  return parse_model_config(read_json_file(file), file);
}

GenerationConfig parse_generation_config(const JsonValue& json, const std::string& where) {
  JsonFields fields(json, where);
  GenerationConfig config;
  config.bos_token_id = get_token(fields, json, "bos_token_id", {});
  config.eos_token_ids = get_tokens(fields, json, "eos_token_id", {});
  config.pad_token_id = get_token(fields, json, "pad_token_id", {});
  visit_generation_config(config, [&](const char* key, auto& field) {
    if (fields.has(key)) read_field(fields, key, field.emplace());
  });
  return config;
}

}  // namespace adder
