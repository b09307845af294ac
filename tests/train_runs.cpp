#include "train_runs.h"

#include <sys/ptrace.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace adder::tests {
namespace {

constexpr int kExecFailed = 126;

int code_of(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

// Words from a small vocabulary in an order that a generator fixes.
std::string tiny_text() {
  const char* words[] = {"adder", "scan",    "state", "the", "a",
                         "of",    "carries", "chain", "and", "\n"};
  std::string text;
  uint32_t state = 12345;
  while (text.size() < 6000) {
    state = state * 1664525u + 1013904223u;
    text += std::string(words[(state >> 16) % 10]) + " ";
  }
  return text;
}

}  // namespace

Child::Child(const std::vector<std::string>& arguments, const Options& options) {
  std::vector<char*> words = {const_cast<char*>(options.binary.c_str())};
  for (const std::string& argument : arguments)
    words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  id_ = ::fork();
  if (id_ != 0) return;
  const int out = ::open(options.out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
  const int err = ::open(options.err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(err, STDERR_FILENO);
  if (options.file_limit) {
    const rlimit limit{*options.file_limit, *options.file_limit};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  if (options.traced && ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(kExecFailed);
  ::execv(options.binary.c_str(), words.data());
  ::_exit(kExecFailed);
}

Child::~Child() {
  if (id_ <= 0) return;
  ::kill(id_, SIGKILL);
  ::waitpid(id_, nullptr, 0);
}

int Child::wait() {
  int status = 0;
  ::waitpid(id_, &status, 0);
  id_ = -1;
  return code_of(status);
}

std::optional<int> Child::wait_for(double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (true) {
    int status = 0;
    if (::waitpid(id_, &status, WNOHANG) == id_) {
      id_ = -1;
      return code_of(status);
    }
    if (std::chrono::steady_clock::now() >= end) return std::nullopt;
    std::this_thread::sleep_for(std::chrono::microseconds(500));
  }
}

void TrainRuns::SetUp() {
  AdderTest::SetUp();
  write_file(path("text.txt"), tiny_text());
}

std::string TrainRuns::write_recipe(const std::string& name, int64_t steps,
                                    int64_t checkpoint_every) const {
  write_file(path(name), fmt::format(R"([model]
d_model = 32
n_layer = 2
d_state = 4
[train]
steps = {}
batch = 2
len = 32
lr = 1e-2
warmup = 4
threads = 1
[data]
path = "{}"
[log]
eval_every = 10
eval_tokens = 64
checkpoint_every = {}
checkpoint_seconds = 0
sample_tokens = 4
final_sample_tokens = 4
plot = false
)",
                                     steps, path("text.txt"), checkpoint_every));
  return path(name);
}

std::vector<std::string> TrainRuns::train(const std::string& recipe, const std::string& out,
                                          const std::vector<std::string>& more) const {
  std::vector<std::string> arguments = {"train", "--config", recipe, "--out", path(out)};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

std::map<std::string, uint32_t> TrainRuns::fingerprint(const std::string& out) const {
  std::map<std::string, uint32_t> sums;
  const auto newest = open_newest_valid(checkpoints(out));
  if (!newest) return sums;
  for (const std::string& name : newest->names()) sums[name] = crc32c(newest->data(name));
  sums["model"] = crc_of(read_file(path(out) + "/model/model.safetensors"));
  sums["samples"] = crc_of(read_file(path(out) + "/sample.txt"));
  std::istringstream lines(read_file(path(out) + "/metrics.jsonl"));
  std::string text;
  for (std::string line; std::getline(lines, line);) {
    const JsonValue json = parse_json(line, "metrics.jsonl");
    for (const char* key : {"step", "tokens", "train_loss", "val_loss", "lr", "grad_norm"}) {
      text += write_json(*json.find(key), {.indent = 0}) + " ";
    }
  }
  sums["metrics"] = crc_of(text);
  return sums;
}

void TrainRuns::expect_whole_metrics(const std::string& out, int64_t steps) const {
  std::istringstream lines(read_file(path(out) + "/metrics.jsonl"));
  int64_t expected = 1;
  for (std::string line; std::getline(lines, line); ++expected) {
    EXPECT_EQ(parse_json(line, "metrics.jsonl").find("step")->as_int(), expected);
  }
  EXPECT_EQ(expected, steps + 1);
}

bool TrainRuns::has_temporary(const std::string& out) const {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(checkpoints(out), error)) {
    if (entry.path().extension() == ".tmp") return true;
  }
  return false;
}

}  // namespace adder::tests
