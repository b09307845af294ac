#include "measure/timing.h"

#include <algorithm>
#include <chrono>
#include <vector>

namespace adder::measure {

Timing time_runs(const std::function<void()>& run, int min_runs, double min_seconds,
                 double max_seconds, const Context& context) {
  using Clock = std::chrono::steady_clock;
  DeviceBackend& backend = context.backend();
  run();
  backend.synchronize(context.stream);
  std::vector<double> samples;
  const auto start = Clock::now();
  for (;;) {
    samples.push_back(backend.elapsed_us(context.stream, run));
    const double total = std::chrono::duration<double>(Clock::now() - start).count();
    const bool enough = static_cast<int>(samples.size()) >= min_runs && total >= min_seconds;
    if (enough || (total >= max_seconds && samples.size() >= 3)) break;
  }
  std::sort(samples.begin(), samples.end());
  Timing timing;
  timing.runs = static_cast<int>(samples.size());
  timing.median_us = samples[samples.size() / 2];
  timing.best_us = samples.front();
  const double low = samples[samples.size() / 10];
  const double high = samples[samples.size() * 9 / 10];
  timing.spread = (high - low) / timing.median_us;
  return timing;
}

}  // namespace adder::measure
