// The one place that opens parallel regions. Work is cut by shape: `items` must not depend on
// `threads`, and an item must write only what no other item touches; then the bits are the same
// for every thread count.
#pragma once

#include <cstdint>

#include "core/thread_team.h"

namespace adder {

/// As parallel_for, with body(item, worker): worker < threads names the caller's private scratch.
template <class Body>
void parallel_for_workers(int threads, int64_t items, const Body& body) {
  if (threads <= 1 || items <= 1) {
    for (int64_t item = 0; item < items; ++item) body(item, 0);
    return;
  }
  const auto call = [](const void* context, int64_t item, int worker) {
    (*static_cast<const Body*>(context))(item, worker);
  };
  run_on_team(threads, {call, &body, items});
}

/// Calls body(item) once for each item in [0, items), in any order, on up to `threads` threads. The
/// first exception of a body is thrown to the caller.
template <class Body>
void parallel_for(int threads, int64_t items, const Body& body) {
  parallel_for_workers(threads, items, [&](int64_t item, int) { body(item); });
}

}  // namespace adder
