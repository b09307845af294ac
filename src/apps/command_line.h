// The command line `adder`: parsing, errors, exit codes.
#pragma once

namespace adder::apps {

/// 0: done; 1: failure; 2: wrong usage. Errors go to stderr as "adder: error: ...". Nothing is
/// thrown.
int run_command_line(int argc, char** argv);

}  // namespace adder::apps
