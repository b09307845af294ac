// The threads behind core/threads.h. Every calling thread has a team of its own, made when it first
// asks for more than one thread and joined when it ends, so that callers never wait for one
// another.
//
// A member that runs out of work spins for some microseconds, since the next region of a training
// or decoding step comes soon, then sleeps in the kernel. A caller never waits for a sleeping
// member: one that wakes too late finds the region closed. So a busy machine costs speed, not
// progress.
#pragma once

#include <cstdint>

namespace adder {

/// One parallel region: call(body, item, worker) for each item in [0, items).
struct TeamRegion {
  void (*call)(const void* body, int64_t item, int worker) = nullptr;
  const void* body = nullptr;
  int64_t items = 0;
};

/// Runs the region on the caller (worker 0) and up to `threads` - 1 members of its team; returns
/// when every item is done. Each worker has a run of consecutive items of its own, which it does in
/// order, one at a time, before it takes items of the others: neighbours in memory stay with one
/// worker, and nobody waits for a slow worker's last items. Inside a region the call is serial, as
/// worker 0.
/// The first exception of an item ends the region (items not yet begun are left out) and is thrown
/// to the caller. A child of fork() starts with a team of its own.
void run_on_team(int threads, const TeamRegion& region);

}  // namespace adder
