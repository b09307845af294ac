// A file that a run appends to and that a resumed run continues exactly where its checkpoint stood.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace adder {

/// Each append is one write(2), so a killed process leaves whole appends. Errors name the path and
/// the system's reason. Not thread-safe but for sync(), which may run on another thread while this
/// one appends: it touches nothing that append() changes, and flushes at least what was appended
/// before it began.
class AppendLog {
 public:
  AppendLog() = default;
  /// Creates `path` or cuts it to `keep_bytes`. A file shorter than that keeps what it has.
  AppendLog(const std::string& path, int64_t keep_bytes);
  ~AppendLog();
  AppendLog(AppendLog&& other) noexcept;
  AppendLog& operator=(AppendLog&& other) noexcept;

  bool open() const { return descriptor_ >= 0; }
  const std::string& path() const { return path_; }
  int64_t bytes() const { return bytes_; }
  void append(std::string_view data);
  /// Flushes to the device. A flush that fails is final: the system may have dropped the bytes, and
  /// would call the next one a success.
  void sync() const;

 private:
  [[noreturn]] void fail(const char* what) const;
  void close() noexcept;

  std::string path_;
  int descriptor_ = -1;
  int64_t bytes_ = 0;
};

}  // namespace adder
