// The machine and the compiler of a figure: they stand in every line of a report.
#pragma once

#include <string>

namespace adder::measure {

struct Machine {
  std::string commit;    // of the sources, "-dirty" when they were changed; "unknown" without git
  std::string cpu;       // model name
  int cores = 1;         // that this process may use
  std::string compiler;  // "gcc 12.2.0"
};

const Machine& this_machine();

/// Now, as "2026-11-22T06:19:47Z".
std::string utc_now();

}  // namespace adder::measure
