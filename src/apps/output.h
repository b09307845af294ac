// Standard output of the subcommands. A reader that went away (`adder ... | head -1`) ends the
// command quietly; any other failure to write is an Error.
#pragma once

#include <string_view>

namespace adder::apps {

/// Thrown when the reader of standard output is gone: nothing is left to say.
struct ReaderGone {};

/// Writes `text` as it stands.
void put(std::string_view text);
/// Writes `text` and a line end, and flushes, so that a reader of a slow report sees each line.
void put_line(std::string_view text);
/// Flushes; throws as put does.
void flush_output();

}  // namespace adder::apps
