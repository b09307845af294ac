// A model directory: config.json, generation_config.json and the weights, in one safetensors file
// or in shards (formats.md 3.5).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/model_config.h"
#include "formats/safetensors.h"

namespace adder {

/// Opens and checks a model directory: files, shard map, tied copies, and the sizes that the config
/// gives against the stored shapes. Immutable afterwards; const members may be used from several
/// threads.
///
/// Names are accepted in both spellings of the embedding (backbone.embedding.weight and
/// backbone.embeddings.weight), and lm_head.weight names the embedding when the head is tied.
class ModelFiles {
 public:
  explicit ModelFiles(const std::string& directory);

  const std::string& directory() const { return directory_; }
  /// The config, with `bias` resolved from the tensors.
  const ModelConfig& config() const { return config_; }
  ConfigLayout layout() const { return layout_; }
  /// The contents of generation_config.json; token ids that it lacks come from config.json.
  const GenerationConfig& generation() const { return generation_; }

  bool has(std::string_view name) const;
  TensorInfo info(std::string_view name) const;
  /// Names as stored, sorted, of every tensor that the model directory maps.
  std::vector<std::string> names() const;
  /// The name under which the file stores `name` (an alias of the embedding, or itself).
  std::string stored_name(std::string_view name) const;
  /// Things that were ignored, one line each, for the user.
  const std::vector<std::string>& notes() const { return notes_; }

  /// Reads a tensor as T. Throws Error naming the tensor and both shapes when the stored shape is
  /// not `expected`; a middle 1 as in conv1d.weight [C, 1, W] matches [C, W].
  template <class T>
  void read_as(std::string_view name, T* out, std::span<const int64_t> expected) const;
  template <class T>
  std::vector<T> read_as(std::string_view name, std::span<const int64_t> expected) const;

  /// Elements [first, first + count) of it only: how large tensors are read in pieces.
  template <class T>
  void read_part(std::string_view name, std::span<const int64_t> expected, int64_t first,
                 int64_t count, T* out) const;

 private:
  void open_weights();
  void open_shards(const std::string& index_path);
  void read_generation();
  void check_tied_head();
  void check_sizes();
  void resolve_bias(const char* key, const std::string& name, std::optional<bool>& setting);
  const SafetensorsFile& file_of(std::string_view stored) const;

  std::string directory_;
  ModelConfig config_;
  ConfigLayout layout_ = ConfigLayout::hf;
  GenerationConfig generation_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t, std::less<>> where_;  // stored name -> index of files_
  std::vector<std::string> notes_;
};

struct SaveModel {
  ModelConfig config;
  ConfigLayout layout = ConfigLayout::hf;  // layout_for(config) chooses
  GenerationConfig generation;             // token ids default to the config's
  std::vector<TensorSource> tensors;       // either spelling of the embedding
};

/// Writes model.safetensors, generation_config.json and config.json, each through AtomicFile, into
/// `directory` (created if need be). The embedding's name and conv1d.weight's shape ([C, W] becomes
/// [C, 1, W]) are stored as the layout wants; a tied head is left out.
void save_model(const std::string& directory, const SaveModel& model);

}  // namespace adder
