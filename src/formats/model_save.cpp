#include <filesystem>

#include "core/atomic_file.h"
#include "core/error.h"
#include "formats/model_files.h"
#include "formats/model_names.h"

namespace adder {
namespace {

namespace fs = std::filesystem;

/// The name of a dtype in config.json of transformers.
std::string_view torch_dtype(Dtype type) {
  switch (type) {
    case Dtype::f64:
      return "float64";
    case Dtype::bf16:
      return "bfloat16";
    case Dtype::f16:
      return "float16";
    default:
      return "float32";
  }
}

bool is_embedding(const std::string& name) {
  return name == kEmbeddingName || name == kHfEmbeddingName;
}

/// Tensors under the names and shapes of the layout: the embedding's spelling, no tied head, and
/// conv1d.weight as [C, 1, W], PyTorch's shape of a depthwise convolution.
std::vector<TensorSource> as_stored(const SaveModel& model) {
  std::vector<TensorSource> stored;
  for (TensorSource tensor : model.tensors) {
    if (is_embedding(tensor.name)) {
      tensor.name = model.layout == ConfigLayout::hf ? kHfEmbeddingName : kEmbeddingName;
    }
    if (tensor.name == kHeadName && model.config.tie_embeddings) continue;
    if (tensor.name.ends_with("conv1d.weight") && tensor.shape.size() == 2) {
      tensor.shape.insert(tensor.shape.begin() + 1, 1);
    }
    stored.push_back(std::move(tensor));
  }
  return stored;
}

GenerationConfig with_tokens_of(GenerationConfig generation, const ModelConfig& config) {
  if (!generation.bos_token_id) generation.bos_token_id = config.bos_token_id;
  if (generation.eos_token_ids.empty()) generation.eos_token_ids = config.eos_token_ids;
  if (!generation.pad_token_id) generation.pad_token_id = config.pad_token_id;
  return generation;
}

}  // namespace

void save_model(const std::string& directory, const SaveModel& model) {
  Dtype dtype = Dtype::f32;
  for (const TensorSource& tensor : model.tensors) {
    if (is_embedding(tensor.name)) dtype = tensor.dtype;
  }
  const JsonValue config = model_config_json(model.config, model.layout, torch_dtype(dtype));
  const JsonValue generation =
      generation_config_json(with_tokens_of(model.generation, model.config));
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) throw Error({"cannot create the directory: " + error.message(), directory, {}, {}});
  const auto path = [&](const char* name) { return (fs::path(directory) / name).string(); };
  // config.json comes last: a first save that was cut short is no model yet.
  write_safetensors(path("model.safetensors"), as_stored(model));
  write_json_file(path("generation_config.json"), generation);
  write_json_file(path("config.json"), config);
}

}  // namespace adder
