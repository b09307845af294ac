// The folder of a run: making it, and keeping two runs from sharing it.
#pragma once

#include <string>

namespace adder {

/// Creates the folder and those above it; Error naming it and the system's reason.
void make_folder(const std::string& path);

/// OUT/checkpoints.
std::string checkpoint_folder(const std::string& out);

/// Held while a run writes into OUT (which is made). Throws Error when another process holds it; a
/// killed process holds nothing.
class RunLock {
 public:
  explicit RunLock(const std::string& out);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int descriptor_ = -1;
};

/// Throws Error when OUT holds checkpoints: a new run must not bury an old one.
void refuse_existing_run(const std::string& out);

}  // namespace adder
