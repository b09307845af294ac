#include "formats/model_config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "formats/model_config_fields.h"
#include "formats/scratch_folder.h"

namespace adder {
namespace {

std::string golden(const std::string& name) {
  return std::string(ADDER_SOURCE_DIR) + "/tests/golden/" + name;
}

ModelConfig parse(const std::string& text) {
  return parse_model_config(parse_json(text, "config.json"), "config.json").config;
}

TEST(ModelConfig, ReadsThePublishedConfigs) {
  const ReadConfig mamba1 = read_model_config(golden("models_hf/mamba_base"));
  EXPECT_EQ(mamba1.layout, ConfigLayout::hf);
  EXPECT_EQ(mamba1.config.arch, "mamba1");
  EXPECT_EQ(mamba1.config.vocab_size, 97);
  EXPECT_EQ(mamba1.config.padded_vocab_size(), 97);
  EXPECT_EQ(mamba1.config.d_model, 48);
  EXPECT_EQ(mamba1.config.d_inner, 96);
  EXPECT_EQ(mamba1.config.dt_rank, 3);
  EXPECT_EQ(mamba1.config.bias, std::optional<bool>(false));
  EXPECT_EQ(mamba1.config.eos_token_ids, std::vector<int64_t>{0});
  EXPECT_TRUE(mamba1.config.tie_embeddings);

  const ReadConfig mamba2 = read_model_config(golden("models_hf/mamba2_base"));
  EXPECT_EQ(mamba2.config.arch, "mamba2");
  EXPECT_EQ(mamba2.config.heads(), 8);
  EXPECT_EQ(mamba2.config.headdim, 16);
  EXPECT_EQ(mamba2.config.chunk_size, 8);
  EXPECT_EQ(mamba2.config.dt_limit_max, INFINITY);
  EXPECT_FALSE(mamba2.config.tie_embeddings);

  const ReadConfig native1 = read_model_config(golden("models_native/mamba1"));
  EXPECT_EQ(native1.layout, ConfigLayout::native);
  EXPECT_EQ(native1.config.padded_vocab_size(), 104);
  EXPECT_EQ(native1.config.d_inner, 128);
  EXPECT_EQ(native1.config.dt_rank, 4);
  EXPECT_FALSE(native1.config.bias.has_value());

  const ReadConfig native2 = read_model_config(golden("models_native/mamba2/config.json"));
  EXPECT_EQ(native2.config.d_state, 32);
  EXPECT_EQ(native2.config.heads(), 8);
  EXPECT_EQ(native2.config.norm_groups, 1);
}

TEST(ModelConfig, MissingKeysTakeTheDocumentedDefaults) {
  const ModelConfig hf = parse(R"({"model_type": "mamba"})");
  EXPECT_EQ(hf.vocab_size, 50280);
  EXPECT_EQ(hf.d_model, 768);
  EXPECT_EQ(hf.n_layer, 32);
  EXPECT_EQ(hf.dt_rank, 48);
  EXPECT_EQ(hf.initializer_range, 0.1);
  const ModelConfig hf2 = parse(R"({"model_type": "mamba2"})");
  EXPECT_EQ(hf2.d_inner, 8192);
  EXPECT_EQ(hf2.ngroups, 8);
  EXPECT_EQ(hf2.norm_groups, 8);  // as state-spaces and transformers 5.23 norm
  EXPECT_EQ(hf2.eos_token_ids, std::vector<int64_t>{2});
  const ModelConfig native = parse(R"({"d_model": 2560})");
  EXPECT_EQ(native.vocab_size, 50277);
  EXPECT_EQ(native.padded_vocab_size(), 50280);
  EXPECT_EQ(native.n_layer, 64);
  EXPECT_EQ(native.d_state, 16);
  EXPECT_EQ(native.dt_rank, 160);
  EXPECT_TRUE(native.eos_token_ids.empty());
  // The published mamba2 files say no more than this (formats.md 2.4).
  const ModelConfig native2 = parse(
      R"({"d_model": 1024, "n_layer": 48, "vocab_size": 50277, "ssm_cfg": {"layer": "Mamba2"},
          "pad_vocab_size_multiple": 16})");
  EXPECT_EQ(native2.d_state, 128);
  EXPECT_EQ(native2.heads(), 32);
  EXPECT_EQ(native2.padded_vocab_size(), 50288);
}

TEST(ModelConfig, ReadsInfiniteLimitsInBothSpellings) {
  for (const char* infinity : {"Infinity", R"({"__float__": "Infinity"})"}) {
    const ModelConfig config = parse(
        std::string(R"({"model_type": "mamba2", "time_step_limit": [0.01, )") + infinity + "]}");
    EXPECT_EQ(config.dt_limit_min, 0.01);
    EXPECT_EQ(config.dt_limit_max, INFINITY);
  }
}

TEST(ModelConfig, TokenIdsMayBeListsOrNull) {
  const ModelConfig config =
      parse(R"({"model_type": "mamba", "eos_token_id": [3, 5], "bos_token_id": null,)"
            R"( "pad_token_id": 7})");
  EXPECT_EQ(config.eos_token_ids, (std::vector<int64_t>{3, 5}));
  EXPECT_FALSE(config.bos_token_id.has_value());
  EXPECT_EQ(config.pad_token_id, std::optional<int64_t>(7));
  EXPECT_TRUE(parse(R"({"model_type": "mamba", "eos_token_id": null})").eos_token_ids.empty());
}

TEST(ModelConfig, NamesOfTransformersWinOverTheOldKeys) {
  const ModelConfig config = parse(
      R"({"model_type": "mamba", "hidden_size": 64, "d_model": 128, "n_layer": 9, "ssm_cfg": {},
          "num_hidden_layers": 2})");
  EXPECT_EQ(config.d_model, 64);
  EXPECT_EQ(config.n_layer, 2);
}

struct BadConfig {
  const char* text;
  const char* expected;
};

TEST(ModelConfig, BadConfigsNameKeyExpectedAndGot) {
  const std::vector<BadConfig> kCases = {
      {"[]", "expected an object, got array"},
      {"{}", "unknown kind of model"},
      {R"({"model_type": "llama"})", "key 'model_type': not supported: expected mamba or mamba2"},
      {R"({"model_type": "falcon_mamba", "hidden_size": 64})", "not supported"},
      {R"({"model_type": 3, "hidden_size": 64})",
       "key 'model_type': wrong type: expected a string"},
      {R"({"hidden_size": 64})", "key 'model_type': missing"},
      {R"({"model_type": "mamba", "hidden_size": "64"})", "expected an integer, got \"64\""},
      {R"({"model_type": "mamba", "hidden_size": 64.0})", "expected an integer, got 64.0"},
      {R"({"model_type": "mamba", "hidden_size": 0})", "d_model: wrong value: expected 1 to"},
      {R"({"model_type": "mamba", "hidden_size": -64})", "d_model: wrong value"},
      {R"({"model_type": "mamba", "hidden_size": 9223372036854775807})", "d_model: wrong value"},
      {R"({"model_type": "mamba", "hidden_size": 18446744073709551615})", "an integer"},
      {R"({"model_type": "mamba", "num_hidden_layers": 2147483648})", "n_layer"},
      {R"({"model_type": "mamba", "state_size": 0})", "d_state"},
      {R"({"model_type": "mamba", "conv_kernel": 0})", "d_conv"},
      {R"({"model_type": "mamba", "vocab_size": 0})", "vocab_size"},
      {R"({"model_type": "mamba", "expand": 0})", "d_inner"},
      {R"({"model_type": "mamba", "expand": 1e300})", "d_inner"},
      {R"({"model_type": "mamba", "expand": NaN})", "d_inner"},
      {R"({"model_type": "mamba", "expand": "two"})", "expected a number, got \"two\""},
      {R"({"model_type": "mamba", "intermediate_size": -1})", "d_inner"},
      {R"({"model_type": "mamba", "time_step_rank": "some"})", "an integer or \"auto\""},
      {R"({"model_type": "mamba", "time_step_rank": -1})", "dt_rank"},
      {R"({"model_type": "mamba", "time_step_min": 0})", "dt_min"},
      {R"({"model_type": "mamba", "time_step_max": 1e-9})", "dt_max"},
      {R"({"model_type": "mamba", "time_step_init_scheme": "zeros"})", "random or constant"},
      {R"({"model_type": "mamba", "layer_norm_epsilon": -1e-5})", "norm_eps"},
      {R"({"model_type": "mamba", "layer_norm_epsilon": NaN})", "norm_eps"},
      {R"({"model_type": "mamba", "use_conv_bias": 1})", "expected true or false, got 1"},
      {R"({"model_type": "mamba", "hidden_act": "relu"})", "expected silu, got relu"},
      {R"({"model_type": "mamba", "eos_token_id": "x"})", "'eos_token_id'"},
      {R"({"model_type": "mamba", "eos_token_id": [1, "x"]})", "an array of integers"},
      {R"({"model_type": "mamba2", "num_heads": 7})", "'num_heads'"},
      {R"({"model_type": "mamba2", "num_heads": 9223372036854775807})", "'num_heads'"},
      {R"({"model_type": "mamba2", "head_dim": 0, "num_heads": 0})", "'num_heads'"},
      {R"({"model_type": "mamba2", "n_groups": 3})", "ngroups"},
      {R"({"model_type": "mamba2", "n_groups": 0})", "ngroups"},
      {R"({"model_type": "mamba2", "time_step_limit": [1]})", "wrong length"},
      {R"({"model_type": "mamba2", "time_step_limit": [2, 1]})", "dt_limit (upper)"},
      {R"({"model_type": "mamba2", "time_step_limit": [-1, 1]})", "dt_limit (lower)"},
      {R"({"model_type": "mamba2", "time_step_limit": 1})", "an array of numbers"},
      {R"({"d_model": 64, "d_modle": 64})", "did you mean 'd_model'"},
      {R"({"d_model": 64, "ssm_cfg": {"dstate": 4}})",
       "ssm_cfg: key 'dstate': unknown key, did you mean 'd_state'"},
      {R"({"d_model": 64, "ssm_cfg": {"headdim": 4}})", "unknown key"},
      {R"({"d_model": 64, "ssm_cfg": []})", "ssm_cfg: wrong type: expected an object"},
      {R"({"d_model": 64, "ssm_cfg": {"layer": "Mamba3"}})",
       "expected Mamba1 or Mamba2, got Mamba3"},
      {R"({"d_model": 64, "ssm_cfg": {"layer": "Mamba2", "headdim": 48}})", "headdim"},
      {R"({"d_model": 64, "ssm_cfg": {"layer": "Mamba2", "d_ssm": 256}})", "d_ssm"},
      {R"({"d_model": 64, "ssm_cfg": {"layer": "Mamba2", "activation": "relu"}})", "'activation'"},
      {R"({"d_model": 64, "ssm_cfg": {"layer": "Mamba2", "A_init_range": [0, 1]}})",
       "A_init_range"},
      {R"({"d_model": 64, "pad_vocab_size_multiple": 0})", "pad_vocab_size_multiple"},
      {R"({"d_model": 64, "n_layer": 2, "attn_layer_idx": [2]})", "attn_layer_idx"},
      {R"({"d_model": 64, "attn_cfg": 1})", "attn_cfg"},
      {R"({"d_model": 64, "adder": {"norm_esp": 1}})", "did you mean 'norm_eps'"},
      {R"({"d_model": 64, "adder": {"norm_eps": "1"}})", "expected a number, got \"1\""},
      {R"({"d_model": 64, "adder": {"arch": "lstm"}})", "expected mamba1 or mamba2, got lstm"},
      {R"({"d_model": 64, "adder": 7})", "adder: wrong type: expected an object"},
  };
  for (const BadConfig& bad : kCases) {
    const std::string message = message_of([&] { parse(bad.text); });
    EXPECT_NE(message.find(bad.expected), std::string::npos) << bad.text << ": " << message;
    EXPECT_TRUE(message.starts_with("config.json: ")) << message;
  }
  EXPECT_EQ(message_of([&] { parse(R"({"d_model": 64, "ssm_cfg": {"d_state": 4}})"); }), "");
}

TEST(ModelConfig, RefusesMissingFiles) {
  const ScratchFolder folder;
  const std::string message = message_of([&] { read_model_config(folder.path()); });
  EXPECT_NE(message.find("config.json: cannot open: No such file"), std::string::npos) << message;
}

/// Every field another value than its default, as far as they agree with each other.
ModelConfig unusual(const char* arch) {
  ModelConfig config;
  config.arch = arch;
  config.vocab_size = 301;
  config.pad_vocab_size_multiple = 16;
  config.d_model = 96;
  config.n_layer = 5;
  config.d_intermediate = 300;
  config.d_state = 24;
  config.d_conv = 3;
  config.expand = 1.5;
  config.d_inner = 240;
  config.dt_rank = 7;
  config.dt_min = 0.002;
  config.dt_max = 0.3;
  config.dt_init = "constant";
  config.dt_scale = 0.5;
  config.dt_init_floor = 3e-4;
  config.dt_limit_min = 0.001;
  config.dt_limit_max = 5.5;
  config.conv_bias = false;
  config.bias = true;
  config.ngroups = 2;
  config.headdim = 30;
  config.d_ssm = 180;
  config.a_init_min = 0.5;
  config.a_init_max = 8;
  config.d_has_hdim = true;
  config.rmsnorm = false;
  config.norm_before_gate = true;
  config.norm_groups = 3;
  config.chunk_size = 32;
  config.rms_norm = false;
  config.norm_eps = 1.0 / 3;
  config.residual_in_fp32 = false;
  config.tie_embeddings = false;
  config.initializer_range = 0.1;
  config.rescale_out_proj = false;
  config.attn_layer_idx = {1, 4};
  config.attn_cfg = JsonValue::object().set("num_heads", 4);
  config.bos_token_id = 1;
  config.eos_token_ids = {2, 3};
  config.pad_token_id = 4;
  return config;
}

TEST(ModelConfig, TheAdderLayoutRoundTripsEveryField) {
  for (const char* arch : {"mamba1", "mamba2"}) {
    const ModelConfig all = unusual(arch);
    const JsonValue json = model_config_json(all, ConfigLayout::adder);
    const ReadConfig read = parse_model_config(parse_json(write_json(json), "f"), "f");
    EXPECT_EQ(read.layout, ConfigLayout::adder);
    EXPECT_TRUE(read.config == all) << write_json(json);
    // One field at a time: none hides behind another.
    const ModelConfig base =
        parse_model_config(model_config_json(default_model_config(arch), ConfigLayout::adder), "f")
            .config;
    int fields = 0;
    visit_model_config(base, [&](const char*, const auto&) { ++fields; });
    EXPECT_EQ(fields, 41);
    std::vector<std::string> lost;
    visit_model_config(all, [&](const char* key, const auto& field) {
      if (std::string_view(key) == "arch") return;
      ModelConfig changed = base;
      visit_model_config(changed, [&](const char* other, auto& target) {
        if constexpr (std::is_same_v<std::decay_t<decltype(target)>,
                                     std::decay_t<decltype(field)>>) {
          if (std::string_view(other) == key) target = field;
        }
      });
      if (!message_of([&] { resolve(changed, "f"); }).empty()) return;  // needs its fellows
      const JsonValue written = model_config_json(changed, ConfigLayout::adder);
      const auto back = parse_model_config(parse_json(write_json(written), "f"), "f");
      if (!(back.config == changed)) lost.push_back(key);
    });
    EXPECT_TRUE(lost.empty()) << lost.front();
  }
}

TEST(ModelConfig, PublishedConfigsRoundTripInTheirOwnLayout) {
  for (const char* name : {"models_hf/mamba_base", "models_hf/mamba2_base", "models_native/mamba1",
                           "models_native/mamba2"}) {
    const ReadConfig read = read_model_config(golden(name));
    const JsonValue written = model_config_json(read.config, read.layout);
    const ReadConfig back = parse_model_config(parse_json(write_json(written), "f"), "f");
    EXPECT_EQ(back.layout, read.layout) << name;
    EXPECT_TRUE(back.config == read.config) << name << write_json(written);
  }
}

TEST(ModelConfig, WritesTheKeysThatTransformersWrites) {
  // Speed switches of that library, its version, and a limit that it takes by default.
  const std::set<std::string> left_out = {"transformers_version", "use_associative_scan",
                                          "use_mambapy", "time_step_limit"};
  for (const char* name :
       {"models_hf/mamba_base/config.json", "models_hf/mamba2_base/config.json"}) {
    const std::string path = golden(name);
    const JsonValue published = read_json_file(path);
    const JsonValue written = model_config_json(read_model_config(path).config, ConfigLayout::hf);
    for (const JsonMember& member : published.as_object()) {
      if (left_out.contains(member.key)) continue;
      const JsonValue* ours = written.find(member.key);
      ASSERT_NE(ours, nullptr) << member.key;
      EXPECT_TRUE(*ours == member.value) << member.key;
    }
  }
}

ModelConfig changed(const char* arch, const std::function<void(ModelConfig&)>& change) {
  ModelConfig config = default_model_config(arch);
  config.bias = false;
  change(config);
  resolve(config, "test");
  return config;
}

TEST(ModelConfig, SaysWhatTransformersCannotExpress) {
  using Config = ModelConfig;
  struct Case {
    const char* arch;
    std::function<void(Config&)> change;
    const char* reason;
  };
  const std::vector<Case> kCases = {
      {"mamba1", [](Config& c) { c.d_intermediate = 64; }, "d_intermediate"},
      {"mamba1", [](Config& c) { c.attn_layer_idx = {1}; }, "attn_layer_idx"},
      {"mamba1", [](Config& c) { c.rms_norm = false; }, "rms_norm"},
      {"mamba1", [](Config& c) { c.vocab_size = 250, c.pad_vocab_size_multiple = 8; }, "vocab"},
      {"mamba1", [](Config& c) { c.d_inner = 300; }, "d_inner"},
      {"mamba1", [](Config& c) { c.dt_limit_max = 1; }, "dt_limit"},
      {"mamba1", [](Config& c) { c.ngroups = 2; }, "ngroups"},
      {"mamba2", [](Config& c) { c.d_ssm = 256; }, "d_ssm"},
      {"mamba2", [](Config& c) { c.d_has_hdim = true; }, "D_has_hdim"},
      {"mamba2", [](Config& c) { c.rmsnorm = false; }, "rmsnorm"},
      {"mamba2", [](Config& c) { c.norm_before_gate = true; }, "norm_before_gate"},
      {"mamba2", [](Config& c) { c.ngroups = 2; }, "norm_groups"},
      {"mamba2", [](Config& c) { c.norm_groups = 2; }, "norm_groups"},
      {"mamba2", [](Config& c) { c.ngroups = 2, c.norm_groups = 1; }, "(ngroups)"},
  };
  for (const Case& one : kCases) {
    const Config config = changed(one.arch, one.change);
    const auto reason = hf_cannot_express(config);
    ASSERT_TRUE(reason) << one.reason;
    EXPECT_NE(reason->find(one.reason), std::string::npos) << *reason;
    EXPECT_EQ(layout_for(config), ConfigLayout::adder);
    EXPECT_NE(message_of([&] { model_config_json(config, ConfigLayout::hf); }).find(*reason),
              std::string::npos);
  }
}

TEST(ModelConfig, WhatTransformersExpressesSurvivesItsLayout) {
  using Config = ModelConfig;
  const std::vector<std::function<void(Config&)>> kChanges = {
      [](Config&) {},
      [](Config& c) { c.tie_embeddings = false; },
      [](Config& c) { c.bias = true, c.conv_bias = false, c.d_conv = 5; },
      [](Config& c) { c.residual_in_fp32 = false, c.norm_eps = 1e-6; },
      [](Config& c) { c.expand = 3, c.d_state = 8, c.n_layer = 2; },
      [](Config& c) { c.expand = 1.5; },
      [](Config& c) { c.eos_token_ids = {1, 2}, c.bos_token_id = 5; },
  };
  for (const char* arch : {"mamba1", "mamba2"}) {
    for (const auto& change : kChanges) {
      const Config config = changed(arch, change);
      ASSERT_EQ(hf_cannot_express(config), std::nullopt);
      const JsonValue json = model_config_json(config, ConfigLayout::hf);
      const ReadConfig back = parse_model_config(parse_json(write_json(json), "f"), "f");
      EXPECT_EQ(back.layout, ConfigLayout::hf);
      EXPECT_TRUE(back.config == config) << write_json(json);
    }
  }
  const Config limited =
      changed("mamba2", [](Config& c) { c.dt_limit_min = 0.01, c.dt_limit_max = 0.5; });
  const JsonValue json = model_config_json(limited, ConfigLayout::hf);
  EXPECT_TRUE(parse_model_config(parse_json(write_json(json), "f"), "f").config == limited);
}

TEST(ModelConfig, TheNativeLayoutRefusesWhatItWouldLose) {
  const ModelConfig plain = parse(R"({"d_model": 64})");
  EXPECT_EQ(message_of([&] { model_config_json(plain, ConfigLayout::native); }), "");
  ModelConfig other = plain;
  other.norm_eps = 1e-6;
  EXPECT_NE(message_of([&] { model_config_json(other, ConfigLayout::native); }).find("norm_eps"),
            std::string::npos);
}

TEST(GenerationConfig, RoundTrips) {
  GenerationConfig config;
  config.eos_token_ids = {0, 7};
  config.temperature = 0.7;
  config.top_k = 5;
  config.do_sample = true;
  const JsonValue json = generation_config_json(config);
  EXPECT_TRUE(parse_generation_config(parse_json(write_json(json), "f"), "f") == config);
  EXPECT_TRUE(parse_generation_config(generation_config_json({}), "f") == GenerationConfig{});
  const JsonValue bad = parse_json(R"({"top_k": 1.5})", "f");
  EXPECT_NE(message_of([&] { parse_generation_config(bad, "g.json"); }).find("g.json: key 'top_k'"),
            std::string::npos);
}

}  // namespace
}  // namespace adder
