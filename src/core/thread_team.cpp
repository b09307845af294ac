#include "core/thread_team.h"

#include <hwy/cache_control.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/context.h"
#include "core/error.h"

namespace adder {
namespace {

using Clock = std::chrono::steady_clock;

// Longer than the serial stretches between the regions of a step, shorter than a time slice.
constexpr auto kSpin = std::chrono::microseconds(50);

constexpr size_t kCacheLine = 64;

// Is this thread inside a region?
thread_local bool inside = false;

// Grows in the child of a fork, where the members of older teams do not exist.
std::atomic<uint32_t> forks{0};

/// Waits until `value` differs from `old`; sleeps after kSpin, or at once. A thread that changes
/// the value calls wake() afterwards. The waiter sets `asleep` and then reads the value; the other
/// thread changes the value and then reads `asleep`. All four are sequentially consistent, so at
/// least one of the reads sees the other thread's write: the waiter does not fall asleep, or it is
/// woken.
void await_change(const std::atomic<uint32_t>& value, uint32_t old, std::atomic<bool>& asleep,
                  bool spins) {
  if (spins) {
    const auto end = Clock::now() + kSpin;
    do {
      for (int i = 0; i < 16; ++i) {
        if (value.load(std::memory_order_acquire) != old) return;
        hwy::Pause();
      }
    } while (Clock::now() < end);
  }
  asleep.store(true);
  value.wait(old);
  asleep.store(false);
}

void wake(std::atomic<uint32_t>& value, const std::atomic<bool>& asleep) {
  if (asleep.load()) value.notify_one();
}

/// Signals go to the threads of the program, not to members started while this lives.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

class Team {
 public:
  Team() = default;
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  void run(int threads, const TeamRegion& region);

 private:
  struct alignas(kCacheLine) Member {
    std::atomic<uint32_t> calls{0};  // grows when there is something to do
    std::atomic<bool> asleep{false};
    std::thread thread;
  };
  // The items that a worker does first, in order. A worker that has none left takes from other
  // shares.
  struct alignas(kCacheLine) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  void grow(int members);
  void serve(Member& member, int worker);
  void call_members(int members);
  bool enter();
  void leave();
  void deal(int workers);
  void work(int worker);
  void work_on(Share& share, int worker);
  void close();

  static constexpr uint32_t kClosed = uint32_t{1} << 31;

  // The region: written while the gate is closed and nobody is inside.
  TeamRegion region_;
  std::vector<Share> shares_;
  std::exception_ptr exception_;

  // The number of members inside, plus kClosed while no more may enter.
  alignas(kCacheLine) std::atomic<uint32_t> gate_{kClosed};
  std::atomic<bool> caller_asleep_{false};
  std::atomic<bool> spins_{false};
  std::atomic<bool> failed_{false};  // the thread that sets it writes exception_
  std::atomic<bool> stops_{false};
  std::vector<std::unique_ptr<Member>> members_;
  const int cores_ = available_threads();
};

Team::~Team() {
  stops_.store(true);
  call_members(static_cast<int>(members_.size()));
  for (const auto& member : members_) member->thread.join();
}

// Starts as many members as the system allows; fewer can complete a region too.
void Team::grow(int members) {
  const SignalsBlocked blocked;
  members_.reserve(static_cast<size_t>(members));
  while (static_cast<int>(members_.size()) < members) {
    auto member = std::make_unique<Member>();
    const int worker = static_cast<int>(members_.size()) + 1;
    try {
      member->thread = std::thread([this, m = member.get(), worker] { serve(*m, worker); });
    } catch (const std::system_error&) {
      return;
    }
    members_.push_back(std::move(member));
  }
}

void Team::serve(Member& member, int worker) {
  inside = true;
  uint32_t seen = 0;
  while (!stops_.load()) {
    if (enter()) {
      work(worker);
      leave();
    }
    await_change(member.calls, seen, member.asleep, spins_.load(std::memory_order_relaxed));
    seen = member.calls.load();
  }
}

void Team::call_members(int members) {
  for (int i = 0; i < members; ++i) {
    Member& member = *members_[static_cast<size_t>(i)];
    member.calls.fetch_add(1);
    wake(member.calls, member.asleep);
  }
}

bool Team::enter() {
  uint32_t gate = gate_.load();
  while ((gate & kClosed) == 0) {
    if (gate_.compare_exchange_weak(gate, gate + 1)) return true;
  }
  return false;
}

void Team::leave() {
  if (gate_.fetch_sub(1) == kClosed + 1) wake(gate_, caller_asleep_);
}

void Team::deal(int workers) {
  const auto count = static_cast<size_t>(workers);
  if (shares_.size() != count) shares_ = std::vector<Share>(count);
  for (int w = 0; w < workers; ++w) {
    Share& share = shares_[static_cast<size_t>(w)];
    share.next.store(region_.items * w / workers, std::memory_order_relaxed);
    share.end = region_.items * (w + 1) / workers;
  }
}

void Team::work(int worker) {
  const size_t count = shares_.size();
  const auto own = static_cast<size_t>(worker);
  if (own >= count) return;  // woken late, by the call of an earlier region
  for (size_t i = 0; i < count; ++i) work_on(shares_[(own + i) % count], worker);
}

void Team::work_on(Share& share, int worker) {
  try {
    while (share.next.load(std::memory_order_relaxed) < share.end && !failed_.load()) {
      const int64_t item = share.next.fetch_add(1, std::memory_order_relaxed);
      if (item < share.end) region_.call(region_.body, item, worker);
    }
  } catch (...) {
    if (!failed_.exchange(true)) exception_ = std::current_exception();
  }
}

// From here on nobody enters; returns when all have left.
void Team::close() {
  uint32_t gate = gate_.fetch_or(kClosed) | kClosed;
  while (gate != kClosed) {
    await_change(gate_, gate, caller_asleep_, spins_.load(std::memory_order_relaxed));
    gate = gate_.load();
  }
}

void Team::run(int threads, const TeamRegion& region) {
  const int wanted = static_cast<int>(std::min<int64_t>(threads, region.items)) - 1;
  if (static_cast<int>(members_.size()) < wanted) grow(wanted);
  region_ = region;
  // A member that spins where threads outnumber cores takes the core of one that has work.
  spins_.store(threads <= cores_, std::memory_order_relaxed);
  failed_.store(false);
  const int called = std::min(wanted, static_cast<int>(members_.size()));
  deal(called + 1);
  gate_.store(0);
  call_members(called);
  inside = true;
  work(0);
  inside = false;
  close();
  if (failed_.load()) std::rethrow_exception(std::exchange(exception_, nullptr));
}

/// The team that a fork made useless. It is leaked on purpose, and stays reachable so that leak
/// checkers do not report it.
std::atomic<const Team*> left_behind{nullptr};

/// The team of one thread. A fork leaves it without members in the child: it is given up there, not
/// freed, since threads that do not exist cannot be joined.
class OwnTeam {
 public:
  OwnTeam() = default;
  ~OwnTeam() { give_up_after_fork(); }
  OwnTeam(const OwnTeam&) = delete;
  OwnTeam& operator=(const OwnTeam&) = delete;

  Team& get() {
    give_up_after_fork();
    if (team_ == nullptr) {
      team_ = std::make_unique<Team>();
      born_ = forks.load();
    }
    return *team_;
  }

 private:
  void give_up_after_fork() {
    if (team_ == nullptr || born_ == forks.load()) return;
    left_behind.store(team_.release());
  }

  std::unique_ptr<Team> team_;
  uint32_t born_ = 0;
};

Team& own_team() {
  static const int kWatching = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });
  ADDER_CHECK(kWatching == 0);
  thread_local OwnTeam own;
  return own.get();
}

}  // namespace

void run_on_team(int threads, const TeamRegion& region) {
  if (!inside && threads > 1 && region.items > 1) return own_team().run(threads, region);
  for (int64_t item = 0; item < region.items; ++item) region.call(region.body, item, 0);
}

}  // namespace adder
