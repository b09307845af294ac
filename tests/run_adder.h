// Runs the binary `adder` as a user would, in a directory of its own.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace adder::tests {

struct RunResult {
  int code = -1;  // exit code; 128 + signal if it was killed
  std::string out;
  std::string err;
};

inline std::string golden_path(const std::string& name) {
  return std::string(ADDER_SOURCE_DIR) + "/tests/golden/" + name;
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline void write_file(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string shell_quoted(const std::string& word) {
  std::string inner;
  for (const char c : word) inner.append(c == '\'' ? "'\\''" : std::string(1, c));
  return fmt::format("'{}'", inner);
}

/// A fresh directory for each test, removed at its end.
class AdderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string name =
        fmt::format("adder-{}-{}-{}", getpid(), info->test_suite_name(), info->name());
    for (char& c : name) c = c == '/' ? '-' : c;
    directory_ = std::filesystem::temp_directory_path() / name;
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string path(const std::string& name) const { return (directory_ / name).string(); }

  /// `redirect` replaces where standard output goes, e.g. "| head -1" or ">&-".
  RunResult run(const std::vector<std::string>& arguments, const std::string& redirect = "") const {
    return run_binary(ADDER_BINARY, arguments, "", redirect);
  }
  /// `environment`: assignments before the command, or "".
  RunResult run_binary(const std::string& binary, const std::vector<std::string>& arguments,
                       const std::string& environment, const std::string& redirect = "") const {
    const std::string out = path("stdout.txt");
    const std::string err = path("stderr.txt");
    std::string command = environment + " " + shell_quoted(binary);
    for (const std::string& argument : arguments) {
      command += fmt::format(" {}", shell_quoted(argument));
    }
    const std::string to = redirect.empty() ? fmt::format(">{}", shell_quoted(out)) : redirect;
    command += fmt::format(" 2>{} </dev/null {}; exit ${{PIPESTATUS[0]}}", shell_quoted(err), to);
    const std::string shell = fmt::format("bash -c {}", shell_quoted(command));
    const int status = std::system(shell.c_str());
    RunResult result;
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    result.out = read_file(out);
    result.err = read_file(err);
    return result;
  }

  std::filesystem::path directory_;
};

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace adder::tests
