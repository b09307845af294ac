// The neutral description of a model: the contents of config.json in any of its layouts (formats.md
// sections 1-3), with every default filled in.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/json.h"

namespace adder {

/// hf: Hugging Face transformers (model_type mamba, mamba2); native: state-spaces/mamba
/// (ssm_cfg); adder: the native keys and an object "adder" with the fields that they lack.
enum class ConfigLayout : uint8_t { hf, native, adder };
std::string_view config_layout_name(ConfigLayout layout);

/// Mamba-1 and Mamba-2 stacks. Sizes in elements; names as in state-spaces/mamba.
struct ModelConfig {
  std::string arch = "mamba1";  // or "mamba2"
  int64_t vocab_size = 256;
  int64_t pad_vocab_size_multiple = 1;
  int64_t d_model = 256;
  int64_t n_layer = 4;
  int64_t d_intermediate = 0;  // > 0: a gated MLP after every mixer, width rounded up to 128

  // Mixer, both kinds. d_inner and dt_rank are resolved by resolve() when 0.
  int64_t d_state = 16;
  int64_t d_conv = 4;
  double expand = 2;
  int64_t d_inner = 0;  // int(expand * d_model)
  int64_t dt_rank = 0;  // Mamba-1: ceil(d_model / 16)
  double dt_min = 1e-3;
  double dt_max = 0.1;
  std::string dt_init = "random";  // or "constant"
  double dt_scale = 1;
  double dt_init_floor = 1e-4;
  double dt_limit_min = 0;  // dt after softplus is clamped to [min, max]
  double dt_limit_max = std::numeric_limits<double>::infinity();
  bool conv_bias = true;
  std::optional<bool> bias;  // of in_proj and out_proj; absent: whether in_proj.bias is stored
  int64_t ngroups = 1;       // groups of B and C

  // Mamba-2 only.
  int64_t headdim = 64;
  int64_t d_ssm = 0;  // = d_inner when 0; less: the rest is a gated MLP path
  double a_init_min = 1;
  double a_init_max = 16;
  bool d_has_hdim = false;  // D per channel instead of per head
  bool rmsnorm = true;      // gated norm before out_proj
  bool norm_before_gate = false;
  int64_t norm_groups = 0;   // of the gated norm: ngroups when 0; 1 in older transformers
  int64_t chunk_size = 256;  // kept for other programs: a speed hint, ours follows from the sizes

  // Stack.
  bool rms_norm = true;  // else LayerNorm
  double norm_eps = 1e-5;
  bool residual_in_fp32 = true;
  bool tie_embeddings = true;
  double initializer_range = 0.02;
  // Initial out_proj.weight / sqrt(n_layer) (math.md 7.7). Not kept by the hf layout, which is for
  // trained weights.
  bool rescale_out_proj = true;

  std::vector<int64_t> attn_layer_idx;
  JsonValue attn_cfg = JsonValue::object();  // as stored

  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;
  std::optional<int64_t> pad_token_id;

  /// Rows of the embedding: vocab_size rounded up to pad_vocab_size_multiple.
  int64_t padded_vocab_size() const;
  /// Hidden width of the MLP: d_intermediate rounded up to 128; 0 without one.
  int64_t mlp_width() const;
  int64_t heads() const { return headdim > 0 ? d_ssm / headdim : 0; }
  bool is_mamba2() const { return arch == "mamba2"; }

  bool operator==(const ModelConfig&) const = default;
};

/// The documented defaults of an architecture ("mamba1" or "mamba2") as in state-spaces/mamba.
ModelConfig default_model_config(std::string_view arch);

/// Fills the sizes that follow from others (d_inner, dt_rank, d_ssm, norm_groups) and checks every
/// field's range and every divisibility. Errors begin with `where` and name field, expected, got.
void resolve(ModelConfig& config, const std::string& where);

struct ReadConfig {
  ModelConfig config;
  ConfigLayout layout = ConfigLayout::hf;
};

/// Reads DIR/config.json (or a config.json given by path). Missing keys take the documented
/// defaults of the layout; unknown keys are refused in the native layouts and ignored in hf, where
/// transformers adds its own.
ReadConfig read_model_config(const std::string& directory);
ReadConfig parse_model_config(const JsonValue& json, const std::string& where);

/// The reason why transformers could not open this model and compute the same; empty if it can.
std::optional<std::string> hf_cannot_express(const ModelConfig& config);

/// The layout that a model is saved in: hf when it can be expressed there, else adder.
ConfigLayout layout_for(const ModelConfig& config);

/// config.json in a layout. hf: Error when hf_cannot_express. native: Error when a field needs the
/// adder layout. `dtype` is the "dtype" key of hf, e.g. "float32".
JsonValue model_config_json(const ModelConfig& config, ConfigLayout layout,
                            std::string_view dtype = "float32");

/// generation_config.json (formats.md 3.6). Absent keys stay empty.
struct GenerationConfig {
  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;
  std::optional<int64_t> pad_token_id;
  std::optional<int64_t> max_length, max_new_tokens;
  std::optional<bool> do_sample;
  std::optional<double> temperature;
  std::optional<int64_t> top_k;
  std::optional<double> top_p, min_p, repetition_penalty;

  bool operator==(const GenerationConfig&) const = default;
};

GenerationConfig parse_generation_config(const JsonValue& json, const std::string& where);
JsonValue generation_config_json(const GenerationConfig& config);

}  // namespace adder
