#include "train/checkpoint_writer.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <numeric>

#include "core/atomic_file.h"
#include "core/rng.h"
#include "formats/scratch_folder.h"
#include "train/append_log.h"

// Calls of the system go through here (-Wl,--wrap): a closed gate holds the first write of a
// checkpoint until it is opened; flushes are counted, and one can fail or lose a bit.
namespace {

class Gate {
 public:
  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    reached_ = false;
  }
  void open() {
    const std::lock_guard lock(mutex_);
    closed_ = false;
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex_);
    reached_ = true;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !closed_; });
  }
  void wait_until_reached() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return reached_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
  bool reached_ = false;
};

Gate gate;
std::atomic<int64_t> writes{0};
std::atomic<int64_t> bytes_read{0};
std::atomic<int64_t> flushes{0};
std::atomic<int64_t> failing_flush{-1};  // counted from 0
std::atomic<bool> lose_a_bit{false};

}  // namespace

extern "C" {
ssize_t __real_pwrite(int, const void*, size_t, off_t);
ssize_t __wrap_pwrite(int descriptor, const void* data, size_t size, off_t offset) {
  if (size >= 8 && std::memcmp(data, "ADDRCKP1", 8) == 0) gate.pass();
  ++writes;
  return __real_pwrite(descriptor, data, size, offset);
}

ssize_t __real_pread(int, void*, size_t, off_t);
ssize_t __wrap_pread(int descriptor, void* data, size_t size, off_t offset) {
  const ssize_t got = __real_pread(descriptor, data, size, offset);
  if (got > 0) bytes_read += got;
  return got;
}

int __real_fsync(int);
int __wrap_fsync(int descriptor) {
  if (flushes++ == failing_flush) {
    errno = EIO;
    return -1;
  }
  char byte = 0;
  if (lose_a_bit && __real_pread(descriptor, &byte, 1, 300) == 1) {
    byte = static_cast<char>(byte ^ 4);
    EXPECT_EQ(__real_pwrite(descriptor, &byte, 1, 300), 1);
  }
  return __real_fsync(descriptor);
}
}

namespace adder {
namespace {

constexpr int64_t kCount = 1000;
constexpr int64_t kStaging = StagedCheckpoint::room(kCount * 4) + StagedCheckpoint::room(8);

/// The memory of a trainer; its values follow from the step.
struct Trained {
  explicit Trained(int64_t step) { go_to(step); }
  void go_to(int64_t step) {
    for (size_t i = 0; i < weights.size(); ++i) {
      weights[i] = static_cast<float>(uniform01(static_cast<uint64_t>(step), 0, i));
    }
    counter = step;
  }
  void stage(StagedCheckpoint& staged) const {
    const std::vector<int64_t> shape = {10, kCount / 10}, one = {1};
    std::memcpy(staged.add("weights", Dtype::f32, shape), weights.data(), kCount * 4);
    std::memcpy(staged.add("counter", Dtype::i64, one), &counter, 8);
  }
  std::vector<TensorSource> live() const {
    return {tensor_source("weights", {10, kCount / 10}, weights.data()),
            tensor_source("counter", {1}, &counter)};
  }
  std::vector<float> weights = std::vector<float>(kCount);
  int64_t counter = 0;
};

CheckpointJob job_of(int64_t step, std::function<void()> flush_logs = {}) {
  CheckpointJob job;
  job.step = step;
  job.manifest.set("step", step);
  job.flush_logs = std::move(flush_logs);
  return job;
}

void save(CheckpointWriter& writer, int64_t step, std::function<void()> flush_logs = {}) {
  Trained(step).stage(writer.stage());
  writer.start(job_of(step, std::move(flush_logs)));
}

void expect_step(const std::string& path, int64_t step) {
  const Checkpoint checkpoint = load_checkpoint(path);
  const Trained expected(step);
  std::vector<float> weights(kCount);
  checkpoint.read_as("weights", weights.data(), std::vector<int64_t>{10, kCount / 10});
  EXPECT_EQ(weights, expected.weights);
  int64_t counter = 0;
  checkpoint.read_as("counter", &counter, std::vector<int64_t>{1});
  EXPECT_EQ(counter, step);
}

std::vector<int64_t> steps_in(const ScratchFolder& folder) {
  std::vector<int64_t> steps;
  for (const CheckpointFile& file : find_checkpoints(folder.path())) steps.push_back(file.step);
  return steps;
}

/// Opens the gate some time from now.
class LateOpening {
 public:
  LateOpening()
      : thread_([this] {
          std::this_thread::sleep_for(std::chrono::milliseconds(50));
          opened_ = true;
          gate.open();
        }) {}
  ~LateOpening() { thread_.join(); }
  bool opened() const { return opened_; }

 private:
  std::atomic<bool> opened_{false};
  std::thread thread_;
};

TEST(StagedCheckpoint, ReservesOnce) {
  StagedCheckpoint staged(kStaging, {});
  const Trained memory(1);
  memory.stage(staged);
  const std::byte* weights = staged.tensors()[0].bytes.data();
  const std::byte* counter = staged.tensors()[1].bytes.data();
  const void* name = staged.tensors()[0].name.data();
  const void* shape = staged.tensors()[0].shape.data();
  staged.clear();
  EXPECT_TRUE(staged.tensors().empty());
  memory.stage(staged);
  ASSERT_EQ(staged.tensors().size(), 2u);
  EXPECT_EQ(staged.tensors()[0].bytes.data(), weights);
  EXPECT_EQ(staged.tensors()[1].bytes.data(), counter);
  EXPECT_EQ(staged.tensors()[0].name.data(), name);
  EXPECT_EQ(staged.tensors()[0].shape.data(), shape);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(counter) % kAlignment, 0u);
}

TEST(StagedCheckpoint, TensorsMayShareABlock) {
  const ScratchFolder folder;
  CheckpointWriter writer(folder.path(), StagedCheckpoint::room(40));
  StagedCheckpoint& staged = writer.stage();
  std::byte* block = staged.take(40);
  std::vector<float> flat(10);
  std::iota(flat.begin(), flat.end(), 0.0f);
  std::memcpy(block, flat.data(), 40);
  const std::vector<int64_t> three = {3}, seven = {7, 1};
  staged.add("first", Dtype::f32, three, block);
  staged.add("second", Dtype::f32, seven, block + 12);
  writer.start(job_of(1));
  ASSERT_TRUE(writer.finish().at(0).saved);
  float second[7];
  load_checkpoint(folder.at(checkpoint_name(1))).read_as("second", second, seven);
  EXPECT_TRUE(std::equal(second, second + 7, flat.begin() + 3));
}

TEST(CheckpointWriter, WritesWhatSaveCheckpointWrites) {
  const ScratchFolder folder;
  CheckpointWriter writer(folder.path(), kStaging);
  save(writer, 7);
  const auto outcomes = writer.finish();
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].step, 7);
  EXPECT_EQ(outcomes[0].path, folder.at(checkpoint_name(7)));
  EXPECT_TRUE(outcomes[0].saved);
  EXPECT_EQ(outcomes[0].problem, "");
  const Trained memory(7);
  save_checkpoint(folder.at("plain"), job_of(7).manifest, memory.live());
  EXPECT_EQ(folder.get(checkpoint_name(7)), folder.get("plain"));
  EXPECT_TRUE(writer.finish().empty());
}

TEST(CheckpointWriter, TrainingMayGoOnWhileItWrites) {
  const ScratchFolder folder;
  CheckpointWriter writer(folder.path(), kStaging);
  Trained memory(1);
  memory.stage(writer.stage());
  gate.close();
  writer.start(job_of(1));
  gate.wait_until_reached();
  EXPECT_TRUE(writer.busy());
  EXPECT_TRUE(writer.poll().empty());  // and does not wait
  memory.go_to(2);
  gate.open();
  ASSERT_TRUE(writer.finish().at(0).saved);
  expect_step(folder.at(checkpoint_name(1)), 1);

  // The same without staging, to see that it would show.
  gate.close();
  std::string message;
  std::thread unstaged([&] {
    message = message_of(
        [&] { save_checkpoint(folder.at("unstaged"), job_of(2).manifest, memory.live()); });
  });
  gate.wait_until_reached();
  memory.go_to(3);
  gate.open();
  unstaged.join();
  EXPECT_NE(message.find("does not verify when read back"), std::string::npos) << message;
}

TEST(CheckpointWriter, NeverWritesTwoAtATime) {
  const ScratchFolder folder;
  CheckpointWriter writer(folder.path(), kStaging);
  gate.close();
  save(writer, 1);
  gate.wait_until_reached();
  const LateOpening late;
  StagedCheckpoint& staged = writer.stage();
  EXPECT_TRUE(late.opened());
  expect_step(folder.at(checkpoint_name(1)), 1);
  Trained(2).stage(staged);
  bool first_was_there = false;
  writer.start(job_of(2, [&] { first_was_there = steps_in(folder) == std::vector<int64_t>{1}; }));
  save(writer, 3);
  const auto outcomes = writer.finish();
  ASSERT_EQ(outcomes.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(outcomes[i].step, static_cast<int64_t>(i) + 1);
    EXPECT_TRUE(outcomes[i].saved) << outcomes[i].problem;
  }
  EXPECT_TRUE(first_was_there);
  expect_step(folder.at(checkpoint_name(3)), 3);
}

TEST(CheckpointWriter, TheEndWaits) {
  const ScratchFolder folder;
  gate.close();
  const LateOpening late;
  {
    CheckpointWriter writer(folder.path(), kStaging);
    save(writer, 1);
  }
  EXPECT_TRUE(late.opened());
  expect_step(folder.at(checkpoint_name(1)), 1);
  EXPECT_EQ(folder.files(), 1);
}

TEST(CheckpointWriter, EachByteIsReadOnceAndOldOnesGo) {
  const ScratchFolder folder;
  CheckpointWriter writer(folder.path(), kStaging);
  for (int64_t step = 1; step <= 5; ++step) {
    Trained(step).stage(writer.stage());
    CheckpointJob job = job_of(step);
    job.best = 2;
    bytes_read = 0;
    writer.start(std::move(job));
    ASSERT_TRUE(writer.finish().at(0).saved);
    EXPECT_EQ(bytes_read, static_cast<int64_t>(folder.get(checkpoint_name(step)).size()));
  }
  EXPECT_EQ(steps_in(folder), (std::vector<int64_t>{5, 4, 2}));
}

TEST(CheckpointWriter, DoesNotTrustWhatOthersSaved) {
  const ScratchFolder folder;
  {
    CheckpointWriter writer(folder.path(), kStaging);
    for (const int64_t step : {1, 2, 3}) save(writer, step);
  }
  std::string spoilt = folder.get(checkpoint_name(3));
  spoilt[spoilt.size() / 2] = static_cast<char>(spoilt[spoilt.size() / 2] ^ 1);
  folder.put(checkpoint_name(3), spoilt);
  CheckpointWriter writer(folder.path(), kStaging);
  save(writer, 4);
  writer.finish();
  EXPECT_EQ(steps_in(folder), (std::vector<int64_t>{4, 2}));
}

/// A limit on the size of files while it lives: what a full disk looks like.
class FileLimit {
 public:
  explicit FileLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST(CheckpointWriter, AFailureIsToldAndCostsNothing) {
  const ScratchFolder folder;
  CheckpointWriter writer(folder.path(), kStaging);
  save(writer, 1);
  ASSERT_TRUE(writer.finish().at(0).saved);
  const std::string before = folder.get(checkpoint_name(1));
  const auto expect_failure = [&](int64_t step, const char* reason) {
    const auto outcomes = writer.finish();
    ASSERT_EQ(outcomes.size(), 1u);
    EXPECT_EQ(outcomes[0].step, step);
    EXPECT_FALSE(outcomes[0].saved);
    EXPECT_NE(outcomes[0].problem.find(reason), std::string::npos) << outcomes[0].problem;
    EXPECT_EQ(folder.get(checkpoint_name(1)), before);
    EXPECT_EQ(folder.files(), 1);
  };
  {
    // SIGXFSZ would end the process if the thread did not block it.
    const FileLimit limit(before.size() - 1);
    save(writer, 2);
    while (writer.busy()) std::this_thread::yield();
  }
  expect_failure(2, "File too large");
  failing_flush = flushes.load();
  save(writer, 3);
  expect_failure(3, "Input/output error");
  failing_flush = -1;
  lose_a_bit = true;
  save(writer, 4);
  const auto lost = writer.finish();
  lose_a_bit = false;
  EXPECT_FALSE(lost.at(0).saved);
  EXPECT_NE(lost[0].problem.find("does not verify when read back"), std::string::npos);
  EXPECT_EQ(folder.files(), 1);
  std::filesystem::rename(folder.path(), folder.path() + ".gone");
  save(writer, 5);
  const auto gone = writer.finish();
  std::filesystem::rename(folder.path() + ".gone", folder.path());
  EXPECT_FALSE(gone.at(0).saved);
  EXPECT_NE(gone[0].problem.find("No such file"), std::string::npos) << gone[0].problem;
  EXPECT_EQ(folder.get(checkpoint_name(1)), before);
  save(writer, 6);
  EXPECT_TRUE(writer.finish().at(0).saved);
  EXPECT_EQ(steps_in(folder), (std::vector<int64_t>{6, 1}));
}

TEST(CheckpointWriter, AnOldOneThatStaysIsNoFailure) {
  const ScratchFolder folder;
  std::filesystem::create_directory(folder.at(checkpoint_name(1)));
  CheckpointWriter writer(folder.path(), kStaging);
  for (const int64_t step : {2, 3}) save(writer, step);
  const auto outcomes = writer.finish();
  ASSERT_EQ(outcomes.size(), 2u);
  EXPECT_EQ(outcomes[0].problem, "");
  EXPECT_TRUE(outcomes[1].saved);
  EXPECT_NE(outcomes[1].problem.find("cannot delete an old checkpoint"), std::string::npos);
  expect_step(folder.at(checkpoint_name(3)), 3);
}

TEST(CheckpointWriter, LogsAreDurableFirst) {
  const ScratchFolder folder;
  AppendLog log(folder.at("log"), 0);
  CheckpointWriter writer(folder.path(), kStaging);
  log.append("line\n");
  int64_t written = -1, flushed = -1;
  const int64_t writes_before = writes, flushes_before = flushes;
  save(writer, 1, [&] {
    log.sync();
    written = writes - writes_before;
    flushed = flushes - flushes_before;
  });
  ASSERT_TRUE(writer.finish().at(0).saved);
  EXPECT_EQ(written, 0);
  EXPECT_EQ(flushed, 1);
}

TEST(CheckpointWriter, LogsThatCannotBeFlushedEndIt) {
  const ScratchFolder folder;
  AppendLog log(folder.at("log"), 0);
  {
    CheckpointWriter writer(folder.path(), kStaging);
    log.append("line\n");
    failing_flush = flushes.load();
    save(writer, 1, [&] { log.sync(); });
    const auto outcomes = writer.finish();
    failing_flush = -1;
    EXPECT_FALSE(outcomes.at(0).saved);
    EXPECT_NE(outcomes[0].problem.find("cannot flush"), std::string::npos) << outcomes[0].problem;
    // A second flush would claim success for bytes that the system may have dropped.
    EXPECT_NE(message_of([&] { writer.stage(); }).find("Input/output error"), std::string::npos);
  }
  const std::vector<std::function<void()>> kThrows = {[] { throw 1; },
                                                      [] { throw std::bad_alloc(); }};
  for (const auto& throws : kThrows) {
    CheckpointWriter writer(folder.path(), kStaging);
    save(writer, 1, throws);
    const auto outcomes = writer.finish();
    EXPECT_FALSE(outcomes.at(0).saved);
    EXPECT_NE(outcomes[0].problem, "");
    EXPECT_NE(message_of([&] { writer.stage(); }), "");
  }
  EXPECT_TRUE(steps_in(folder).empty());
}

TEST(CheckpointWriter, LogsGrowWhileTheyAreFlushed) {
  const ScratchFolder folder;
  AppendLog log(folder.at("log"), 0);
  CheckpointWriter writer(folder.path(), kStaging);
  for (int64_t step = 1; step <= 20; ++step) {
    log.append("step\n");
    Trained(step).stage(writer.stage());
    CheckpointJob job = job_of(step, [&] { log.sync(); });
    job.manifest.set("log", log.bytes());
    writer.start(std::move(job));
    for (int i = 0; i < 100; ++i) log.append("more\n");
  }
  for (const auto& outcome : writer.finish()) EXPECT_TRUE(outcome.saved) << outcome.problem;
  EXPECT_EQ(folder.get("log").size(), 20u * 101 * 5);
  const Checkpoint newest = load_checkpoint(folder.at(checkpoint_name(20)));
  EXPECT_EQ(newest.manifest().find("log")->as_int(), 19 * 101 * 5 + 5);
}

TEST(CheckpointWriter, SignalsAreLeftToOtherThreads) {
  const ScratchFolder folder;
  CheckpointWriter writer(folder.path(), kStaging);
  sigset_t before, inside, after;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  save(writer, 1, [&] { pthread_sigmask(SIG_SETMASK, nullptr, &inside); });
  ASSERT_TRUE(writer.finish().at(0).saved);
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  for (const int signal : {SIGINT, SIGTERM, SIGXFSZ, SIGCHLD, SIGSEGV, SIGBUS}) {
    const bool fault = signal == SIGSEGV || signal == SIGBUS;
    EXPECT_EQ(sigismember(&inside, signal), fault ? 0 : 1) << signal;
    EXPECT_EQ(sigismember(&after, signal), sigismember(&before, signal)) << signal;
  }
}

/// A run: appends to its log, saves, and tells `pipe` of each step that is safe.
[[noreturn]] void train_until_killed(const ScratchFolder& folder, int64_t step, int pipe) {
  AppendLog log(folder.at("log"), (step - 1) * 5);
  CheckpointWriter writer(folder.path(), kStaging);
  for (;; ++step) {
    log.append("step\n");
    Trained(step).stage(writer.stage());
    CheckpointJob job = job_of(step, [&] { log.sync(); });
    job.manifest.set("log", log.bytes());
    writer.start(std::move(job));
    for (const CheckpointOutcome& outcome : writer.poll()) {
      if (::write(pipe, &outcome.step, 8) != 8) ::_exit(1);
    }
  }
}

TEST(CheckpointWriter, AKillAtAnyTimeLeavesTheOldOrTheNew) {
  const ScratchFolder folder;
  int64_t last = 0, inside = 0;
  for (uint64_t kill = 0; kill < 40 || (inside < 12 && kill < 400); ++kill) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) train_until_killed(folder, last + 1, ends[1]);
    ::close(ends[1]);
    int64_t told = 0;
    ASSERT_EQ(::read(ends[0], &told, 8), 8);
    std::this_thread::sleep_for(
        std::chrono::microseconds(static_cast<int64_t>(5000 * uniform01(11, 0, kill))));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    while (::read(ends[0], &told, 8) == 8) {
    }
    ::close(ends[0]);
    if (remove_stale_temporaries(folder.path()) > 0) ++inside;
    const auto checkpoint = open_newest_valid(folder.path());
    ASSERT_TRUE(checkpoint);
    last = checkpoint->manifest().find("step")->as_int();
    EXPECT_GE(last, told);
    expect_step(checkpoint->path(), last);
    EXPECT_EQ(checkpoint->manifest().find("log")->as_int(), last * 5);
    EXPECT_GE(static_cast<int64_t>(folder.get("log").size()), last * 5);
    EXPECT_LE(steps_in(folder).size(), 3u);
  }
  EXPECT_GE(inside, 12);
}

}  // namespace
}  // namespace adder
