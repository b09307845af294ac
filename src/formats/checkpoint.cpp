#include "formats/checkpoint.h"

#include <algorithm>
#include <limits>

#include "core/checksum.h"
#include "core/error.h"
#include "formats/checkpoint_layout.h"

namespace adder {
namespace {

constexpr int64_t kEndBytes = sizeof(CheckpointEnd);
constexpr int64_t kReadBlock = 1 << 20;

[[noreturn]] void corrupt(const std::string& where, std::string what, std::string expected,
                          std::string got) {
  throw Error({std::move(what), where, std::move(expected), std::move(got)});
}

/// Reads a file once, from its begin to its end, and sums both its parts and the whole.
class SummedReader {
 public:
  explicit SummedReader(const MappedFile& file)
      : file_(file), block_(static_cast<size_t>(std::min(kReadBlock, file.size()))) {}
  /// Of all bytes before the place that is reached.
  uint32_t whole() const { return whole_; }
  /// Fills `out` with the next bytes and returns their checksum.
  uint32_t read(std::span<std::byte> out) {
    file_.read(at_, out);
    return reached(crc32c(out), at_ + static_cast<int64_t>(out.size()));
  }
  /// The checksum of the bytes from here to `end`.
  uint32_t pass(int64_t end) {
    Crc32c crc;
    for (int64_t at = at_; at < end; at += kReadBlock) {
      const auto bytes =
          std::span(block_).first(static_cast<size_t>(std::min(kReadBlock, end - at)));
      file_.read(at, bytes);
      crc.update(bytes);
    }
    return reached(crc.value(), end);
  }

 private:
  uint32_t reached(uint32_t crc, int64_t at) {
    whole_ = crc32c_joined(whole_, crc, at - at_);
    at_ = at;
    return crc;
  }

  const MappedFile& file_;
  std::vector<std::byte> block_;
  int64_t at_ = 0;
  uint32_t whole_ = 0;
};

CheckpointFront read_front(const MappedFile& file, SummedReader& reader) {
  const std::string& path = file.path();
  constexpr int64_t kSmallest = int64_t{sizeof(CheckpointFront)} + kEndBytes;
  if (file.size() < kSmallest) {
    corrupt(path, "too short for a checkpoint", "at least " + std::to_string(kSmallest) + " bytes",
            std::to_string(file.size()));
  }
  CheckpointFront front{};
  reader.read(std::as_writable_bytes(std::span(&front, 1)));
  if (std::string_view(front.magic, 8) != kCheckpointMagic) {
    corrupt(path, "wrong magic at byte 0", std::string(kCheckpointMagic),
            quoted_name({front.magic, 8}));
  }
  if (front.version != kCheckpointVersion) {
    corrupt(path, "wrong version at byte 8", std::to_string(kCheckpointVersion),
            std::to_string(front.version));
  }
  if (front.file_bytes != static_cast<uint64_t>(file.size())) {
    corrupt(path, "wrong length of the file", std::to_string(front.file_bytes) + " bytes",
            std::to_string(file.size()));
  }
  if (front.header_bytes > static_cast<uint64_t>(file.size() - kSmallest)) {
    corrupt(path, "the header runs past the end at byte 16",
            "at most " + std::to_string(file.size() - kSmallest) + " bytes",
            std::to_string(front.header_bytes));
  }
  return front;
}

Dtype dtype_from_stored(JsonFields& fields) {
  const std::string name = fields.get_string("dtype");
  for (const Dtype type : {Dtype::f64, Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::i64, Dtype::i32,
                           Dtype::i16, Dtype::i8, Dtype::u8, Dtype::boolean}) {
    if (stored_dtype_name(type) == name) return type;
  }
  fields.fail("dtype", "unknown dtype", "F64, F32, BF16, F16, I64, I32, I16, I8, U8 or BOOL",
              quoted_name(name));
}

struct StoredTensor {
  std::string name;
  TensorInfo info;
  int64_t crc = 0;
};

/// One entry of the header; it must begin at `offset`, where the one before ended.
StoredTensor read_entry(const JsonValue& json, const std::string& path, int64_t offset) {
  JsonFields outer(json, path + ": a tensor of the header");
  StoredTensor tensor;
  tensor.name = outer.get_string("name");
  JsonFields fields(json, tensor_where(path, tensor.name));
  fields.ignore("name");
  tensor.info.dtype = dtype_from_stored(fields);
  tensor.info.shape = fields.get_ints("shape");
  tensor.info.begin = fields.get_int("offset");
  const int64_t stored = fields.get_int("bytes");
  tensor.crc = fields.get_int("crc32c");
  fields.refuse_unknown();
  int64_t bytes = 0;
  if (!tensor_bytes(tensor.info.shape, tensor.info.dtype, &bytes) || bytes != stored) {
    fields.fail("bytes", "shape and bytes disagree", shape_text(tensor.info.shape),
                std::to_string(stored));
  }
  if (tensor.info.begin != offset) {
    fields.fail("offset", "wrong place", std::to_string(offset), std::to_string(tensor.info.begin));
  }
  if (bytes > std::numeric_limits<int64_t>::max() / 2 - offset) {
    fields.fail("bytes", "runs past the end", {}, std::to_string(bytes));
  }
  tensor.info.end = offset + bytes;
  return tensor;
}

/// The entries must tile the file from `data_begin` to its end, each at a multiple of 64.
std::vector<StoredTensor> read_entries(const JsonValue::Array& entries, const MappedFile& file,
                                       int64_t data_begin) {
  const int64_t data_bytes = file.size() - kEndBytes - data_begin;
  std::vector<StoredTensor> tensors;
  int64_t offset = 0;
  for (const JsonValue& entry : entries) {
    tensors.push_back(read_entry(entry, file.path(), offset));
    const StoredTensor& tensor = tensors.back();
    if (tensor.info.bytes() > data_bytes - offset) {
      corrupt(tensor_where(file.path(), tensor.name), "runs past the end",
              "at most " + std::to_string(data_bytes - offset) + " bytes",
              std::to_string(tensor.info.bytes()));
    }
    offset = checkpoint_aligned(tensor.info.end);
  }
  if (offset != data_bytes) {
    corrupt(file.path(), "wrong number of bytes in the tensors", std::to_string(data_bytes),
            std::to_string(offset));
  }
  return tensors;
}

void check_tensor(const std::string& path, int64_t data_begin, const StoredTensor& tensor,
                  SummedReader& reader) {
  const int64_t begin = data_begin + tensor.info.begin, end = data_begin + tensor.info.end;
  reader.pass(begin);  // the zeros before it
  const int64_t crc = reader.pass(end);
  if (crc == tensor.crc) return;
  corrupt(tensor_where(path, tensor.name),
          "wrong checksum of bytes " + std::to_string(begin) + " to " + std::to_string(end),
          std::to_string(tensor.crc), std::to_string(crc));
}

void check_whole(const MappedFile& file, SummedReader& reader) {
  const int64_t end_begin = file.size() - kEndBytes;
  reader.pass(end_begin);
  const uint32_t crc = reader.whole();
  CheckpointEnd end{};
  reader.read(std::as_writable_bytes(std::span(&end, 1)));
  if (std::string_view(end.magic, 8) != kCheckpointEndMagic) {
    corrupt(file.path(), "wrong magic at byte " + std::to_string(end_begin + 4),
            std::string(kCheckpointEndMagic), quoted_name({end.magic, 8}));
  }
  if (crc != end.crc) {
    corrupt(file.path(), "wrong checksum of the file", std::to_string(end.crc),
            std::to_string(crc));
  }
}

}  // namespace

Checkpoint load_checkpoint(const std::string& path) {
  Checkpoint checkpoint;
  checkpoint.file_ = MappedFile(path);
  const MappedFile& file = checkpoint.file_;
  SummedReader reader(file);
  const CheckpointFront front = read_front(file, reader);
  std::string text(front.header_bytes, '\0');
  if (const uint32_t crc = reader.read(std::as_writable_bytes(std::span<char>(text)));
      crc != front.header_crc) {
    corrupt(path + ": header", "wrong checksum", std::to_string(front.header_crc),
            std::to_string(crc));
  }
  const JsonValue header = parse_json(text, path + ": header");
  JsonFields fields(header, path + ": header");
  fields.ignore("manifest");
  if (const JsonValue* manifest = header.find("manifest")) {
    checkpoint.manifest_ = *manifest;
  } else {
    fields.fail("manifest", "missing", "a value", {});
  }
  const JsonValue* entries = fields.find("tensors");
  if (entries == nullptr || !entries->is_array()) {
    fields.fail("tensors", "wrong type", "an array", {});
  }
  fields.refuse_unknown();
  checkpoint.data_begin_ =
      checkpoint_aligned(int64_t{sizeof(CheckpointFront)} + static_cast<int64_t>(text.size()));
  const std::vector<StoredTensor> tensors =
      read_entries(entries->as_array(), file, checkpoint.data_begin_);
  for (const StoredTensor& tensor : tensors) {
    check_tensor(path, checkpoint.data_begin_, tensor, reader);
    if (!checkpoint.tensors_.emplace(tensor.name, tensor.info).second) {
      corrupt(tensor_where(path, tensor.name), "duplicate name", {}, {});
    }
  }
  check_whole(file, reader);
  return checkpoint;
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  for (const auto& [name, info] : tensors_) names.push_back(name);
  return names;
}

const TensorInfo& Checkpoint::info(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  const std::string near = nearest_name(name, names());
  throw Error({near.empty() ? "no such tensor" : "no such tensor, did you mean '" + near + "'?",
               tensor_where(path(), name),
               {},
               {}});
}

std::span<const std::byte> Checkpoint::data(std::string_view name) const {
  const TensorInfo& tensor = info(name);
  return file_.bytes().subspan(static_cast<size_t>(data_begin_ + tensor.begin),
                               static_cast<size_t>(tensor.bytes()));
}

template <class T>
void Checkpoint::read_as(std::string_view name, T* out, std::span<const int64_t> expected) const {
  const TensorInfo& tensor = info(name);
  const std::string where = tensor_where(path(), name);
  if (!std::equal(expected.begin(), expected.end(), tensor.shape.begin(), tensor.shape.end())) {
    throw Error({"wrong shape", where, shape_text(expected), shape_text(tensor.shape)});
  }
  read_elements(file_, data_begin_ + tensor.begin, tensor, out, where);
}

template void Checkpoint::read_as(std::string_view, double*, std::span<const int64_t>) const;
template void Checkpoint::read_as(std::string_view, float*, std::span<const int64_t>) const;
template void Checkpoint::read_as(std::string_view, Bf16*, std::span<const int64_t>) const;
template void Checkpoint::read_as(std::string_view, F16*, std::span<const int64_t>) const;
template void Checkpoint::read_as(std::string_view, int64_t*, std::span<const int64_t>) const;
template void Checkpoint::read_as(std::string_view, int32_t*, std::span<const int64_t>) const;

}  // namespace adder
