// Replaces a file so that a reader, a crash or a power loss sees the old content or the new one,
// never a mixture: temporary file in the same directory, fsync, rename, fsync of the directory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace adder {

/// Every call throws Error naming the path and the system's reason; after any failure the target is
/// untouched and commit() refuses. A failed fsync is final: the kernel may have dropped the pages,
/// so it is never retried (reliability.md B3). Not thread-safe.
class AtomicFile {
 public:
  /// Creates the temporary `.NAME.PID.N.tmp` beside `path`, with the mode of an existing target (a
  /// symbolic link is followed), else 0666 less the umask.
  explicit AtomicFile(const std::string& path);
  /// Removes the temporary unless it was committed.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  /// Overwrites bytes written before, e.g. a header whose counts are known at the end.
  void write_at(int64_t offset, std::span<const std::byte> bytes);
  int64_t written() const { return written_; }

  /// Flushes the temporary to the device. commit() does it unless done.
  void sync();
  /// sync, close, rename to the target, fsync of the directory. When only the last step fails the
  /// new content is in place but may not survive a power loss: that is an Error too.
  void commit();

  const std::string& path() const { return path_; }
  /// For verifying by re-reading between sync() and commit().
  const std::string& temporary_path() const { return temporary_; }

 private:
  [[noreturn]] void fail(const char* what, int error_number);
  void write_fully(std::span<const std::byte> bytes, int64_t offset);

  enum class Stage : uint8_t { writing, synced, failed, committed };
  std::string path_;
  std::string target_;     // path_ with a symbolic link followed
  std::string directory_;  // of target_
  std::string temporary_;
  int descriptor_ = -1;
  int64_t written_ = 0;
  Stage stage_ = Stage::writing;
};

/// Writes a whole file through AtomicFile.
void write_file_atomically(const std::string& path, std::span<const std::byte> bytes);
void write_file_atomically(const std::string& path, std::string_view text);

/// Removes the temporaries that killed processes left in `directory`, told from live ones by their
/// lock. Returns how many.
int64_t remove_stale_temporaries(const std::string& directory);

}  // namespace adder
