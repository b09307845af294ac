// Training checkpoints: named tensors and a JSON manifest in one file, with a checksum for each
// tensor and one for the whole, so that no flipped bit passes. All fields little-endian.
//
//   "ADDRCKP1" | u32 version = 1 | u32 CRC32C of the header text | u64 bytes of the header text |
//   u64 bytes of the file | header text (JSON) | zeros to a multiple of 64 | tensors, each at a
//   multiple of 64, zeros between | u32 CRC32C of all bytes before | "ADDRCKPE"
//   header: {"manifest": ..., "tensors": [{"name", "dtype", "shape", "offset", "bytes", "crc32c"}]}
//
// Offsets count from the place of the first tensor; the tensors tile the file without holes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/mapped_file.h"
#include "formats/json.h"
#include "formats/tensor_info.h"

namespace adder {

/// Writes `path` through AtomicFile: temporary, fsync, re-read and verified, rename, directory
/// fsync. When it returns the file is durable; when it throws, what was there before still is.
void save_checkpoint(const std::string& path, const JsonValue& manifest,
                     std::span<const TensorSource> tensors);

/// A verified checkpoint, mapped. Immutable.
class Checkpoint {
 public:
  const std::string& path() const { return file_.path(); }
  const JsonValue& manifest() const { return manifest_; }
  bool has(std::string_view name) const { return tensors_.find(name) != tensors_.end(); }
  /// Sorted.
  std::vector<std::string> names() const;
  /// Throws Error naming the nearest known name when there is no such tensor.
  const TensorInfo& info(std::string_view name) const;
  std::span<const std::byte> data(std::string_view name) const;
  /// Reads a tensor as T. Throws Error naming the tensor and both shapes when the stored shape is
  /// not `expected`.
  template <class T>
  void read_as(std::string_view name, T* out, std::span<const int64_t> expected) const;

 private:
  friend Checkpoint load_checkpoint(const std::string& path);
  MappedFile file_;
  JsonValue manifest_;
  int64_t data_begin_ = 0;
  std::map<std::string, TensorInfo, std::less<>> tensors_;
};

/// Opens and verifies everything: header, layout, each tensor, the whole file. Errors name the
/// tensor or the offset.
Checkpoint load_checkpoint(const std::string& path);

/// "checkpoint-00000042.adder".
std::string checkpoint_name(int64_t step);

struct CheckpointFile {
  std::string path;
  int64_t step = 0;
};

/// The checkpoints of a directory by their names, newest first; empty if there is no directory.
std::vector<CheckpointFile> find_checkpoints(const std::string& directory);

/// Deletes all but the newest `keep_last` checkpoints that verify and the one of step `best`. With
/// fewer than `keep_last` valid ones nothing is deleted, so a save that went wrong never costs an
/// older checkpoint. Those of the steps `verified` count as valid and are not read: the caller
/// saved them. Also removes temporaries of killed processes. Returns the deleted paths.
std::vector<std::string> keep_checkpoints(const std::string& directory, int64_t keep_last = 2,
                                          std::optional<int64_t> best = {},
                                          std::span<const int64_t> verified = {});

/// The newest checkpoint that verifies; `on_skip` hears of each that does not. Nothing if the
/// directory holds none; Error if it holds some and all are bad.
using CheckpointSkipped = std::function<void(const std::string& path, const std::string& reason)>;
std::optional<Checkpoint> open_newest_valid(const std::string& directory,
                                            const CheckpointSkipped& on_skip = {});

}  // namespace adder
