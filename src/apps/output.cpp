#include "apps/output.h"

#include <cerrno>
#include <cstdio>

#include "core/error.h"
#include "core/mapped_file.h"

namespace adder::apps {
namespace {

[[noreturn]] void write_failed(int error_number) {
  if (error_number == EPIPE) throw ReaderGone{};
  throw Error({system_reason(error_number), "standard output", {}, {}});
}

}  // namespace

void put(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) write_failed(errno);
}

void put_line(std::string_view text) {
  put(text);
  put("\n");
  flush_output();
}

void flush_output() {
  if (std::fflush(stdout) != 0) write_failed(errno);
}

}  // namespace adder::apps
