#include <fcntl.h>
#include <unistd.h>

#include <cstring>

#include "core/atomic_file.h"
#include "core/checksum.h"
#include "core/error.h"
#include "formats/checkpoint.h"
#include "formats/checkpoint_layout.h"

namespace adder {
namespace {

std::span<const std::byte> text_bytes(std::string_view text) {
  return std::as_bytes(std::span<const char>(text));
}

JsonValue::Object tensor_entry(const TensorSource& tensor, int64_t offset, uint32_t crc) {
  JsonValue shape = JsonValue::array();
  for (const int64_t size : tensor.shape) shape.push(size);
  JsonValue::Object entry;
  entry.push_back({"name", tensor.name});
  entry.push_back({"dtype", stored_dtype_name(tensor.dtype)});
  entry.push_back({"shape", std::move(shape)});
  entry.push_back({"offset", offset});
  entry.push_back({"bytes", static_cast<int64_t>(tensor.bytes.size())});
  entry.push_back({"crc32c", int64_t{crc}});
  return entry;
}

// The header stands before the tensors and its length depends on the digits of their checksums, so
// these are computed before anything is written; no byte of a tensor is summed a second time.
std::string header_text(const JsonValue& manifest, std::span<const TensorSource> tensors,
                        std::span<const uint32_t> sums) {
  JsonValue::Array entries;
  int64_t offset = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    entries.push_back(tensor_entry(tensors[i], offset, sums[i]));
    offset = checkpoint_aligned(offset + static_cast<int64_t>(tensors[i].bytes.size()));
  }
  JsonValue::Object header;
  header.push_back({"manifest", manifest});
  header.push_back({"tensors", std::move(entries)});
  return write_json(std::move(header), {0, JsonNonFinite::tagged});
}

/// Keeps the checksum of the whole file while its parts are written.
class SummedFile {
 public:
  explicit SummedFile(AtomicFile& file) : file_(file) {}
  void write(std::span<const std::byte> bytes) { write(bytes, crc32c(bytes)); }
  /// The same for bytes whose checksum is known.
  void write(std::span<const std::byte> bytes, uint32_t crc) {
    sum_ = crc32c_joined(sum_, crc, static_cast<int64_t>(bytes.size()));
    file_.write(bytes);
  }
  /// Zeros to the next place where a tensor may begin.
  void pad() {
    const std::byte zeros[64] = {};
    const int64_t written = file_.written();
    write(std::span(zeros).first(static_cast<size_t>(checkpoint_aligned(written) - written)));
  }
  void end() {
    CheckpointEnd end{};
    end.crc = sum_;
    std::memcpy(end.magic, kCheckpointEndMagic.data(), sizeof end.magic);
    file_.write(std::as_bytes(std::span(&end, 1)));
  }

 private:
  AtomicFile& file_;
  uint32_t sum_ = 0;
};

void write_parts(SummedFile& file, const std::string& header, std::span<const TensorSource> tensors,
                 std::span<const uint32_t> sums) {
  int64_t end =
      checkpoint_aligned(int64_t{sizeof(CheckpointFront)} + static_cast<int64_t>(header.size()));
  for (const TensorSource& tensor : tensors) {
    end = checkpoint_aligned(end + static_cast<int64_t>(tensor.bytes.size()));
  }
  CheckpointFront front{};
  std::memcpy(front.magic, kCheckpointMagic.data(), sizeof front.magic);
  front.version = kCheckpointVersion;
  front.header_crc = crc32c(text_bytes(header));
  front.header_bytes = header.size();
  front.file_bytes = static_cast<uint64_t>(end + int64_t{sizeof(CheckpointEnd)});
  file.write(std::as_bytes(std::span(&front, 1)));
  file.write(text_bytes(header), front.header_crc);
  file.pad();
  for (size_t i = 0; i < tensors.size(); ++i) {
    file.write(tensors[i].bytes, sums[i]);
    file.pad();
  }
  file.end();
}

void check_sources(std::span<const TensorSource> tensors, const std::string& path) {
  for (const TensorSource& tensor : tensors) {
    int64_t bytes = 0;
    if (!tensor_bytes(tensor.shape, tensor.dtype, &bytes) ||
        bytes != static_cast<int64_t>(tensor.bytes.size())) {
      throw Error({"shape and bytes disagree", tensor_where(path, tensor.name),
                   shape_text(tensor.shape) + " of " + std::string(stored_dtype_name(tensor.dtype)),
                   std::to_string(tensor.bytes.size()) + " bytes"});
    }
  }
}

/// Asks the system to forget its copy of a flushed file, so that reading it goes to the device.
void drop_cached_pages(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return;  // reading it will say why
  ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
  ::close(descriptor);
}

}  // namespace

void save_checkpoint(const std::string& path, const JsonValue& manifest,
                     std::span<const TensorSource> tensors) {
  check_sources(tensors, path);
  std::vector<uint32_t> sums;
  for (const TensorSource& tensor : tensors) sums.push_back(crc32c(tensor.bytes));
  const std::string header = header_text(manifest, tensors, sums);
  AtomicFile file(path);
  SummedFile summed(file);
  write_parts(summed, header, tensors, sums);
  file.sync();
  drop_cached_pages(file.temporary_path());
  try {
    load_checkpoint(file.temporary_path());
  } catch (const Error& error) {
    throw Error({"the checkpoint does not verify when read back: " + std::string(error.what()),
                 path,
                 {},
                 {}});
  }
  file.commit();
}

}  // namespace adder
