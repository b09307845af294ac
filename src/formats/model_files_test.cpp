#include "formats/model_files.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/rng.h"
#include "formats/scratch_folder.h"

namespace adder {
namespace {

std::string golden(const std::string& name) {
  return std::string(ADDER_SOURCE_DIR) + "/tests/golden/" + name;
}

/// A small random model; tensors may be changed before it is saved.
struct Sample {
  explicit Sample(const char* arch = "mamba1") {
    config = default_model_config(arch);
    config.vocab_size = 20;
    config.d_model = 16;
    config.n_layer = 2;
    config.d_state = 4;
    if (config.is_mamba2()) config.headdim = 8;
    config.bias = false;
    resolve(config, "test");
    add("backbone.embedding.weight", {20, 16});
    add("backbone.norm_f.weight", {16});
    for (int64_t layer = 0; layer < config.n_layer; ++layer) {
      add_layer("backbone.layers." + std::to_string(layer) + ".");
    }
  }

  void add_layer(const std::string& layer) {
    const std::string mixer = layer + "mixer.";
    const int64_t inner = config.d_inner, state = config.d_state;
    add(layer + "norm.weight", {16});
    add(mixer + "out_proj.weight", {16, inner});
    if (config.is_mamba2()) {
      const int64_t heads = config.heads(), channels = inner + 2 * state;
      add(mixer + "in_proj.weight", {inner + channels + heads, 16});
      add(mixer + "conv1d.weight", {channels, 4});
      add(mixer + "conv1d.bias", {channels});
      add(mixer + "A_log", {heads});
      add(mixer + "D", {heads});
      add(mixer + "dt_bias", {heads});
      add(mixer + "norm.weight", {inner});
      return;
    }
    add(mixer + "in_proj.weight", {2 * inner, 16});
    add(mixer + "conv1d.weight", {inner, 4});
    add(mixer + "conv1d.bias", {inner});
    add(mixer + "x_proj.weight", {config.dt_rank + 2 * state, inner});
    add(mixer + "dt_proj.weight", {inner, config.dt_rank});
    add(mixer + "dt_proj.bias", {inner});
    add(mixer + "A_log", {inner, state});
    add(mixer + "D", {inner});
  }

  void add(const std::string& name, std::vector<int64_t> shape) {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    std::vector<float> values(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(normal(1, stream_of(name.c_str()), i));
    }
    weights[name] = {std::move(shape), std::move(values)};
  }

  SaveModel model(ConfigLayout layout) const {
    SaveModel save{config, layout, {}, {}};
    for (const auto& [name, weight] : weights) {
      save.tensors.push_back(tensor_source(name, weight.first, weight.second.data()));
    }
    return save;
  }
  void save(const std::string& directory, ConfigLayout layout = ConfigLayout::hf) const {
    save_model(directory, model(layout));
  }

  ModelConfig config;
  std::map<std::string, std::pair<std::vector<int64_t>, std::vector<float>>> weights;
};

TEST(ModelFiles, OpensThePublishedModels) {
  const ModelFiles mamba1(golden("models_hf/mamba_base"));
  EXPECT_EQ(mamba1.layout(), ConfigLayout::hf);
  EXPECT_TRUE(mamba1.has("backbone.embedding.weight"));
  EXPECT_TRUE(mamba1.has("lm_head.weight"));
  EXPECT_EQ(mamba1.stored_name("lm_head.weight"), "backbone.embeddings.weight");
  const auto embedding =
      mamba1.read_as<float>("backbone.embedding.weight", std::vector<int64_t>{97, 48});
  const auto head = mamba1.read_as<double>("lm_head.weight", std::vector<int64_t>{97, 48});
  EXPECT_EQ(static_cast<double>(embedding[5]), head[5]);
  const auto conv =
      mamba1.read_as<float>("backbone.layers.0.mixer.conv1d.weight", std::vector<int64_t>{96, 4});
  EXPECT_EQ(conv.size(), 384u);
  EXPECT_EQ(mamba1.generation().eos_token_ids, std::vector<int64_t>{0});
  EXPECT_TRUE(mamba1.notes().empty());
  const ModelFiles mamba2(golden("models_hf/mamba2_base"));
  EXPECT_EQ(mamba2.stored_name("lm_head.weight"), "lm_head.weight");
  EXPECT_EQ(mamba2.config().bias, std::optional<bool>(false));
}

TEST(ModelFiles, SaysThatPytorchBinComesLater) {
  const ScratchFolder folder;
  for (const char* name : {"config.json", "pytorch_model.bin"}) {
    std::filesystem::copy_file(golden(std::string("models_native/mamba1/") + name),
                               folder.at(name));
  }
  const std::string message = message_of([&] { ModelFiles(folder.at("")); });
  EXPECT_NE(message.find("pytorch_model.bin is not supported yet"), std::string::npos) << message;
}

TEST(ModelFiles, WhatIsSavedOpensEqual) {
  for (const char* arch : {"mamba1", "mamba2"}) {
    for (const ConfigLayout layout : {ConfigLayout::hf, ConfigLayout::adder}) {
      const ScratchFolder folder;
      const Sample sample(arch);
      sample.save(folder.at("model"), layout);
      const ModelFiles files(folder.at("model"));
      EXPECT_EQ(files.layout(), layout);
      EXPECT_TRUE(files.config() == sample.config);
      EXPECT_EQ(files.names().size(), sample.weights.size());
      for (const auto& [name, weight] : sample.weights) {
        EXPECT_EQ(files.read_as<float>(name, weight.first), weight.second) << name;
      }
      const std::string stored =
          layout == ConfigLayout::hf ? "backbone.embeddings.weight" : "backbone.embedding.weight";
      EXPECT_EQ(files.stored_name("backbone.embedding.weight"), stored);
      EXPECT_EQ(files.stored_name("backbone.embeddings.weight"), stored);
      EXPECT_EQ(files.info("backbone.layers.0.mixer.conv1d.weight").shape.size(), 3u);
      // Saving over it replaces it.
      sample.save(folder.at("model"), layout);
      EXPECT_EQ(message_of([&] { ModelFiles(folder.at("model")); }), "");
    }
  }
}

TEST(ModelFiles, ShapesAndNamesAreNamedInErrors) {
  const ScratchFolder folder;
  Sample().save(folder.path());
  const ModelFiles files(folder.path());
  std::vector<float> out(1000);
  const std::string shape = message_of(
      [&] { files.read_as("backbone.norm_f.weight", out.data(), std::vector<int64_t>{17}); });
  EXPECT_NE(shape.find("model.safetensors: tensor 'backbone.norm_f.weight': wrong shape: expected "
                       "[17], got [16]"),
            std::string::npos)
      << shape;
  const std::string name = message_of([&] { files.info("backbone.norm_x.weight"); });
  EXPECT_NE(name.find("did you mean 'backbone.norm_f.weight'"), std::string::npos) << name;
  EXPECT_FALSE(files.has("backbone.norm_x.weight"));
}

TEST(ModelFiles, TiedCopiesMustBeEqual) {
  const ScratchFolder folder;
  Sample sample;
  sample.save(folder.path());
  std::vector<float> copy = sample.weights["backbone.embedding.weight"].second;
  const auto store_with_head = [&] {
    SaveModel model = sample.model(ConfigLayout::hf);
    model.tensors.push_back(tensor_source("lm_head.weight", {20, 16}, copy.data()));
    for (TensorSource& tensor : model.tensors) {
      if (tensor.name.ends_with("conv1d.weight")) tensor.shape.insert(tensor.shape.begin() + 1, 1);
    }
    write_safetensors(folder.at("model.safetensors"), model.tensors);
  };
  store_with_head();
  EXPECT_EQ(message_of([&] { ModelFiles{folder.path()}; }), "");
  copy[3] += 1;
  store_with_head();
  EXPECT_NE(message_of([&] { ModelFiles{folder.path()}; }).find("two stored copies differ"),
            std::string::npos);
}

TEST(ModelFiles, AnUntiedHeadMustBeThere) {
  const ScratchFolder folder;
  Sample sample;
  sample.config.tie_embeddings = false;
  sample.save(folder.path());
  EXPECT_NE(message_of([&] { ModelFiles{folder.path()}; }).find("'lm_head.weight': missing"),
            std::string::npos);
  sample.add("lm_head.weight", {20, 16});
  sample.save(folder.path());
  const ModelFiles files(folder.path());
  EXPECT_EQ(files.read_as<float>("lm_head.weight", std::vector<int64_t>{20, 16}),
            sample.weights["lm_head.weight"].second);
}

TEST(ModelFiles, ConfigAndTensorsMustAgree) {
  const ScratchFolder folder;
  const auto opening = [&](const std::function<void(ModelConfig&)>& change, const char* arch) {
    const Sample sample(arch);
    sample.save(folder.path(), ConfigLayout::adder);
    ModelConfig other = sample.config;
    change(other);
    write_json_file(folder.at("config.json"), model_config_json(other, ConfigLayout::adder));
    return message_of([&] { ModelFiles{folder.path()}; });
  };
  using Config = ModelConfig;
  const std::vector<std::pair<std::function<void(Config&)>, const char*>> kMamba1 = {
      {[](Config& c) { c.n_layer = 3; }, "number of layers"},
      {[](Config& c) { c.n_layer = 1; }, "expected 1 (config.json), got 2 (tensors)"},
      {[](Config& c) { c.vocab_size = 21; }, "[padded vocab, d_model]"},
      {[](Config& c) { c.pad_vocab_size_multiple = 8; }, "expected [24, 16] (config.json)"},
      {[](Config& c) { c.d_model = 32; }, "config.json and the tensors disagree"},
      {[](Config& c) { c.d_inner = 48; }, "in_proj.weight"},
      {[](Config& c) { c.d_state = 5; }, "x_proj.weight"},
      {[](Config& c) { c.d_conv = 3; }, "conv1d.weight"},
      {[](Config& c) { c.dt_rank = 2; }, "x_proj.weight"},
      {[](Config& c) { c.bias = true; }, "bias: config.json"},
      {[](Config& c) { c.conv_bias = false; }, "conv_bias: config.json"},
  };
  for (const auto& [change, expected] : kMamba1) {
    const std::string message = opening(change, "mamba1");
    EXPECT_NE(message.find(expected), std::string::npos) << message;
  }
  const std::vector<std::pair<std::function<void(Config&)>, const char*>> kMamba2 = {
      {[](Config& c) { c.headdim = 16; }, "in_proj.weight"},
      {[](Config& c) { c.ngroups = 2; }, "in_proj.weight"},
      {[](Config& c) { c.d_state = 8; }, "in_proj.weight"},
      {[](Config& c) { c.d_ssm = 16; }, "in_proj.weight"},
      {[](Config& c) { c.d_has_hdim = true; }, "mixer.D"},
  };
  for (const auto& [change, expected] : kMamba2) {
    const std::string message = opening(change, "mamba2");
    EXPECT_NE(message.find(expected), std::string::npos) << message;
  }
  EXPECT_EQ(opening([](Config&) {}, "mamba2"), "");
  // A config that leaves the bias open learns it from the tensors.
  EXPECT_EQ(opening([](Config& c) { c.bias.reset(); }, "mamba1"), "");
  EXPECT_EQ(ModelFiles(folder.path()).config().bias, std::optional<bool>(false));
}

/// Splits the model of `folder` into two shards, with an index that may be changed.
void shard(const ScratchFolder& folder, const Sample& sample, const JsonValue& changes) {
  SaveModel model = sample.model(ConfigLayout::hf);
  std::vector<TensorSource> halves[2];
  JsonValue map = JsonValue::object();
  for (size_t i = 0; i < model.tensors.size(); ++i) {
    TensorSource& tensor = model.tensors[i];
    if (tensor.name.ends_with("conv1d.weight")) tensor.shape.insert(tensor.shape.begin() + 1, 1);
    map.set(tensor.name, i % 2 == 0 ? "a.safetensors" : "b.safetensors");
    halves[i % 2].push_back(tensor);
  }
  for (const JsonMember& member : changes.as_object()) map.set(member.key, member.value);
  write_safetensors(folder.at("a.safetensors"), halves[0]);
  write_safetensors(folder.at("b.safetensors"), halves[1]);
  JsonValue index = JsonValue::object();
  index.set("metadata", JsonValue::object().set("total_size", 1)).set("weight_map", map);
  write_json_file(folder.at("model.safetensors.index.json"), index);
}

TEST(ModelFiles, OpensShards) {
  const ScratchFolder folder;
  const Sample sample;
  sample.save(folder.path());
  std::filesystem::remove(folder.at("model.safetensors"));
  shard(folder, sample, JsonValue::object());
  const ModelFiles files(folder.path());
  for (const auto& [name, weight] : sample.weights) {
    EXPECT_EQ(files.read_as<float>(name, weight.first), weight.second) << name;
  }
  EXPECT_TRUE(files.notes().empty());
}

TEST(ModelFiles, MuseumOfBadShardMaps) {
  const ScratchFolder folder;
  const Sample sample;
  sample.save(folder.path());
  std::filesystem::remove(folder.at("model.safetensors"));
  const auto opening = [&](const JsonValue& changes) {
    shard(folder, sample, changes);
    return message_of([&] { ModelFiles{folder.path()}; });
  };
  const auto mapped = [](const char* name, JsonValue shard_name) {
    return JsonValue::object().set(name, std::move(shard_name));
  };
  for (const char* name : {"../a.safetensors", "/etc/passwd", "x/a.safetensors", "..", ".", "",
                           "a\\b.safetensors", "a..b"}) {
    const std::string message = opening(mapped("x", name));
    EXPECT_NE(message.find("a plain file name"), std::string::npos) << name << ": " << message;
  }
  EXPECT_NE(opening(mapped("x", std::string("a\0b", 3))).find("plain file name"),
            std::string::npos);
  EXPECT_NE(opening(mapped("x", 3)).find("a file name, got integer"), std::string::npos);
  EXPECT_NE(opening(mapped("x", "c.safetensors")).find("No such file"), std::string::npos);
  EXPECT_NE(opening(mapped("x", "a.safetensors")).find("lacks a tensor"), std::string::npos);
  const std::string index = folder.at("model.safetensors.index.json");
  for (const char* text : {"{}", R"({"weight_map": []})", R"({"weight_map": null})"}) {
    folder.put("model.safetensors.index.json", text);
    EXPECT_NE(message_of([&] { ModelFiles{folder.path()}; }).find("'weight_map'"),
              std::string::npos);
  }
  folder.put("model.safetensors.index.json", R"({"weight_map": {"a": "x", "a": "y"}})");
  EXPECT_NE(message_of([&] { ModelFiles{folder.path()}; }).find("duplicate key"),
            std::string::npos);
}

TEST(ModelFiles, TensorsOutsideTheMapAreNoted) {
  const ScratchFolder folder;
  const Sample sample;
  sample.save(folder.path());
  std::filesystem::remove(folder.at("model.safetensors"));
  shard(folder, sample, JsonValue::object());
  JsonValue index = read_json_file(folder.at("model.safetensors.index.json"));
  JsonValue map = *index.find("weight_map");
  std::erase_if(map.as_object(), [](const JsonMember& member) {
    return member.key == "backbone.layers.1.norm.weight";
  });
  write_json_file(folder.at("model.safetensors.index.json"), index.set("weight_map", map));
  const ModelFiles files(folder.path());
  ASSERT_EQ(files.notes().size(), 1u);
  EXPECT_NE(files.notes()[0].find("'backbone.layers.1.norm.weight' is not in weight_map"),
            std::string::npos);
  EXPECT_FALSE(files.has("backbone.layers.1.norm.weight"));
}

TEST(ModelFiles, MissingPiecesAreNamed) {
  const ScratchFolder folder;
  const auto opening = [&](const std::string& path) {
    return message_of([&] { ModelFiles{path}; });
  };
  EXPECT_NE(opening(folder.at("none")).find("no such model directory"), std::string::npos);
  EXPECT_NE(opening(folder.put("file", "x")).find("not a model directory"), std::string::npos);
  EXPECT_NE(opening(folder.path()).find("config.json: cannot open"), std::string::npos);
  Sample().save(folder.path());
  std::filesystem::remove(folder.at("model.safetensors"));
  EXPECT_NE(opening(folder.path()).find("no weights: expected model.safetensors"),
            std::string::npos);
  Sample sample;
  sample.weights.erase("backbone.norm_f.weight");
  sample.save(folder.path());
  EXPECT_NE(opening(folder.path()).find("'backbone.norm_f.weight'"), std::string::npos);
}

TEST(ModelFiles, SavingRefusesBeforeItWrites) {
  const ScratchFolder folder;
  Sample sample;
  sample.config.rms_norm = false;
  const std::string message = message_of([&] { sample.save(folder.at("m"), ConfigLayout::hf); });
  EXPECT_NE(message.find("cannot express LayerNorm"), std::string::npos) << message;
  EXPECT_FALSE(std::filesystem::exists(folder.at("m")));
  folder.put("file", "x");
  EXPECT_NE(
      message_of([&] { Sample().save(folder.at("file/m")); }).find("cannot create the directory"),
      std::string::npos);
}

}  // namespace
}  // namespace adder
