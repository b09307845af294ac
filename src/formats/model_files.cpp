#include "formats/model_files.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>

#include "core/error.h"
#include "formats/model_names.h"
#include "formats/read_types.h"

namespace adder {
namespace {

namespace fs = std::filesystem;

std::string in_folder(const std::string& directory, const char* name) {
  return (fs::path(directory) / name).string();
}

bool exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

/// A shard's name must be a plain name in the same folder, whatever the index says.
void check_shard_name(const std::string& name, const std::string& index_path) {
  const bool plain = !name.empty() && name != "." && name.find('/') == std::string::npos &&
                     name.find('\\') == std::string::npos && name.find("..") == std::string::npos &&
                     name.find('\0') == std::string::npos;
  if (!plain) {
    throw Error(
        {"wrong shard name", index_path + ": weight_map", "a plain file name", quoted_name(name)});
  }
}

/// The stored shape as the engine wants it: conv1d.weight [C, 1, W] stands for [C, W].
bool same_shape(std::span<const int64_t> stored, std::span<const int64_t> expected) {
  if (std::equal(stored.begin(), stored.end(), expected.begin(), expected.end())) return true;
  return stored.size() == 3 && expected.size() == 2 && stored[1] == 1 && stored[0] == expected[0] &&
         stored[2] == expected[1];
}

}  // namespace

ModelFiles::ModelFiles(const std::string& directory) : directory_(directory) {
  if (!exists(directory)) throw Error({"no such model directory", directory, {}, {}});
  if (!fs::is_directory(directory)) {
    throw Error({"not a model directory", directory, "a folder with config.json and weights", {}});
  }
  ReadConfig read = read_model_config(directory);
  config_ = std::move(read.config);
  layout_ = read.layout;
  open_weights();
  read_generation();
  check_tied_head();
  check_sizes();
}

void ModelFiles::open_weights() {
  const std::string single = in_folder(directory_, "model.safetensors");
  const std::string index = in_folder(directory_, "model.safetensors.index.json");
  if (exists(single)) {
    files_.emplace_back(single);
    for (std::string& name : files_.front().names()) where_.emplace(std::move(name), 0);
  } else if (exists(index)) {
    open_shards(index);
  } else {
    const bool torch = exists(in_folder(directory_, "pytorch_model.bin")) ||
                       exists(in_folder(directory_, "pytorch_model.bin.index.json"));
    throw Error({torch ? "pytorch_model.bin is not supported yet: save the model as safetensors"
                       : "no weights",
                 directory_, "model.safetensors or model.safetensors.index.json",
                 torch ? "pytorch_model.bin" : "neither"});
  }
}

void ModelFiles::open_shards(const std::string& index_path) {
  const JsonValue index = read_json_file(index_path);
  JsonFields fields(index, index_path);
  const JsonValue* map = fields.find("weight_map");
  if (map == nullptr || !map->is_object()) {
    fields.fail("weight_map", "missing or of the wrong type", "an object", {});
  }
  std::map<std::string, size_t> shards;
  for (const JsonMember& member : map->as_object()) {
    if (!member.value.is_string()) {
      throw Error({"wrong type", index_path + ": weight_map: " + quoted_name(member.key),
                   "a file name", std::string(json_kind_name(member.value.kind()))});
    }
    const std::string& shard = member.value.as_string();
    const auto [entry, added] = shards.emplace(shard, files_.size());
    if (added) {
      check_shard_name(shard, index_path);
      files_.emplace_back((fs::path(directory_) / shard).string());
    }
    if (!files_[entry->second].has(member.key)) {
      throw Error({"the shard lacks a tensor of weight_map",
                   tensor_where(files_[entry->second].path(), member.key),
                   {},
                   {}});
    }
    where_.emplace(member.key, entry->second);
  }
  for (size_t i = 0; i < files_.size(); ++i) {
    for (const std::string& name : files_[i].names()) {
      const auto mapped = where_.find(name);
      if (mapped == where_.end() || mapped->second != i) {
        notes_.push_back(tensor_where(files_[i].path(), name) + " is not in weight_map: ignored");
      }
    }
  }
}

void ModelFiles::read_generation() {
  const std::string path = in_folder(directory_, "generation_config.json");
  if (exists(path)) generation_ = parse_generation_config(read_json_file(path), path);
  if (!generation_.bos_token_id) generation_.bos_token_id = config_.bos_token_id;
  if (generation_.eos_token_ids.empty()) generation_.eos_token_ids = config_.eos_token_ids;
  if (!generation_.pad_token_id) generation_.pad_token_id = config_.pad_token_id;
}

std::string ModelFiles::stored_name(std::string_view name) const {
  std::string plain(name);
  if (where_.find(plain) != where_.end()) return plain;
  if (plain == kHeadName && config_.tie_embeddings) plain = kEmbeddingName;
  for (const char* spelling : {kEmbeddingName, kHfEmbeddingName}) {
    const bool embedding = plain == kEmbeddingName || plain == kHfEmbeddingName;
    if (embedding && where_.find(std::string_view(spelling)) != where_.end()) return spelling;
  }
  return plain;
}

bool ModelFiles::has(std::string_view name) const {
  return where_.find(stored_name(name)) != where_.end();
}

const SafetensorsFile& ModelFiles::file_of(std::string_view stored) const {
  const auto found = where_.find(stored);
  if (found != where_.end()) return files_[found->second];
  const std::string near = nearest_name(stored, names());
  throw Error({near.empty() ? "no such tensor" : "no such tensor, did you mean '" + near + "'?",
               tensor_where(directory_, stored),
               {},
               {}});
}

TensorInfo ModelFiles::info(std::string_view name) const {
  const std::string stored = stored_name(name);
  return file_of(stored).info(stored);
}

std::vector<std::string> ModelFiles::names() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : where_) names.push_back(name);
  return names;
}

template <class T>
void ModelFiles::read_part(std::string_view name, std::span<const int64_t> expected, int64_t first,
                           int64_t count, T* out) const {
  const std::string stored = stored_name(name);
  const SafetensorsFile& file = file_of(stored);
  const TensorInfo tensor = file.info(stored);
  if (!same_shape(tensor.shape, expected)) {
    throw Error({"wrong shape", tensor_where(file.path(), stored), shape_text(expected),
                 shape_text(tensor.shape)});
  }
  file.read_part(stored, first, count, out);
}

template <class T>
void ModelFiles::read_as(std::string_view name, T* out, std::span<const int64_t> expected) const {
  read_part(name, expected, 0, info(name).elements(), out);
}

template <class T>
std::vector<T> ModelFiles::read_as(std::string_view name, std::span<const int64_t> expected) const {
  std::vector<T> values(static_cast<size_t>(info(name).elements()));
  read_as(name, values.data(), expected);
  return values;
}

#define ADDER_INSTANTIATE(T)                                                               \
  template void ModelFiles::read_as(std::string_view, T*, std::span<const int64_t>) const; \
  template void ModelFiles::read_part(std::string_view, std::span<const int64_t>, int64_t, \
                                      int64_t, T*) const;                                  \
  template std::vector<T> ModelFiles::read_as(std::string_view, std::span<const int64_t>) const;
ADDER_FOR_READ_TYPES(ADDER_INSTANTIATE)
#undef ADDER_INSTANTIATE

void ModelFiles::check_tied_head() {
  const bool stored_head = where_.find(std::string_view(kHeadName)) != where_.end();
  if (!config_.tie_embeddings && !stored_head) {
    throw Error({"missing, though the config does not tie it to the embedding",
                 tensor_where(directory_, kHeadName),
                 {},
                 {}});
  }
  if (!config_.tie_embeddings || !stored_head || !has(kEmbeddingName)) return;
  const TensorInfo embedding = info(kEmbeddingName), head = info(kHeadName);
  bool equal = embedding.shape == head.shape && embedding.dtype == head.dtype;
  if (equal) {
    const std::string stored = stored_name(kEmbeddingName);
    const auto left = file_of(stored).data(stored), right = file_of(kHeadName).data(kHeadName);
    equal = std::equal(left.begin(), left.end(), right.begin(), right.end());
  }
  if (!equal) {
    throw Error({"the config ties it to the embedding, but the two stored copies differ",
                 tensor_where(directory_, kHeadName),
                 {},
                 {}});
  }
}

}  // namespace adder
