// The one place that opens OpenMP regions. Work is cut by shape: `items` must not depend on
// `threads`, and an item must write only what no other item touches; then the bits are the same
// for every thread count.
#pragma once

#include <omp.h>

#include <cstdint>

namespace adder {

/// Calls body(item) once for each item in [0, items), in any order, on up to `threads` threads.
template <class Body>
void parallel_for(int threads, int64_t items, const Body& body) {
  if (threads <= 1 || items <= 1) {
    for (int64_t item = 0; item < items; ++item) body(item);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int64_t item = 0; item < items; ++item) body(item);
}

/// As parallel_for, with body(item, worker): worker < threads names the caller's private scratch.
template <class Body>
void parallel_for_workers(int threads, int64_t items, const Body& body) {
  if (threads <= 1 || items <= 1) {
    for (int64_t item = 0; item < items; ++item) body(item, 0);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const int worker = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
    for (int64_t item = 0; item < items; ++item) body(item, worker);
  }
}

}  // namespace adder
