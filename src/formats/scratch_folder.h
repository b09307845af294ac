// A folder of its own for each test of the file rooms, and the words to fill it. Tests only.
#pragma once

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "core/error.h"

namespace adder {

/// Created under the system's temporary folder, removed with all that is in it.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "adder_test_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw Error("cannot create a scratch folder");
    path_ = name;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string at(const std::string& name) const { return path_ + "/" + name; }
  /// Writes a file and returns its path.
  std::string put(const std::string& name, std::string_view bytes) const {
    std::ofstream(at(name), std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return at(name);
  }
  std::string get(const std::string& name) const {
    std::ifstream file(at(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  int64_t files() const {
    return std::distance(std::filesystem::directory_iterator(path_),
                         std::filesystem::directory_iterator());
  }

 private:
  std::string path_;
};

/// A file without a disk, for loops over thousands of contents: rewriting a file in place makes
/// ext4 flush it each time.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(::memfd_create("adder_test", MFD_CLOEXEC)) {
    if (descriptor_ < 0) throw Error("cannot create a file in memory");
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  /// Replaces the content and returns the path.
  std::string put(std::string_view bytes) const {
    const bool cut = ::ftruncate(descriptor_, 0) == 0;
    const auto written = ::pwrite(descriptor_, bytes.data(), bytes.size(), 0);
    if (!cut || written != static_cast<ssize_t>(bytes.size())) throw Error("cannot fill it");
    return "/proc/self/fd/" + std::to_string(descriptor_);
  }

 private:
  int descriptor_;
};

/// The message of the Error that `call` throws; empty when it throws none. Other exceptions pass
/// through: they are no answer to bad input.
template <class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace adder
