// A file opened for reading: mapped for views without a copy, and read by pread where bytes are
// copied out. A mapping whose file shrinks raises SIGBUS when a lost page is touched; a pread gives
// an Error instead (reliability.md A7). So all code that copies calls read(), and bytes() is for
// callers that own the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace adder {

/// Read-only. Regular files only: directories, devices and pipes are refused. Errors name the path
/// and the system's reason. Movable; const members may be used from several threads.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const std::string& path() const { return path_; }
  /// Bytes in the file when it was opened.
  int64_t size() const { return size_; }
  /// The mapping; empty for an empty file.
  std::span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(data_), static_cast<size_t>(size_)};
  }
  /// Copies out.size() bytes from `offset`. Throws Error when the range lies outside the file, also
  /// when the file shrank since it was opened.
  void read(int64_t offset, std::span<std::byte> out) const;

 private:
  void close() noexcept;

  std::string path_;
  void* data_ = nullptr;
  int64_t size_ = 0;
  int descriptor_ = -1;
};

/// The whole of a small file as text, e.g. a JSON file; refuses more than `limit` bytes.
std::string read_text_file(const std::string& path, int64_t limit = int64_t{1} << 30);

/// errno as text, e.g. "No space left on device".
std::string system_reason(int error_number);

}  // namespace adder
