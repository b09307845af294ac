#include "train/checkpoint_writer.h"

#include <pthread.h>
#include <signal.h>

#include <exception>
#include <system_error>
#include <utility>

#include "core/error.h"

namespace adder {
namespace {

/// Threads inherit the mask of their maker. Faults stay open: a blocked one would end the process
/// without the report of a sanitizer.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t blocked;
    sigfillset(&blocked);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS}) {
      sigdelset(&blocked, fault);
    }
    pthread_sigmask(SIG_SETMASK, &blocked, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

/// Text for a person; losing it for lack of memory is no reason to end the run.
void set_text(std::string& to, const char* text) noexcept {
  try {
    to = text;
  } catch (...) {
  }
}

}  // namespace

StagedCheckpoint::StagedCheckpoint(int64_t bytes, const Memory& memory) : buffer_(bytes, memory) {
  ADDER_CHECK(memory.kind != MemoryKind::device);
}

void StagedCheckpoint::clear() {
  used_ = 0;
  count_ = 0;
}

std::byte* StagedCheckpoint::take(int64_t bytes) {
  const int64_t begin = used_;
  used_ += room(bytes);
  ADDER_CHECK(bytes >= 0 && used_ <= buffer_.bytes());
  return buffer_.data() + begin;
}

void StagedCheckpoint::add(std::string_view name, Dtype dtype, std::span<const int64_t> shape,
                           const std::byte* data) {
  int64_t bytes = 0;
  ADDER_CHECK(tensor_bytes(shape, dtype, &bytes));
  ADDER_CHECK(data >= buffer_.data() && data + bytes <= buffer_.data() + used_);
  if (count_ == tensors_.size()) tensors_.emplace_back();
  TensorSource& tensor = tensors_[count_++];
  tensor.name = name;
  tensor.dtype = dtype;
  tensor.shape.assign(shape.begin(), shape.end());
  tensor.bytes = {data, static_cast<size_t>(bytes)};
}

std::byte* StagedCheckpoint::add(std::string_view name, Dtype dtype,
                                 std::span<const int64_t> shape) {
  int64_t bytes = 0;
  ADDER_CHECK(tensor_bytes(shape, dtype, &bytes));
  std::byte* data = take(bytes);
  add(name, dtype, shape, data);
  return data;
}

CheckpointWriter::CheckpointWriter(std::string folder, int64_t staging_bytes, const Memory& memory)
    : folder_(std::move(folder)), staged_(staging_bytes, memory) {}

CheckpointWriter::~CheckpointWriter() {
  if (thread_.joinable()) thread_.join();
}

void CheckpointWriter::wait() {
  if (!thread_.joinable()) return;
  thread_.join();
  outcomes_.push_back(std::move(outcome_));
  job_ = {};
}

StagedCheckpoint& CheckpointWriter::stage() {
  wait();
  if (logs_lost_) {
    throw Error(
        {"the logs of the run cannot be flushed, so no checkpoint is sure: " + logs_problem_,
         folder_,
         {},
         {}});
  }
  staged_.clear();
  return staged_;
}

void CheckpointWriter::start(CheckpointJob job) {
  ADDER_CHECK(!thread_.joinable());
  job_ = std::move(job);
  outcome_ = {job_.step, folder_ + "/" + checkpoint_name(job_.step), false, {}};
  done_.store(false, std::memory_order_relaxed);
  const SignalsBlocked blocked;
  try {
    thread_ = std::thread([this] {
      write();
      done_.store(true, std::memory_order_release);
    });
  } catch (const std::system_error& error) {
    outcome_.problem = std::string("cannot start a thread to write it: ") + error.what();
    outcomes_.push_back(std::move(outcome_));
  }
}

void CheckpointWriter::write() noexcept {
  try {
    save();
  } catch (const std::exception& error) {
    set_text(outcome_.problem, error.what());
  } catch (...) {
    set_text(outcome_.problem, "unknown exception");
  }
  if (logs_lost_) set_text(logs_problem_, outcome_.problem.c_str());
}

void CheckpointWriter::save() {
  logs_lost_ = true;
  if (job_.flush_logs) job_.flush_logs();
  logs_lost_ = false;
  save_checkpoint(outcome_.path, job_.manifest, staged_.tensors());
  outcome_.saved = true;
  verified_.push_back(job_.step);
  keep_checkpoints(folder_, job_.keep, job_.best, verified_);
  // Older ones are no candidates any more.
  while (static_cast<int64_t>(verified_.size()) > job_.keep) verified_.erase(verified_.begin());
}

std::vector<CheckpointOutcome> CheckpointWriter::poll() {
  if (thread_.joinable() && !busy()) wait();
  return std::exchange(outcomes_, {});
}

std::vector<CheckpointOutcome> CheckpointWriter::finish() {
  wait();
  return std::exchange(outcomes_, {});
}

}  // namespace adder
