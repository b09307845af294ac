#include "formats/model_config.h"

#include <cmath>

#include "core/error.h"
#include "formats/model_config_fields.h"

namespace adder {
namespace {

// Keeps the byte counts of matrices of any two sizes, in any dtype, below 2^63.
constexpr int64_t kLargestSize = int64_t{1} << 28;
constexpr int64_t kMostLayers = int64_t{1} << 20;

/// Checks one field after the other; the first that fails throws.
class FieldCheck {
 public:
  explicit FieldCheck(std::string where) : where_(std::move(where)) {}

  void size(const char* field, int64_t value, int64_t least = 1,
            int64_t most = kLargestSize) const {
    if (value >= least && value <= most) return;
    fail(field, std::to_string(least) + " to " + std::to_string(most), std::to_string(value));
  }
  void divides(const char* field, int64_t value, const char* into_field, int64_t into) const {
    if (into % value == 0) return;
    fail(field, "a divisor of " + std::string(into_field) + " " + std::to_string(into),
         std::to_string(value));
  }
  void that(bool good, const char* field, const char* expected, double got) const {
    if (!good) fail(field, expected, write_json(JsonValue(got), {0, JsonNonFinite::bare}));
  }
  [[noreturn]] void fail(const char* field, std::string expected, std::string got) const {
    throw Error({"wrong value", where_ + ": " + field, std::move(expected), std::move(got)});
  }

 private:
  std::string where_;
};

void check_sizes(const ModelConfig& config, const FieldCheck& check) {
  check.size("vocab_size", config.vocab_size);
  check.size("pad_vocab_size_multiple", config.pad_vocab_size_multiple, 1, int64_t{1} << 20);
  check.size("d_model", config.d_model);
  check.size("n_layer", config.n_layer, 0, kMostLayers);
  check.size("d_intermediate", config.d_intermediate, 0);
  check.size("d_state", config.d_state);
  check.size("d_conv", config.d_conv, 1, int64_t{1} << 16);
  check.size("d_inner", config.d_inner);
  check.size("dt_rank", config.dt_rank);
  check.size("ngroups", config.ngroups);
  for (const int64_t layer : config.attn_layer_idx) {
    check.size("attn_layer_idx", layer, 0, config.n_layer - 1);
  }
  if (!config.is_mamba2()) {
    check.divides("ngroups", config.ngroups, "d_inner", config.d_inner);
    return;
  }
  check.size("headdim", config.headdim);
  check.size("d_ssm", config.d_ssm, 1, config.d_inner);
  check.divides("headdim", config.headdim, "d_ssm", config.d_ssm);
  check.divides("ngroups", config.ngroups, "the number of heads", config.heads());
  check.size("norm_groups", config.norm_groups);
  check.divides("norm_groups", config.norm_groups, "d_ssm", config.d_ssm);
  check.size("chunk_size", config.chunk_size);
}

void check_numbers(const ModelConfig& config, const FieldCheck& check) {
  const auto positive = [](double value) { return value > 0 && std::isfinite(value); };
  check.that(positive(config.expand), "expand", "a number above 0", config.expand);
  check.that(positive(config.dt_min), "dt_min", "a number above 0", config.dt_min);
  check.that(config.dt_max >= config.dt_min && std::isfinite(config.dt_max), "dt_max",
             "at least dt_min", config.dt_max);
  check.that(positive(config.dt_scale), "dt_scale", "a number above 0", config.dt_scale);
  check.that(config.dt_init_floor >= 0 && std::isfinite(config.dt_init_floor), "dt_init_floor",
             "a number, 0 or above", config.dt_init_floor);
  check.that(config.dt_limit_min >= 0 && std::isfinite(config.dt_limit_min), "dt_limit (lower)",
             "a number, 0 or above", config.dt_limit_min);
  check.that(config.dt_limit_max >= config.dt_limit_min, "dt_limit (upper)",
             "at least the lower limit", config.dt_limit_max);
  check.that(positive(config.a_init_min), "A_init_range (lower)", "a number above 0",
             config.a_init_min);
  check.that(config.a_init_max >= config.a_init_min && std::isfinite(config.a_init_max),
             "A_init_range (upper)", "at least the lower end", config.a_init_max);
  check.that(positive(config.norm_eps), "norm_eps", "a number above 0", config.norm_eps);
  check.that(config.initializer_range >= 0 && std::isfinite(config.initializer_range),
             "initializer_range", "a number, 0 or above", config.initializer_range);
}

}  // namespace

std::string_view config_layout_name(ConfigLayout layout) {
  constexpr std::string_view kNames[] = {"hf", "native", "adder"};
  return kNames[static_cast<size_t>(layout)];
}

int64_t ModelConfig::padded_vocab_size() const {
  const int64_t multiple = pad_vocab_size_multiple;
  if (multiple <= 1) return vocab_size;
  return (vocab_size + multiple - 1) / multiple * multiple;
}

int64_t ModelConfig::mlp_width() const { return (d_intermediate + 127) / 128 * 128; }

ModelConfig default_model_config(std::string_view arch) {
  if (arch != "mamba1" && arch != "mamba2") {
    throw Error({"unknown architecture", {}, "mamba1 or mamba2", std::string(arch)});
  }
  ModelConfig config;
  config.arch = arch;
  if (config.is_mamba2()) config.d_state = 128;
  return config;
}

void fill_derived_sizes(ModelConfig& config) {
  const double inner = config.expand * static_cast<double>(config.d_model);
  if (config.d_inner == 0 && inner >= 1 && inner <= static_cast<double>(kLargestSize)) {
    config.d_inner = static_cast<int64_t>(inner);
  }
  // ceil(d_model / 16) without overflow.
  if (config.dt_rank == 0) config.dt_rank = config.d_model / 16 + (config.d_model % 16 != 0);
  if (config.d_ssm == 0) config.d_ssm = config.d_inner;
  if (config.norm_groups == 0) config.norm_groups = config.ngroups;
}

void check_model_config(const ModelConfig& config, const std::string& where) {
  const FieldCheck check(where);
  if (config.arch != "mamba1" && config.arch != "mamba2") {
    check.fail("arch", "mamba1 or mamba2", config.arch);
  }
  check_sizes(config, check);
  check_numbers(config, check);
  if (config.dt_init != "random" && config.dt_init != "constant") {
    check.fail("dt_init", "random or constant", config.dt_init);
  }
  if (!config.attn_cfg.is_object()) {
    check.fail("attn_cfg", "an object", std::string(json_kind_name(config.attn_cfg.kind())));
  }
}

void resolve(ModelConfig& config, const std::string& where) {
  fill_derived_sizes(config);
  check_model_config(config, where);
}

std::optional<std::string> hf_cannot_express(const ModelConfig& config) {
  ModelConfig full = config;
  fill_derived_sizes(full);
  if (full.d_intermediate > 0) return "an MLP after every mixer (d_intermediate)";
  if (!full.attn_layer_idx.empty()) return "attention layers (attn_layer_idx)";
  if (!full.rms_norm) return "LayerNorm in place of RMSNorm (rms_norm = false)";
  if (full.vocab_size != full.padded_vocab_size()) {
    return "a vocabulary padded beyond vocab_size (pad_vocab_size_multiple)";
  }
  ModelConfig derived = full;
  derived.d_inner = 0;
  fill_derived_sizes(derived);
  if (full.d_inner != derived.d_inner) return "d_inner other than expand * d_model";
  if (!full.is_mamba2()) {
    const bool limited = full.dt_limit_min > 0 || std::isfinite(full.dt_limit_max);
    if (limited) return "limits of dt in Mamba-1 (dt_limit)";
    if (full.ngroups != 1) return "groups of B and C in Mamba-1 (ngroups)";
    return {};
  }
  if (full.d_ssm != full.d_inner) return "a gated MLP path inside the mixer (d_ssm < d_inner)";
  if (full.d_has_hdim) return "D per channel (D_has_hdim)";
  if (!full.rmsnorm) return "no norm before out_proj (rmsnorm = false)";
  if (full.norm_before_gate) return "the norm before the gate (norm_before_gate)";
  if (full.norm_groups != 1) return "a gated norm in groups (norm_groups)";
  // Transformers 5.23 norms each group, versions before it the whole width (pull request 40861).
  if (full.ngroups != 1) return "one gated norm over several groups of B and C (ngroups)";
  return {};
}

ConfigLayout layout_for(const ModelConfig& config) {
  return hf_cannot_express(config) ? ConfigLayout::adder : ConfigLayout::hf;
}

}  // namespace adder
