#include "formats/safetensors.h"

#include <algorithm>
#include <cstring>

#include "core/atomic_file.h"
#include "core/error.h"
#include "formats/json.h"
#include "formats/read_types.h"
#include "formats/safetensors_header.h"

namespace adder {
namespace {

constexpr int64_t kLengthBytes = 8;  // the u64 in front of the header

int64_t read_header_length(const MappedFile& file) {
  if (file.size() < kLengthBytes) {
    throw Error({"too short for a safetensors file", file.path(), "at least 8 bytes",
                 std::to_string(file.size())});
  }
  uint64_t length = 0;
  file.read(0, std::as_writable_bytes(std::span(&length, 1)));
  if (length > static_cast<uint64_t>(kSafetensorsHeaderLimit)) {
    throw Error({"the header is too long", file.path(),
                 "at most " + std::to_string(kSafetensorsHeaderLimit) + " bytes",
                 std::to_string(length)});
  }
  const int64_t rest = file.size() - kLengthBytes;
  if (static_cast<int64_t>(length) > rest) {
    throw Error({"the header runs past the end of the file", file.path(),
                 "at most " + std::to_string(rest) + " bytes", std::to_string(length)});
  }
  return static_cast<int64_t>(length);
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : file_(path) {
  const int64_t length = read_header_length(file_);
  header_.resize(static_cast<size_t>(length));
  file_.read(kLengthBytes, std::as_writable_bytes(std::span<char>(header_)));
  data_begin_ = kLengthBytes + length;
  SafetensorsHeader header = parse_safetensors_header(header_, path);
  entries_ = std::move(header.entries);
  metadata_ = std::move(header.metadata);
  check_tiling();
  check_names();
}

std::string_view SafetensorsFile::text(uint32_t begin, uint32_t size) const {
  return std::string_view(header_).substr(begin, size);
}

void SafetensorsFile::check_tiling() {
  std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  int64_t reached = 0;
  for (const Entry& entry : entries_) {
    if (entry.begin != reached) {
      throw Error(
          {entry.begin < reached ? "overlaps the tensor before it" : "leaves a hole before it",
           tensor_where(path(), text(entry.name_begin, entry.name_size)) + ": data_offsets",
           "begin " + std::to_string(reached), std::to_string(entry.begin)});
    }
    reached = entry.end;
  }
  const int64_t data_bytes = file_.size() - data_begin_;
  if (reached != data_bytes) {
    throw Error({reached > data_bytes ? "the file is truncated" : "bytes after the last tensor",
                 path(), std::to_string(reached) + " bytes of data", std::to_string(data_bytes)});
  }
}

void SafetensorsFile::check_names() {
  const auto name = [&](const Entry& entry) { return text(entry.name_begin, entry.name_size); };
  std::sort(entries_.begin(), entries_.end(),
            [&](const Entry& a, const Entry& b) { return name(a) < name(b); });
  const auto twice =
      std::adjacent_find(entries_.begin(), entries_.end(),
                         [&](const Entry& a, const Entry& b) { return name(a) == name(b); });
  if (twice != entries_.end()) {
    throw Error({"duplicate name", tensor_where(path(), name(*twice)), {}, {}});
  }
  const auto key = [&](const MetadataEntry& entry) {
    return text(entry.key_begin, entry.key_size);
  };
  std::sort(metadata_.begin(), metadata_.end(),
            [&](const MetadataEntry& a, const MetadataEntry& b) { return key(a) < key(b); });
  const auto same = std::adjacent_find(
      metadata_.begin(), metadata_.end(),
      [&](const MetadataEntry& a, const MetadataEntry& b) { return key(a) == key(b); });
  if (same != metadata_.end()) {
    throw Error({"duplicate key " + quoted_name(key(*same)), path() + ": __metadata__", {}, {}});
  }
}

const SafetensorsFile::Entry* SafetensorsFile::find(std::string_view name) const {
  const auto found = std::lower_bound(entries_.begin(), entries_.end(), name,
                                      [&](const Entry& entry, std::string_view wanted) {
                                        return text(entry.name_begin, entry.name_size) < wanted;
                                      });
  const bool match = found != entries_.end() && text(found->name_begin, found->name_size) == name;
  return match ? &*found : nullptr;
}

const SafetensorsFile::Entry& SafetensorsFile::at(std::string_view name) const {
  if (const Entry* entry = find(name)) return *entry;
  const std::string near = nearest_name(name, names());
  throw Error({near.empty() ? "no such tensor" : "no such tensor, did you mean '" + near + "'?",
               tensor_where(path(), name),
               {},
               {}});
}

TensorInfo SafetensorsFile::info_of(const Entry& entry) const {
  TensorInfo info{entry.dtype, {}, entry.begin, entry.end};
  info.shape.reserve(entry.rank);
  // The parser has checked these digits; only blanks and commas lie between them.
  const char* at = header_.data() + entry.shape_begin;
  const auto digit = [&] { return *at >= '0' && *at <= '9'; };
  for (uint32_t i = 0; i < entry.rank; ++i) {
    while (!digit()) ++at;
    int64_t size = 0;
    for (; digit(); ++at) size = size * 10 + (*at - '0');
    info.shape.push_back(size);
  }
  return info;
}

bool SafetensorsFile::has(std::string_view name) const { return find(name) != nullptr; }

TensorInfo SafetensorsFile::info(std::string_view name) const { return info_of(at(name)); }

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  names.reserve(entries_.size());
  for (const Entry& entry : entries_) names.emplace_back(text(entry.name_begin, entry.name_size));
  return names;
}

std::map<std::string, TensorInfo> SafetensorsFile::tensors() const {
  std::map<std::string, TensorInfo> tensors;
  for (const Entry& entry : entries_) {
    tensors.emplace_hint(tensors.end(), text(entry.name_begin, entry.name_size), info_of(entry));
  }
  return tensors;
}

std::map<std::string, std::string> SafetensorsFile::metadata() const {
  std::map<std::string, std::string> metadata;
  for (const MetadataEntry& entry : metadata_) {
    metadata.emplace_hint(metadata.end(), text(entry.key_begin, entry.key_size),
                          text(entry.value_begin, entry.value_size));
  }
  return metadata;
}

std::span<const std::byte> SafetensorsFile::data(std::string_view name) const {
  const Entry& entry = at(name);
  return file_.bytes().subspan(static_cast<size_t>(data_begin_ + entry.begin),
                               static_cast<size_t>(entry.end - entry.begin));
}

template <class T>
void SafetensorsFile::read_as(std::string_view name, T* out) const {
  read_part(name, 0, info(name).elements(), out);
}

template <class T>
void SafetensorsFile::read_part(std::string_view name, int64_t first, int64_t count, T* out) const {
  TensorInfo part = info(name);
  ADDER_CHECK(first >= 0 && count >= 0 && count <= part.elements() - first);
  part.begin += first * dtype_bytes(part.dtype);
  part.end = part.begin + count * dtype_bytes(part.dtype);
  read_elements(file_, data_begin_ + part.begin, part, out, tensor_where(path(), name));
}

#define ADDER_INSTANTIATE(T)                                          \
  template void SafetensorsFile::read_as(std::string_view, T*) const; \
  template void SafetensorsFile::read_part(std::string_view, int64_t, int64_t, T*) const;
ADDER_FOR_READ_TYPES(ADDER_INSTANTIATE)
#undef ADDER_INSTANTIATE

namespace {

void check_sources(const std::vector<TensorSource>& tensors, const std::string& path) {
  std::vector<std::string_view> names;
  for (const TensorSource& tensor : tensors) {
    int64_t bytes = 0;
    const bool fits = tensor_bytes(tensor.shape, tensor.dtype, &bytes);
    if (!fits || bytes != static_cast<int64_t>(tensor.bytes.size())) {
      throw Error({"shape and bytes disagree", tensor_where(path, tensor.name),
                   shape_text(tensor.shape) + " of " + std::string(stored_dtype_name(tensor.dtype)),
                   std::to_string(tensor.bytes.size()) + " bytes"});
    }
    if (tensor.name == "__metadata__") {
      throw Error({"a reserved name", tensor_where(path, tensor.name), {}, {}});
    }
    names.push_back(tensor.name);
  }
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) throw Error({"duplicate name", tensor_where(path, *twice), {}, {}});
}

JsonValue tensor_entry(const TensorSource& tensor, int64_t begin) {
  JsonValue shape = JsonValue::array();
  for (const int64_t size : tensor.shape) shape.push(size);
  JsonValue offsets = JsonValue::array();
  offsets.push(begin).push(begin + static_cast<int64_t>(tensor.bytes.size()));
  JsonValue entry = JsonValue::object();
  entry.set("dtype", stored_dtype_name(tensor.dtype));
  entry.set("shape", std::move(shape)).set("data_offsets", std::move(offsets));
  return entry;
}

std::string header_text(const std::vector<TensorSource>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  JsonValue::Object header;
  if (!metadata.empty()) {
    JsonValue::Object pairs;
    for (const auto& [key, value] : metadata) pairs.push_back({key, value});
    header.push_back({"__metadata__", std::move(pairs)});
  }
  int64_t begin = 0;
  for (const TensorSource& tensor : tensors) {
    header.push_back({tensor.name, tensor_entry(tensor, begin)});
    begin += static_cast<int64_t>(tensor.bytes.size());
  }
  std::string text = write_json(std::move(header), {0, JsonNonFinite::refuse});
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

void write_safetensors(const std::string& path, std::vector<TensorSource> tensors,
                       const std::map<std::string, std::string>& metadata) {
  check_sources(tensors, path);
  std::sort(tensors.begin(), tensors.end(), [](const TensorSource& a, const TensorSource& b) {
    const int64_t left = dtype_bytes(a.dtype), right = dtype_bytes(b.dtype);
    return left != right ? left > right : a.name < b.name;
  });
  const std::string header = header_text(tensors, metadata);
  const uint64_t length = header.size();
  if (static_cast<int64_t>(length) > kSafetensorsHeaderLimit) {
    throw Error({"the header is too long", path,
                 "at most " + std::to_string(kSafetensorsHeaderLimit) + " bytes",
                 std::to_string(length)});
  }
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);
  for (const TensorSource& tensor : tensors) file.write(tensor.bytes);
  file.commit();
}

}  // namespace adder
