// The keys of a recipe: one list that reading, writing, comparing and documenting go through.
#pragma once

#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "tasks/recipe.h"

namespace adder {

template <class Config, class Visitor>
void visit_model_keys(Config& c, const Visitor& key) {
  key("arch", c.arch, "`mamba1` or `mamba2`; the other defaults follow from it");
  key("vocab_size", c.vocab_size, "0: that of the tokenizer");
  key("pad_vocab_size_multiple", c.pad_vocab_size_multiple,
      "rows of the embedding are padded to it");
  key("d_model", c.d_model, "width of the residual stream");
  key("n_layer", c.n_layer, "blocks");
  key("d_intermediate", c.d_intermediate, "width of a gated MLP after every mixer; 0: none");
  key("d_state", c.d_state, "state of a channel (Mamba-1) or head (Mamba-2)");
  key("d_conv", c.d_conv, "width of the convolution");
  key("expand", c.expand, "inner width over d_model");
  key("d_inner", c.d_inner, "inner width; 0: expand * d_model");
  key("dt_rank", c.dt_rank, "Mamba-1: rank of the step size; 0: d_model / 16 rounded up");
  key("dt_min", c.dt_min, "smallest step size at the start");
  key("dt_max", c.dt_max, "largest step size at the start");
  key("dt_init", c.dt_init, "Mamba-1: `random` or `constant` start of its projection");
  key("dt_scale", c.dt_scale, "Mamba-1: scale of that start");
  key("dt_init_floor", c.dt_init_floor, "the starting step size is at least this");
  key("dt_limit_min", c.dt_limit_min, "lower clamp of the step size");
  key("dt_limit_max", c.dt_limit_max, "upper clamp of the step size");
  key("conv_bias", c.conv_bias, "bias of the convolution");
  key("bias", c.bias, "bias of in_proj and out_proj");
  key("ngroups", c.ngroups, "groups of B and C");
  key("headdim", c.headdim, "Mamba-2: channels of a head");
  key("d_ssm", c.d_ssm, "Mamba-2: channels through the state space; 0: d_inner");
  key("a_init_min", c.a_init_min, "Mamba-2: lower end of -A at the start");
  key("a_init_max", c.a_init_max, "Mamba-2: upper end of -A at the start");
  key("d_has_hdim", c.d_has_hdim, "Mamba-2: D for each channel, not each head");
  key("rmsnorm", c.rmsnorm, "Mamba-2: gated norm before out_proj");
  key("norm_before_gate", c.norm_before_gate, "Mamba-2: order of that norm and the gate");
  key("norm_groups", c.norm_groups, "Mamba-2: groups of that norm; 0: ngroups");
  key("chunk_size", c.chunk_size, "Mamba-2: a speed hint for other programs");
  key("rms_norm", c.rms_norm, "RMSNorm, else LayerNorm");
  key("norm_eps", c.norm_eps, "added to the mean square");
  key("residual_in_fp32", c.residual_in_fp32, "keep the residual stream in f32");
  key("tie_embeddings", c.tie_embeddings, "the head is the embedding");
  key("initializer_range", c.initializer_range, "standard deviation of the embedding at the start");
  key("rescale_out_proj", c.rescale_out_proj, "out_proj starts divided by sqrt(n_layer)");
}

template <class Config, class Visitor>
void visit_data_keys(Config& c, const Visitor& key) {
  key("path", c.path, "text, JSONL, TSV, or a shard of `adder tokenize`");
  key("validation", c.validation, "the same, to validate on; empty: the end of path");
  key("validation_fraction", c.validation_fraction, "share of path that is held out at its end");
  key("tokenizer", c.tokenizer, "`bytes`");
  key("format", c.format, "`auto` (by the name), `plain`, `jsonl`, `tsv`");
  key("field", c.field, "JSONL: the member that holds the text");
  key("column", c.column, "TSV: the column, from 0");
  key("skip_header", c.skip_header, "TSV: the first line names the columns");
}

/// Calls key(section, name, field, description) for every key, in the order of a recipe file.
template <class AnyRecipe, class Visitor>
void visit_recipe_keys(AnyRecipe& recipe, const Visitor& key) {
  const auto in = [&key](const char* section) {
    return [&key, section](const char* name, auto& field, const char* description) {
      key(section, name, field, description);
    };
  };
  visit_model_keys(recipe.model, in("model"));
  visit_train_keys(recipe.train, in("train"));
  visit_data_keys(recipe.data, in("data"));
  visit_log_keys(recipe.log, in("log"));
}

template <class T>
constexpr const char* recipe_type_name() {
  using Plain = std::remove_const_t<T>;
  if constexpr (std::is_same_v<Plain, bool> || std::is_same_v<Plain, std::optional<bool>>) {
    return "boolean";
  } else if constexpr (std::is_same_v<Plain, int64_t>) {
    return "integer";
  } else if constexpr (std::is_same_v<Plain, double>) {
    return "number";
  } else if constexpr (std::is_same_v<Plain, std::string>) {
    return "string";
  } else {
    return "list of strings";
  }
}

}  // namespace adder
