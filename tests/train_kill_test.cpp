// kill -9 at random times and at every kind of system call of a save: each run resumes from a valid
// checkpoint and ends with the bits of a run that nobody disturbed (reliability.md B1, B4).
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>

#include <chrono>
#include <random>
#include <set>

#include "train_runs.h"

namespace adder::tests {
namespace {

constexpr int64_t kSteps = 40;
constexpr int kTimedKills = 5;
constexpr int kCallKills = 5;

struct Tally {
  int kills = 0;
  int inside_save = 0;
  int finished = 0;
};

class TrainKill : public TrainRuns {
 protected:
  void SetUp() override {
    TrainRuns::SetUp();
    seed_ = std::random_device()();
    random_.seed(seed_);
    RecordProperty("seed", std::to_string(seed_));
    recipe_ = write_recipe("recipe.toml", kSteps);
    const auto start = std::chrono::steady_clock::now();
    const RunResult result = run_train(recipe_, "whole");
    ASSERT_EQ(result.code, 0) << result.err;
    whole_seconds_ =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    expected_ = fingerprint("whole");
    ASSERT_GT(expected_.size(), 10u);
  }

  // After a kill: something that verifies is there once the first save was through.
  void expect_recoverable(const std::string& out, bool had_checkpoint) {
    const auto newest = open_newest_valid(checkpoints(out));
    EXPECT_TRUE(newest.has_value() || !had_checkpoint)
        << "every checkpoint is lost, seed " << seed_;
  }

  void expect_same_end(const std::string& out) {
    EXPECT_EQ(fingerprint(out), expected_) << "seed " << seed_;
    expect_whole_metrics(out, kSteps);
  }

  void report(const char* name, const Tally& tally) {
    RecordProperty("kills", tally.kills);
    RecordProperty("inside_save", tally.inside_save);
    fmt::print("{}: {} kills, {} inside a save, {} runs finished, seed {}\n", name, tally.kills,
               tally.inside_save, tally.finished, seed_);
  }

  uint32_t seed_ = 0;
  std::mt19937 random_;
  std::string recipe_;
  double whole_seconds_ = 0;
  std::map<std::string, uint32_t> expected_;
};

TEST_F(TrainKill, AtRandomTimes) {
  Tally tally;
  for (int attempt = 0; tally.kills < kTimedKills; ++attempt) {
    ASSERT_LT(attempt, 20 * kTimedKills);
    const std::string out = fmt::format("killed{}", tally.finished);
    const bool had_checkpoint = !find_checkpoints(checkpoints(out)).empty();
    Child child(train(recipe_, out, {"--resume", "--threads", attempt % 2 == 0 ? "1" : "2"}),
                child_options());
    std::uniform_real_distribution<double> delay(0.1 * whole_seconds_, 0.7 * whole_seconds_);
    if (const auto code = child.wait_for(delay(random_))) {
      ASSERT_EQ(*code, 0) << read_file(path("stderr.txt"));
      expect_same_end(out);
      ++tally.finished;
      continue;
    }
    child.send(SIGKILL);
    EXPECT_EQ(child.wait(), 128 + SIGKILL);
    ++tally.kills;
    tally.inside_save += has_temporary(out);
    expect_recoverable(out, had_checkpoint);
  }
  const std::string out = fmt::format("killed{}", tally.finished);
  const RunResult result = run_train(recipe_, out, {"--resume"});
  ASSERT_EQ(result.code, 0) << result.err;
  expect_same_end(out);
  report("at random times", tally);
}

#if defined(__x86_64__)
// The calls that make a file durable, and those that write it.
bool is_save_call(unsigned long long number) {
  return number == SYS_pwrite64 || number == SYS_fsync || number == SYS_rename ||
         number == SYS_write || number == SYS_unlink;
}

// Reaps the threads of a traced child, then the child.
void reap(Child& child) {
  int status = 0;
  while (::waitpid(-1, &status, __WALL) != child.id() || WIFSTOPPED(status)) {
  }
  child.reaped();
}

// Lets the child run to the `count`-th stop of its threads at such a call (before or after it), and
// kills it. Nothing if tracing is not allowed, false if it ended before.
std::optional<bool> kill_at_call(Child& child, int64_t count) {
  int status = 0;
  const pid_t id = child.id();
  if (::waitpid(id, &status, 0) != id || !WIFSTOPPED(status)) {
    child.reaped();
    return std::nullopt;
  }
  // Checkpoints are written by a thread of their own.
  ::ptrace(PTRACE_SETOPTIONS, id, nullptr,
           PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE);
  ::ptrace(PTRACE_SYSCALL, id, nullptr, 0);
  std::set<pid_t> seen = {id};
  while (true) {
    const pid_t thread = ::waitpid(-1, &status, __WALL);
    if (!WIFSTOPPED(status)) {
      if (thread != id) continue;
      child.reaped();
      return false;
    }
    const int stop = WSTOPSIG(status);
    const bool at_call = stop == (SIGTRAP | 0x80);
    const bool begins = seen.insert(thread).second;  // a new thread is stopped once
    const int signal = at_call || begins || stop == SIGTRAP ? 0 : stop;
    if (at_call) {
      user_regs_struct registers{};
      ::ptrace(PTRACE_GETREGS, thread, nullptr, &registers);
      if (is_save_call(registers.orig_rax) && --count == 0) break;
    }
    ::ptrace(PTRACE_SYSCALL, thread, nullptr, signal);
  }
  child.send(SIGKILL);
  reap(child);
  return true;
}

TEST_F(TrainKill, AtTheCallsOfASave) {
  Tally tally;
  int64_t longest = 1500;  // stops of a session; cut down when a session ends before
  for (int attempt = 0; tally.kills < kCallKills; ++attempt) {
    ASSERT_LT(attempt, 20 * kCallKills);
    const std::string out = fmt::format("killed{}", tally.finished);
    const bool had_checkpoint = !find_checkpoints(checkpoints(out)).empty();
    Child::Options options = child_options();
    options.traced = true;
    Child child(train(recipe_, out, {"--resume"}), options);
    std::uniform_int_distribution<int64_t> which(1, longest);
    const int64_t count = which(random_);
    const std::optional<bool> killed = kill_at_call(child, count);
    if (!killed) GTEST_SKIP() << "ptrace is not allowed here";
    if (!*killed) {
      longest = std::max<int64_t>(count, 20);
      expect_same_end(out);
      ++tally.finished;
      continue;
    }
    ++tally.kills;
    tally.inside_save += has_temporary(out);
    expect_recoverable(out, had_checkpoint);
  }
  const std::string out = fmt::format("killed{}", tally.finished);
  const RunResult result = run_train(recipe_, out, {"--resume"});
  ASSERT_EQ(result.code, 0) << result.err;
  expect_same_end(out);
  report("at the calls of a save", tally);
  EXPECT_GE(tally.inside_save * 10, tally.kills * 4) << "too few kills fell inside a save";
}
#endif

// The comparison can go red: another seed, one step less and one flipped bit all show.
TEST_F(TrainKill, TheComparisonSeesDifferences) {
  ASSERT_EQ(run_train(recipe_, "other", {"--set", "train.seed=2"}).code, 0);
  EXPECT_NE(fingerprint("other"), expected_);
  ASSERT_EQ(run_train(recipe_, "shorter", {"--set", "train.steps=39"}).code, 0);
  EXPECT_NE(fingerprint("shorter"), expected_);
  ASSERT_EQ(run_train(recipe_, "again", {"--threads", "1"}).code, 0);
  EXPECT_EQ(fingerprint("again"), expected_);
  const std::string file = path("again") + "/model/model.safetensors";
  std::string bytes = read_file(file);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_file(file, bytes);
  EXPECT_NE(fingerprint("again"), expected_);
}

}  // namespace
}  // namespace adder::tests
