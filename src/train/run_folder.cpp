#include "train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "core/error.h"
#include "core/mapped_file.h"
#include "formats/checkpoint.h"

namespace adder {

void make_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) throw Error({"cannot make the folder", path, "", error.message()});
}

std::string checkpoint_folder(const std::string& out) { return out + "/checkpoints"; }

RunLock::RunLock(const std::string& out) {
  make_folder(out);
  const std::string path = out + "/.lock";
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw Error({"cannot open", path, "", system_reason(errno)});
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    ::close(descriptor_);
    throw Error({"another run is training into this folder", out, "", ""});
  }
}

RunLock::~RunLock() { ::close(descriptor_); }

void refuse_existing_run(const std::string& out) {
  if (find_checkpoints(checkpoint_folder(out)).empty()) return;
  throw Error(
      {"this folder holds a run already; --resume goes on with it, another --out starts anew", out,
       "", ""});
}

}  // namespace adder
