// MappedFile, AtomicFile, CRC32C. The linker sends this program's open, pwrite, fsync, rename,
// fchmod, mmap and pread through the functions below (-Wl,--wrap), which count, record and fail.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <vector>

#include "core/atomic_file.h"
#include "core/checksum.h"
#include "core/error.h"
#include "core/mapped_file.h"
#include "core/rng.h"

namespace adder {
namespace {

/// One system call that changed something durable, in order.
struct Operation {
  enum class Kind : uint8_t { write, sync_file, rename, sync_directory };
  Kind kind = Kind::write;
  int64_t offset = 0;
  std::string bytes;
};

/// The plan of the wrapped calls: the `fail_at`-th call (from 0) of those in `calls` fails.
struct Faults {
  std::string calls;  // one letter each: o pen, w rite, s ync, r ename, c hmod, m map, R ead
  int64_t fail_at = -1;
  int error_number = EIO;
  bool short_writes = false;  // every write takes one byte less than asked, at least one
  int64_t seen = 0;
  std::vector<Operation> recorded;

  bool fails(char call) {
    if (calls.find(call) == std::string::npos) return false;
    if (seen++ != fail_at) return false;
    errno = error_number;
    return true;
  }
};

Faults* faults = nullptr;  // null: all calls pass through

/// Installs faults for a scope.
struct Injected {
  explicit Injected(Faults& plan) { faults = &plan; }
  ~Injected() { faults = nullptr; }
  Injected(const Injected&) = delete;
  Injected& operator=(const Injected&) = delete;
};

}  // namespace
}  // namespace adder

using adder::faults;
using adder::Operation;

extern "C" {
int __real_open(const char*, int, ...);
ssize_t __real_pwrite(int, const void*, size_t, off_t);
ssize_t __real_pread(int, void*, size_t, off_t);
int __real_fsync(int);
int __real_rename(const char*, const char*);
int __real_fchmod(int, mode_t);
void* __real_mmap(void*, size_t, int, int, int, off_t);

int __wrap_open(const char* path, int flags, ...) {
  if (faults != nullptr && faults->fails('o')) return -1;
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return __real_open(path, flags, mode);
}

ssize_t __wrap_pwrite(int descriptor, const void* data, size_t size, off_t offset) {
  if (faults == nullptr) return __real_pwrite(descriptor, data, size, offset);
  if (faults->fails('w')) return -1;
  if (faults->short_writes && size > 1) --size;
  const ssize_t count = __real_pwrite(descriptor, data, size, offset);
  if (count > 0) {
    faults->recorded.push_back(
        {Operation::Kind::write, offset,
         std::string(static_cast<const char*>(data), static_cast<size_t>(count))});
  }
  return count;
}

ssize_t __wrap_pread(int descriptor, void* data, size_t size, off_t offset) {
  if (faults != nullptr && faults->fails('R')) return -1;
  return __real_pread(descriptor, data, size, offset);
}

int __wrap_fsync(int descriptor) {
  if (faults == nullptr) return __real_fsync(descriptor);
  if (faults->fails('s')) return -1;
  struct stat status{};
  fstat(descriptor, &status);
  faults->recorded.push_back(
      {S_ISDIR(status.st_mode) ? Operation::Kind::sync_directory : Operation::Kind::sync_file,
       0,
       {}});
  return __real_fsync(descriptor);
}

int __wrap_rename(const char* from, const char* to) {
  if (faults != nullptr && faults->fails('r')) return -1;
  if (faults != nullptr) faults->recorded.push_back({Operation::Kind::rename, 0, {}});
  return __real_rename(from, to);
}

int __wrap_fchmod(int descriptor, mode_t mode) {
  if (faults != nullptr && faults->fails('c')) return -1;
  return __real_fchmod(descriptor, mode);
}

void* __wrap_mmap(void* at, size_t size, int protection, int flags, int descriptor, off_t offset) {
  if (faults != nullptr && faults->fails('m')) return MAP_FAILED;
  return __real_mmap(at, size, protection, flags, descriptor, offset);
}
}

namespace adder {
namespace {

namespace fs = std::filesystem;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span<const char>(text));
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string pattern(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(philox(7, 0, i)[0]);
  return text;
}

template <class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

class Files : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "adder_files_XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string at(const std::string& name) const { return folder_ + "/" + name; }
  int64_t entries() const {
    return std::distance(fs::directory_iterator(folder_), fs::directory_iterator());
  }
  void put(const std::string& name, const std::string& text) const {
    std::ofstream(at(name), std::ios::binary) << text;
  }

  std::string folder_;
};

TEST(Checksum, KnownAnswers) {  // RFC 3720 appendix B.4
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xE3069283u);
  EXPECT_EQ(crc32c(bytes_of(std::string(32, '\0'))), 0x8A9136AAu);
  EXPECT_EQ(crc32c(bytes_of(std::string(32, '\xFF'))), 0x62A8AB43u);
  std::string ascending(32, '\0');
  std::iota(ascending.begin(), ascending.end(), '\0');
  EXPECT_EQ(crc32c(bytes_of(ascending)), 0x46DD794Eu);
  EXPECT_EQ(crc32c({}), 0u);
}

TEST(Checksum, InstructionsEqualTheTableForEveryLengthAndAlignment) {
  const std::string text = pattern(600);
  for (size_t begin = 0; begin < 9; ++begin) {
    for (size_t size = 0; size + begin <= text.size(); size += size < 40 ? 1 : 37) {
      const auto block = bytes_of(text).subspan(begin, size);
      EXPECT_EQ(crc32c_hardware(0xFFFFFFFFu, block), crc32c_table(0xFFFFFFFFu, block));
    }
  }
}

TEST(Checksum, DoesNotDependOnTheCut) {
  const std::string text = pattern(300);
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    Crc32c crc;
    crc.update(bytes_of(text).first(cut));
    crc.update(bytes_of(text).subspan(cut));
    ASSERT_EQ(crc.value(), crc32c(bytes_of(text)));
  }
}

TEST(Checksum, OfTwoBlocksFollowsFromTheirs) {
  const std::string text = pattern(300);
  const uint32_t whole = crc32c(bytes_of(text));
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    const auto rest = bytes_of(text).subspan(cut);
    ASSERT_EQ(crc32c_joined(crc32c(bytes_of(text).first(cut)), crc32c(rest),
                            static_cast<int64_t>(rest.size())),
              whole)
        << cut;
  }
  // Lengths beyond 32 bits: doubling 2^33 zero bytes is joining them to themselves.
  uint32_t zeros = crc32c(bytes_of(std::string(1 << 20, '\0')));
  for (int64_t bytes = 1 << 20; bytes < int64_t{1} << 33; bytes *= 2) {
    zeros = crc32c_joined(zeros, zeros, bytes);
  }
  const uint32_t one_at_a_time = crc32c_joined(crc32c(bytes_of("x")), zeros, int64_t{1} << 33);
  uint32_t in_quarters = crc32c(bytes_of("x"));
  uint32_t quarter = crc32c(bytes_of(std::string(1 << 20, '\0')));
  for (int64_t bytes = 1 << 20; bytes < int64_t{1} << 31; bytes *= 2) {
    quarter = crc32c_joined(quarter, quarter, bytes);
  }
  for (int i = 0; i < 4; ++i) in_quarters = crc32c_joined(in_quarters, quarter, int64_t{1} << 31);
  EXPECT_EQ(one_at_a_time, in_quarters);
}

TEST(Checksum, FindsEverySingleBitFlip) {
  std::string text = pattern(2048);
  const uint32_t expected = crc32c(bytes_of(text));
  for (size_t bit = 0; bit < text.size() * 8; ++bit) {
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
    ASSERT_NE(crc32c(bytes_of(text)), expected) << bit;
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
  }
}

TEST_F(Files, MapsWhatIsThere) {
  put("a", "hello");
  const MappedFile file(at("a"));
  EXPECT_EQ(text_of(file.bytes()), "hello");
  EXPECT_EQ(read_text_file(at("a")), "hello");
  std::string part(3, ' ');
  file.read(1, std::as_writable_bytes(std::span<char>(part)));
  EXPECT_EQ(part, "ell");
}

TEST_F(Files, EmptyFileIsEmpty) {
  put("a", "");
  const MappedFile file(at("a"));
  EXPECT_EQ(file.size(), 0);
  EXPECT_TRUE(file.bytes().empty());
  EXPECT_EQ(read_text_file(at("a")), "");
}

TEST_F(Files, MovedFileKeepsItsMapping) {
  put("a", "hello");
  MappedFile first(at("a"));
  MappedFile second(std::move(first));
  MappedFile third;
  third = std::move(second);
  EXPECT_EQ(text_of(third.bytes()), "hello");
}

TEST_F(Files, ErrorsNameThePathAndTheReason) {
  const std::string missing = message_of([&] { MappedFile(at("none")); });
  EXPECT_NE(missing.find(at("none")), std::string::npos);
  EXPECT_NE(missing.find("No such file or directory"), std::string::npos);
  EXPECT_NE(message_of([&] { MappedFile{folder_}; }).find("a directory"), std::string::npos);
  EXPECT_NE(message_of([] { MappedFile("/dev/null"); }).find("a device"), std::string::npos);
  ASSERT_EQ(::mkfifo(at("pipe").c_str(), 0600), 0);
  EXPECT_NE(message_of([&] { MappedFile(at("pipe")); }).find("a pipe"), std::string::npos);
  put("big", "12345");
  EXPECT_NE(message_of([&] { read_text_file(at("big"), 4); }).find("at most 4"), std::string::npos);
}

TEST_F(Files, ReadsOutsideAreRefused) {
  put("a", "hello");
  const MappedFile file(at("a"));
  std::byte out[8];
  const std::pair<int64_t, size_t> bad[] = {{-1, 1}, {0, 6}, {5, 1}, {INT64_MAX, 1}, {6, 0}};
  for (const auto& [offset, size] : bad) {
    EXPECT_THROW(file.read(offset, {out, size}), Error) << offset << " " << size;
  }
  file.read(5, {out, 0});
}

TEST_F(Files, AFileThatShrinksIsAnErrorNotASignal) {
  put("a", pattern(100'000));
  const MappedFile file(at("a"));
  ASSERT_EQ(::truncate(at("a").c_str(), 10), 0);
  std::vector<std::byte> out(100'000);
  EXPECT_NE(message_of([&] { file.read(0, out); }).find("shrank"), std::string::npos);
}

TEST_F(Files, FaultsWhileReadingAreErrors) {
  put("a", "hello");
  for (const char call : {'o', 'm', 'R'}) {
    Faults plan{.calls = std::string(1, call), .fail_at = 0, .recorded = {}};
    const Injected injected(plan);
    EXPECT_NE(message_of([&] { read_text_file(at("a")); }).find("Input/output error"),
              std::string::npos);
  }
  for (const char call : {'o', 'R'}) {
    Faults plan{.calls = std::string(1, call), .fail_at = 0, .error_number = EINTR, .recorded = {}};
    const Injected injected(plan);
    EXPECT_EQ(read_text_file(at("a")), "hello");
  }
}

TEST_F(Files, WritesAndReplaces) {
  write_file_atomically(at("a"), "first");
  EXPECT_EQ(read_text_file(at("a")), "first");
  {
    AtomicFile file(at("a"));
    file.write("count=0 ");
    file.write("rest");
    file.write_at(6, bytes_of("7"));
    EXPECT_EQ(read_text_file(at("a")), "first");  // until the commit
    file.commit();
  }
  EXPECT_EQ(read_text_file(at("a")), "count=7 rest");
  EXPECT_EQ(entries(), 1);
}

TEST_F(Files, WithoutACommitNothingHappened) {
  put("a", "old");
  {
    AtomicFile file(at("a"));
    file.write("new");
    file.sync();
  }
  EXPECT_EQ(read_text_file(at("a")), "old");
  EXPECT_EQ(entries(), 1);
}

TEST_F(Files, KeepsTheModeAndTheLink) {
  put("a", "old");
  ASSERT_EQ(::chmod(at("a").c_str(), 0640), 0);
  fs::create_symlink("a", at("link"));
  write_file_atomically(at("link"), "new");
  struct stat status{};
  ASSERT_EQ(::stat(at("a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0640u);
  EXPECT_TRUE(fs::is_symlink(at("link")));
  EXPECT_EQ(read_text_file(at("a")), "new");
}

TEST_F(Files, RefusesWhatIsNoFile) {
  EXPECT_NE(message_of([&] { AtomicFile{folder_}; }).find("a regular file"), std::string::npos);
  EXPECT_NE(message_of([&] { AtomicFile(at("none/a")); }).find("No such file"), std::string::npos);
  EXPECT_NE(message_of([] { AtomicFile("/dev/full"); }).find("a regular file"), std::string::npos);
  fs::create_symlink("nowhere", at("dangling"));
  EXPECT_NE(message_of([&] { AtomicFile(at("dangling")); }).find("symbolic link"),
            std::string::npos);
}

/// Saves `text` over "old" with each k-th call failing, for all k until it succeeds. Returns the
/// number of failures seen.
int64_t fault_loop(const std::string& path, const std::string& calls, int error_number) {
  for (int64_t k = 0;; ++k) {
    std::ofstream(path, std::ios::binary) << "old";
    Faults plan{.calls = calls, .fail_at = k, .error_number = error_number, .recorded = {}};
    std::string message;
    {
      const Injected injected(plan);
      message = message_of([&] {
        AtomicFile file(path);
        file.write("new ");
        file.write("content");
        file.write_at(0, bytes_of("N"));
        file.commit();
      });
    }
    const std::string now = read_text_file(path);
    if (message.empty()) {
      EXPECT_EQ(now, "New content");
      return k;
    }
    EXPECT_NE(message.find(path), std::string::npos) << message;
    EXPECT_NE(message.find(system_reason(error_number)), std::string::npos) << message;
    const bool renamed = message.find("flush its directory") != std::string::npos;
    EXPECT_EQ(now, renamed ? "New content" : "old") << message;
  }
}

TEST_F(Files, EveryFaultOfEveryCallLeavesOldOrNew) {
  EXPECT_EQ(fault_loop(at("a"), "w", ENOSPC), 3);
  EXPECT_EQ(fault_loop(at("a"), "w", EIO), 3);
  EXPECT_EQ(fault_loop(at("a"), "s", EIO), 2);
  EXPECT_EQ(fault_loop(at("a"), "r", EACCES), 1);
  EXPECT_EQ(fault_loop(at("a"), "c", EPERM), 1);
  EXPECT_EQ(fault_loop(at("a"), "o", EMFILE), 2);
  EXPECT_EQ(fault_loop(at("a"), "owsrc", EIO), 9);
  EXPECT_EQ(entries(), 1);  // no temporary is left behind
}

TEST_F(Files, ShortWritesGoOnAndInterruptionsAreRepeated) {
  const std::string text = pattern(50);
  Faults plan{.calls = "w", .short_writes = true, .recorded = {}};
  {
    const Injected injected(plan);
    write_file_atomically(at("a"), text);
  }
  EXPECT_EQ(read_text_file(at("a")), text);
  for (int64_t k = 0; k < 2; ++k) {
    Faults interrupted{.calls = "ow", .fail_at = k, .error_number = EINTR, .recorded = {}};
    const Injected injected(interrupted);
    write_file_atomically(at("b"), text);
  }
  EXPECT_EQ(read_text_file(at("b")), text);
}

TEST_F(Files, AFailedFlushIsNotRetried) {
  Faults plan{.calls = "s", .fail_at = 0, .recorded = {}};
  const Injected injected(plan);
  EXPECT_THROW(write_file_atomically(at("a"), "text"), Error);
  EXPECT_EQ(plan.seen, 1);
  EXPECT_FALSE(fs::exists(at("a")));
}

TEST_F(Files, AFullDiskIsAnErrorThatLosesNothing) {
  put("a", "old");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = message_of([&] { write_file_atomically(at("a"), pattern(10'000)); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("cannot write"), std::string::npos);
  EXPECT_NE(message.find("File too large"), std::string::npos);
  EXPECT_EQ(read_text_file(at("a")), "old");
  EXPECT_EQ(entries(), 1);
}

TEST_F(Files, TidiesUpAfterKilledProcesses) {
  put(".model.safetensors.999999.0.tmp", "left by a killed process");
  put(".hidden", "not ours");
  const AtomicFile live(at("b"));
  EXPECT_EQ(remove_stale_temporaries(folder_), 1);
  EXPECT_TRUE(fs::exists(live.temporary_path()));
  EXPECT_TRUE(fs::exists(at(".hidden")));
  EXPECT_EQ(remove_stale_temporaries(at("none")), 0);
}

/// A model of the states that a power loss may leave (reliability.md B2): writes since the last
/// fsync of the file may each be lost, or torn at 512 bytes; a rename since the last fsync of the
/// directory may be lost. Returns how many of the states of `operations` are bad: the target is
/// neither old nor new, or not new although the save was reported as done.
struct CrashStates {
  int64_t states = 0;
  int64_t bad = 0;
};

void apply(std::string& content, const Operation& write, size_t size) {
  const size_t end = static_cast<size_t>(write.offset) + size;
  if (content.size() < end) content.resize(end, '\0');
  content.replace(static_cast<size_t>(write.offset), size, write.bytes, 0, size);
}

void crash_after(std::span<const Operation> done, bool reported, const std::string& wanted,
                 CrashStates& count) {
  std::string synced;
  std::vector<const Operation*> loose;
  bool renamed = false, rename_durable = false;
  for (const Operation& operation : done) {
    switch (operation.kind) {
      case Operation::Kind::write:
        loose.push_back(&operation);
        break;
      case Operation::Kind::sync_file:
        for (const Operation* write : loose) apply(synced, *write, write->bytes.size());
        loose.clear();
        break;
      case Operation::Kind::rename:
        renamed = true;
        break;
      case Operation::Kind::sync_directory:
        rename_durable = renamed;
        break;
    }
  }
  // Each loose write: lost, torn after 512 bytes, or whole. Ternary digits of `choice`.
  int64_t choices = 1;
  for (size_t i = 0; i < loose.size(); ++i) choices *= 3;
  for (int64_t choice = 0; choice < choices; ++choice) {
    std::string content = synced;
    int64_t digits = choice;
    for (const Operation* write : loose) {
      const size_t whole = write->bytes.size();
      const size_t kept[] = {0, std::min<size_t>(512, whole), whole};
      apply(content, *write, kept[digits % 3]);
      digits /= 3;
    }
    for (const bool rename_kept : {false, true}) {
      if ((rename_kept && !renamed) || (!rename_kept && rename_durable)) continue;
      ++count.states;
      if (rename_kept ? content != wanted : reported) ++count.bad;
    }
  }
}

CrashStates crash_states(const std::vector<Operation>& operations, const std::string& wanted) {
  CrashStates count;
  for (size_t done = 0; done <= operations.size(); ++done) {
    crash_after(std::span(operations).first(done), done == operations.size(), wanted, count);
  }
  return count;
}

std::vector<Operation> without(std::vector<Operation> operations, Operation::Kind kind) {
  std::erase_if(operations, [&](const Operation& one) { return one.kind == kind; });
  return operations;
}

TEST_F(Files, NoPowerLossLeavesAMixture) {
  const std::string text = pattern(5000);
  Faults plan{.calls = "", .recorded = {}};
  {
    const Injected injected(plan);
    AtomicFile file(at("a"));
    for (size_t begin = 0; begin < text.size(); begin += 1000) {
      file.write(bytes_of(text).subspan(begin, 1000));
    }
    file.commit();
  }
  const CrashStates states = crash_states(plan.recorded, text);
  EXPECT_GT(states.states, 300);
  EXPECT_EQ(states.bad, 0);
  // The model is worth something only if it finds the harm that a missing step does.
  using Kind = Operation::Kind;
  EXPECT_GT(crash_states(without(plan.recorded, Kind::sync_file), text).bad, 0);
  EXPECT_GT(crash_states(without(plan.recorded, Kind::sync_directory), text).bad, 0);
  EXPECT_GT(crash_states(without(plan.recorded, Kind::rename), text).bad, 0);
}

}  // namespace
}  // namespace adder
