// safetensors files (huggingface/safetensors, README and safetensors/src/tensor.rs; formats.md
// section 5): u64 little-endian N, N bytes of JSON, then the data that the tensors tile exactly.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/mapped_file.h"
#include "formats/tensor_info.h"

namespace adder {

inline constexpr int64_t kSafetensorsHeaderLimit = 100'000'000;
inline constexpr int64_t kSafetensorsMetadataLimit = 65'536;  // entries of __metadata__

/// A safetensors file, checked whole when it is opened: header limit, JSON, UTF-8, duplicate keys,
/// dtypes, products, offsets that tile the data. Errors name file, tensor, expected and got.
/// Opening takes at most 2x the file's size + 16 MiB of heap, whatever the file says. The object is
/// immutable afterwards: const members may be used from several threads.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const { return file_.path(); }
  bool has(std::string_view name) const;
  /// Throws Error naming the nearest known name when there is no such tensor.
  TensorInfo info(std::string_view name) const;
  /// Sorted.
  std::vector<std::string> names() const;
  /// All tensors by name.
  std::map<std::string, TensorInfo> tensors() const;
  std::map<std::string, std::string> metadata() const;

  /// The stored bytes in the mapping, possibly unaligned.
  std::span<const std::byte> data(std::string_view name) const;
  /// Reads all elements of a tensor as T, see convert_elements. `out` holds info(name).elements().
  template <class T>
  void read_as(std::string_view name, T* out) const;
  /// Elements [first, first + count) only.
  template <class T>
  void read_part(std::string_view name, int64_t first, int64_t count, T* out) const;

  /// One tensor in 40 bytes: texts are offsets into the header, so that a header of many tiny
  /// tensors cannot take much more memory than itself.
  struct Entry {
    uint32_t name_begin = 0;
    uint32_t name_size = 0;
    uint32_t shape_begin = 0;  // just after its '[' in the header text
    uint32_t rank = 0;
    int64_t begin = 0;
    int64_t end = 0;
    Dtype dtype = Dtype::f32;
  };
  struct MetadataEntry {
    uint32_t key_begin = 0, key_size = 0, value_begin = 0, value_size = 0;
  };

 private:
  const Entry* find(std::string_view name) const;
  const Entry& at(std::string_view name) const;
  std::string_view text(uint32_t begin, uint32_t size) const;
  TensorInfo info_of(const Entry& entry) const;
  void check_tiling();
  void check_names();

  MappedFile file_;
  std::string header_;  // decoded in place: strings without their escapes
  int64_t data_begin_ = 0;
  std::deque<Entry> entries_;  // sorted by name
  std::vector<MetadataEntry> metadata_;
};

/// Writes a safetensors file through AtomicFile: tensors by element size descending then name, the
/// header padded with spaces to a multiple of 8. Throws Error on duplicate names and on a byte
/// count that the shape contradicts.
void write_safetensors(const std::string& path, std::vector<TensorSource> tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace adder
