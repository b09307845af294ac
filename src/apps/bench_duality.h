// `adder bench duality`: the three forms of SSD against each other.
#pragma once

#include <cstdint>
#include <string>

namespace adder::apps {

struct DualityOptions {
  int threads = 1;
  double min_seconds = 0.2;  // timed for each point
  int64_t longest = 16384;   // tokens; lengths double from 1
  bool json = false;
  std::string plot;  // folder of duality.svg and duality.png; empty: none
};
/// Prints tables, or JSON lines; draws the plot.
void run_duality_bench(const DualityOptions& options);

}  // namespace adder::apps
