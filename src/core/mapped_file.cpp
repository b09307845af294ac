#include "core/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "core/error.h"

namespace adder {
namespace {

[[noreturn]] void fail(const std::string& path, const std::string& what, int error_number) {
  throw Error({what + ": " + system_reason(error_number), path, {}, {}});
}

int open_for_reading(const std::string& path) {
  for (;;) {
    // Not blocking, so that a pipe without a writer is refused instead of waited for.
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor >= 0) return descriptor;
    if (errno != EINTR) fail(path, "cannot open", errno);
  }
}

std::string_view kind_of_file(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

}  // namespace

std::string system_reason(int error_number) {
  return std::generic_category().message(error_number);
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  descriptor_ = open_for_reading(path);
  struct stat status{};
  if (::fstat(descriptor_, &status) != 0) {
    const int reason = errno;
    close();
    fail(path, "cannot read its size", reason);
  }
  if (!S_ISREG(status.st_mode)) {
    close();
    throw Error({"cannot read", path, "a regular file", std::string(kind_of_file(status.st_mode))});
  }
  size_ = status.st_size;
  if (size_ == 0) return;
  void* mapping =
      ::mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_PRIVATE, descriptor_, 0);
  if (mapping == MAP_FAILED) {
    const int reason = errno;
    close();
    fail(path, "cannot map " + std::to_string(status.st_size) + " bytes", reason);
  }
  data_ = mapping;
}

MappedFile::~MappedFile() { close(); }

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    close();
    path_ = std::move(other.path_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    descriptor_ = std::exchange(other.descriptor_, -1);
  }
  return *this;
}

void MappedFile::close() noexcept {
  if (data_ != nullptr) ::munmap(data_, static_cast<size_t>(size_));
  if (descriptor_ >= 0) ::close(descriptor_);
  data_ = nullptr;
  size_ = 0;
  descriptor_ = -1;
}

void MappedFile::read(int64_t offset, std::span<std::byte> out) const {
  const int64_t want = static_cast<int64_t>(out.size());
  if (offset < 0 || offset > size_ || want > size_ - offset) {
    throw Error({"read outside the file", path_, "at most " + std::to_string(size_) + " bytes",
                 std::to_string(want) + " bytes at offset " + std::to_string(offset)});
  }
  size_t done = 0;
  while (done < out.size()) {
    const int64_t at = offset + static_cast<int64_t>(done);
    const ssize_t count = ::pread(descriptor_, out.data() + done, out.size() - done, at);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(path_, "cannot read at offset " + std::to_string(at), errno);
    if (count == 0) {
      throw Error({"the file shrank while it was open", path_, std::to_string(size_) + " bytes",
                   std::to_string(at) + " bytes"});
    }
    done += static_cast<size_t>(count);
  }
}

std::string read_text_file(const std::string& path, int64_t limit) {
  const MappedFile file(path);
  if (file.size() > limit) {
    throw Error({"the file is too large", path, "at most " + std::to_string(limit) + " bytes",
                 std::to_string(file.size())});
  }
  std::string text(static_cast<size_t>(file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span<char>(text)));
  return text;
}

}  // namespace adder
