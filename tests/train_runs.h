// Runs of `adder train` on a tiny text: starting, killing and comparing them.
#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/checksum.h"
#include "core/error.h"
#include "formats/checkpoint.h"
#include "formats/json.h"
#include "run_adder.h"

namespace adder::tests {

/// A child process with its output in files.
class Child {
 public:
  struct Options {
    std::string out, err;              // files
    std::optional<rlim_t> file_limit;  // RLIMIT_FSIZE
    bool traced = false;               // stops at its exec for the parent's ptrace
    std::string binary = ADDER_BINARY;
  };
  Child(const std::vector<std::string>& arguments, const Options& options);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t id() const { return id_; }
  void send(int signal) const { ::kill(id_, signal); }
  /// Exit code, 128 + signal when it died of one.
  int wait();
  /// As wait(), but nothing when it still runs after `seconds`.
  std::optional<int> wait_for(double seconds);
  /// For a parent that waited by itself.
  void reaped() { id_ = -1; }

 private:
  pid_t id_ = -1;
};

class TrainRuns : public AdderTest {
 protected:
  void SetUp() override;

  /// The recipe's file; a checkpoint after every step unless told otherwise.
  std::string write_recipe(const std::string& name, int64_t steps,
                           int64_t checkpoint_every = 1) const;
  /// train --config RECIPE --out OUT and what follows.
  std::vector<std::string> train(const std::string& recipe, const std::string& out,
                                 const std::vector<std::string>& more = {}) const;
  RunResult run_train(const std::string& recipe, const std::string& out,
                      const std::vector<std::string>& more = {}) const {
    return run(train(recipe, out, more));
  }
  Child::Options child_options() const {
    Child::Options options;
    options.out = path("stdout.txt");
    options.err = path("stderr.txt");
    return options;
  }

  std::string checkpoints(const std::string& out) const { return path(out) + "/checkpoints"; }
  /// Name -> CRC32C of what a finished run leaves: every tensor of its last checkpoint, the model's
  /// file, and the metrics without their times.
  std::map<std::string, uint32_t> fingerprint(const std::string& out) const;
  /// The metrics must be steps 1, 2, ... in order, each once.
  void expect_whole_metrics(const std::string& out, int64_t steps) const;
  /// Whether a save was cut short: its temporary is still there.
  bool has_temporary(const std::string& out) const;
};

inline uint32_t crc_of(const std::string& bytes) {
  return crc32c(std::as_bytes(std::span(bytes.data(), bytes.size())));
}

}  // namespace adder::tests
