// The team behind parallel_for: every item once, whatever happens around it.
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/context.h"
#include "core/threads.h"

#if defined(__SANITIZE_THREAD__)
#define ADDER_UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ADDER_UNDER_TSAN 1
#endif
#endif

namespace adder {
namespace {

// Plain counters, so that the thread sanitizer sees an item that runs twice or outlives its region.
std::vector<int> count_items(int threads, int64_t items) {
  std::vector<int> hits(static_cast<size_t>(items));
  parallel_for(threads, items, [&](int64_t item) { ++hits[static_cast<size_t>(item)]; });
  return hits;
}

TEST(ThreadTeam, EveryItemRunsOnce) {
  const int many = 3 * available_threads() + 1;
  for (const int threads : {1, 2, 3, many, 2, many, 1}) {
    for (const int64_t items : {0, 1, 2, 3, 7, 101}) {
      EXPECT_EQ(count_items(threads, items), std::vector<int>(static_cast<size_t>(items), 1))
          << threads << " threads";
    }
  }
}

// Thousands of short regions whose thread count changes: members that wake late find the region
// closed, or another one that has no room for them. Now and then an item takes long enough for
// members to come in.
TEST(ThreadTeam, ShortRegionsFollowOneAnother) {
  for (int region = 0; region < 20000; ++region) {
    const int threads = 2 + region % 3;
    const int64_t items = 2 + region % 5;
    int64_t done[8] = {};
    parallel_for_workers(threads, items, [&](int64_t item, int worker) {
      ASSERT_LT(worker, threads);
      const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(3);
      while (region % 8 == 0 && std::chrono::steady_clock::now() < end) {
      }
      ++done[item];
    });
    for (int64_t item = 0; item < 8; ++item) ASSERT_EQ(done[item], item < items ? 1 : 0) << region;
  }
}

TEST(ThreadTeam, WorkerNamesPrivateScratch) {
  constexpr int kThreads = 4;
  int64_t sums[kThreads] = {};
  for (int region = 0; region < 100; ++region) {
    parallel_for_workers(kThreads, 64, [&](int64_t item, int worker) { sums[worker] += item; });
  }
  int64_t sum = 0;
  for (const int64_t part : sums) sum += part;
  EXPECT_EQ(sum, 100 * 63 * 64 / 2);
}

// The caller holds item 0 until all others are done: somebody else must do those of its share.
TEST(ThreadTeam, FreeWorkersTakeTheItemsOfAWaitingOne) {
  constexpr int64_t kItems = 40;
  std::atomic<int64_t> others{0};
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  parallel_for(2, kItems, [&](int64_t item) {
    if (item != 0) {
      ++others;
      return;
    }
    while (others.load() < kItems - 1 && std::chrono::steady_clock::now() < end) {
      std::this_thread::yield();
    }
    EXPECT_EQ(others.load(), kItems - 1);
  });
}

// The caller leaves its own items quickly, while a member still works on one.
TEST(ThreadTeam, TheCallerWaitsForItemsInOtherHands) {
  const std::thread::id caller = std::this_thread::get_id();
  for (int region = 0; region < 20; ++region) {
    std::atomic<bool> begun{false};
    std::atomic<bool> done{false};
    parallel_for(2, 2, [&](int64_t) {
      if (std::this_thread::get_id() == caller) {
        for (int wait = 0; wait < 100 && !begun.load(); ++wait) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        return;
      }
      begun.store(true);
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      done.store(true);
    });
    ASSERT_EQ(done.load(), begun.load());
  }
}

TEST(ThreadTeam, NestedRegionsAreSerial) {
  std::vector<int> hits(8 * 16);
  parallel_for(3, 8, [&](int64_t outer) {
    const std::thread::id self = std::this_thread::get_id();
    parallel_for_workers(3, 16, [&](int64_t inner, int worker) {
      EXPECT_EQ(std::this_thread::get_id(), self);
      EXPECT_EQ(worker, 0);
      ++hits[static_cast<size_t>(outer * 16 + inner)];
    });
  });
  EXPECT_EQ(hits, std::vector<int>(8 * 16, 1));
}

TEST(ThreadTeam, TheFirstExceptionReachesTheCaller) {
  for (const int threads : {1, 2, 3}) {
    for (const int64_t bad : {0, 17, 39}) {
      try {
        parallel_for(threads, 40, [&](int64_t item) {
          if (item == bad) throw std::runtime_error("item " + std::to_string(item));
        });
        FAIL() << "nothing was thrown";
      } catch (const std::runtime_error& error) {
        EXPECT_EQ(error.what(), "item " + std::to_string(bad));
      }
      EXPECT_EQ(count_items(threads, 40), std::vector<int>(40, 1));
    }
  }
}

TEST(ThreadTeam, CallersDoNotShareATeam) {
  std::vector<std::thread> callers;
  std::vector<int> wrong(4);
  for (size_t c = 0; c < wrong.size(); ++c) {
    callers.emplace_back([&wrong, c] {
      for (int region = 0; region < 200; ++region) {
        wrong[c] += count_items(2, 33) != std::vector<int>(33, 1) ? 1 : 0;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(ThreadTeam, IdleMembersSleep) {
  count_items(available_threads() + 1, 64);
  count_items(2, 64);
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const double seconds = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  EXPECT_LT(seconds, 0.05);
}

TEST(ThreadTeam, SignalsGoToTheThreadsOfTheProgram) {
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> members{0};
  std::atomic<int> blocking{0};
  // Until a member has had an item.
  for (int region = 0; region < 1000 && members.load() == 0; ++region) {
    parallel_for(2, 2, [&](int64_t) {
      if (std::this_thread::get_id() == caller) {
        return std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      sigset_t mask;
      pthread_sigmask(SIG_SETMASK, nullptr, &mask);
      blocking += sigismember(&mask, SIGINT);
      ++members;
    });
  }
  EXPECT_GT(members.load(), 0);
  EXPECT_EQ(blocking.load(), members.load());
}

// Runs the destructors of thread-local objects, unlike _exit, but no leak check: it would count
// what members that do not exist in the child own.
[[noreturn]] void leave_child(int status) {
  static int code = 0;
  code = status;
  std::atexit([] { _exit(code); });
  std::exit(status);
}

TEST(ThreadTeam, AChildOfForkHasItsOwn) {
#ifdef ADDER_UNDER_TSAN
  GTEST_SKIP() << "the thread sanitizer starts no threads after a fork";
#endif
  // Both workers have met: one that is still starting may hold locks of the address sanitizer, and
  // the child would wait for them.
  std::atomic<int> met{0};
  parallel_for(2, 2, [&](int64_t) {
    for (++met; met.load() < 2;) std::this_thread::yield();
  });
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const bool same = count_items(2, 64) == std::vector<int>(64, 1) &&
                      count_items(3, 64) == std::vector<int>(64, 1);
    leave_child(same ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  const pid_t idle = fork();
  ASSERT_GE(idle, 0);
  if (idle == 0) leave_child(0);  // a team that it never used
  ASSERT_EQ(waitpid(idle, &status, 0), idle);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace adder
