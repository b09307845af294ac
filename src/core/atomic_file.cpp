#include "core/atomic_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <utility>

#include "core/error.h"
#include "core/mapped_file.h"

namespace adder {
namespace {

/// The end of a symbolic link, so that replacing the file leaves the link in place.
std::string follow_link(const std::string& path) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0 || !S_ISLNK(status.st_mode)) return path;
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), std::free);
  if (!real)
    throw Error({"cannot follow the symbolic link: " + system_reason(errno), path, {}, {}});
  return real.get();
}

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string temporary_name(const std::string& directory, const std::string& target) {
  static std::atomic<uint64_t> count{0};
  const std::string name = target.substr(target.rfind('/') + 1);  // npos + 1 == 0
  return directory + "/." + name + "." + std::to_string(::getpid()) + "." +
         std::to_string(count.fetch_add(1)) + ".tmp";
}

bool is_temporary_name(std::string_view name) {
  return name.size() > 5 && name.front() == '.' && name.ends_with(".tmp");
}

/// Creates and locks `path`. The lock tells a live temporary from one that a killed process left:
/// process ids come back after a restart, locks do not. Returns -1 with errno set.
int create_locked(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0) return -1;
  // File systems without locks (ENOLCK, ENOSYS, EOPNOTSUPP) only lose the tidying up.
  const bool taken = ::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  struct stat status{};
  const bool removed = ::fstat(descriptor, &status) == 0 && status.st_nlink == 0;
  if (!taken && !removed) return descriptor;
  ::close(descriptor);  // somebody tidied up between open and flock
  errno = EEXIST;
  return -1;
}

bool is_unlocked(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (descriptor < 0) return false;
  const bool unlocked = ::flock(descriptor, LOCK_EX | LOCK_NB) == 0;
  ::close(descriptor);
  return unlocked;
}

/// Returns zero or errno. Only an interrupted open is repeated, no other failure.
int sync_directory(const std::string& directory) {
  int descriptor = -1;
  do {
    descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  } while (descriptor < 0 && errno == EINTR);
  if (descriptor < 0) return errno;
  const int reason = ::fsync(descriptor) == 0 ? 0 : errno;
  ::close(descriptor);
  return reason == EINVAL ? 0 : reason;  // a file system whose directories need no fsync
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path) : path_(path), target_(follow_link(path)) {
  directory_ = directory_of(target_);
  struct stat status{};
  const bool exists = ::stat(target_.c_str(), &status) == 0;
  if (exists && !S_ISREG(status.st_mode)) {
    throw Error({"cannot replace", path_, "a regular file", "a directory or a device"});
  }
  do {
    temporary_ = temporary_name(directory_, target_);
    descriptor_ = create_locked(temporary_);
  } while (descriptor_ < 0 && (errno == EINTR || errno == EEXIST));
  if (descriptor_ < 0) {
    const std::string reason = system_reason(errno);
    throw Error({"cannot create a file in '" + directory_ + "': " + reason, path_, {}, {}});
  }
  if (exists && ::fchmod(descriptor_, status.st_mode & 07777) != 0) {
    const int reason = errno;
    ::close(descriptor_);
    ::unlink(temporary_.c_str());
    throw Error({"cannot keep the mode of the file: " + system_reason(reason), path_, {}, {}});
  }
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (stage_ != Stage::committed) ::unlink(temporary_.c_str());
}

void AtomicFile::fail(const char* what, int error_number) {
  stage_ = Stage::failed;
  throw Error({std::string(what) + ": " + system_reason(error_number), path_, {}, {}});
}

void AtomicFile::write_fully(std::span<const std::byte> bytes, int64_t offset) {
  ADDER_CHECK(stage_ == Stage::writing);
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(descriptor_, bytes.data(), bytes.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("cannot write", errno);
    // POSIX allows a write that makes no progress and reports no error. A full device says so on
    // the retry, but a device that never does would hang us.
    if (count == 0) fail("cannot write", ENOSPC);
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset += count;
  }
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write_fully(bytes, written_);
  written_ += static_cast<int64_t>(bytes.size());
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span<const char>(text))); }

void AtomicFile::write_at(int64_t offset, std::span<const std::byte> bytes) {
  ADDER_CHECK(offset >= 0 && offset + static_cast<int64_t>(bytes.size()) <= written_);
  write_fully(bytes, offset);
}

void AtomicFile::sync() {
  ADDER_CHECK(stage_ == Stage::writing);
  if (::fsync(descriptor_) != 0) fail("cannot flush to the device", errno);
  stage_ = Stage::synced;
}

void AtomicFile::commit() {
  if (stage_ == Stage::writing) sync();
  ADDER_CHECK(stage_ == Stage::synced);
  const int closed = ::close(std::exchange(descriptor_, -1));
  // After fsync nothing can be lost by an interrupted close, and Linux has freed the descriptor.
  if (closed != 0 && errno != EINTR) fail("cannot close", errno);
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail("cannot rename into place", errno);
  stage_ = Stage::committed;
  if (const int reason = sync_directory(directory_); reason != 0) {
    throw Error(
        {"written, but cannot flush its directory: " + system_reason(reason), path_, {}, {}});
  }
}

void write_file_atomically(const std::string& path, std::span<const std::byte> bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

void write_file_atomically(const std::string& path, std::string_view text) {
  write_file_atomically(path, std::as_bytes(std::span<const char>(text)));
}

int64_t remove_stale_temporaries(const std::string& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(::opendir(directory.c_str()), ::closedir);
  if (!listing) return 0;
  int64_t removed = 0;
  while (const dirent* entry = ::readdir(listing.get())) {
    if (!is_temporary_name(entry->d_name)) continue;
    const std::string path = directory + "/" + entry->d_name;
    if (is_unlocked(path) && ::unlink(path.c_str()) == 0) ++removed;
  }
  return removed;
}

}  // namespace adder
