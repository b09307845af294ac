// Timing by the clock of the device: the median of repeated runs and their spread.
#pragma once

#include <functional>

#include "core/context.h"

namespace adder::measure {

struct Timing {
  double median_us = 0;
  double best_us = 0;  // the shortest run: what the machine gave when nobody else used it
  double spread = 0;   // (90th - 10th percentile) / median
  int runs = 0;
};

/// Runs once to warm up, then at least `min_runs` times and `min_seconds` long (at most
/// max_seconds), on the device and stream of `context`.
Timing time_runs(const std::function<void()>& run, int min_runs = 20, double min_seconds = 0.2,
                 double max_seconds = 5.0, const Context& context = {});

}  // namespace adder::measure
