#include "train/append_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/error.h"
#include "core/mapped_file.h"

namespace adder {

AppendLog::AppendLog(const std::string& path, int64_t keep_bytes) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail("cannot open");
  struct stat status{};
  if (::fstat(descriptor_, &status) != 0) fail("cannot stat");
  bytes_ = std::min<int64_t>(status.st_size, keep_bytes);
  if (::ftruncate(descriptor_, bytes_) != 0) fail("cannot truncate");
}

AppendLog::~AppendLog() { close(); }

AppendLog::AppendLog(AppendLog&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      bytes_(std::exchange(other.bytes_, 0)) {}

AppendLog& AppendLog::operator=(AppendLog&& other) noexcept {
  if (this != &other) {
    close();
    path_ = std::move(other.path_);
    descriptor_ = std::exchange(other.descriptor_, -1);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

void AppendLog::append(std::string_view data) {
  while (!data.empty()) {
    const ssize_t written = ::pwrite(descriptor_, data.data(), data.size(), bytes_);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("cannot write");
    bytes_ += written;
    data.remove_prefix(static_cast<size_t>(written));
  }
}

void AppendLog::sync() const {
  if (descriptor_ >= 0 && ::fsync(descriptor_) != 0) fail("cannot flush");
}

void AppendLog::fail(const char* what) const {
  const int error_number = errno;
  throw Error({what, path_, "", system_reason(error_number)});
}

void AppendLog::close() noexcept {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

}  // namespace adder
