#include "apps/command_line.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <new>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/output.h"
#include "core/error.h"
#include "core/simd_targets.h"
#include "measure/machine.h"

namespace adder::apps {
namespace {

constexpr int kFailure = 1;
constexpr int kWrongUsage = 2;

void add_commands(CLI::App& app) {
  add_train_command(app);
  add_op_command(app);
  add_bench_command(app);
  add_info_command(app);
  add_tokenize_command(app);
  add_generate_command(app);
  add_eval_command(app);
  add_logits_command(app);
}

std::string version_text() {
  const measure::Machine& machine = measure::this_machine();
  return fmt::format("adder {} (commit {}, {}, {})", ADDER_VERSION, machine.commit,
                     machine.compiler, simd_target_name());
}

int report(const char* message, int code) {
  std::fflush(stdout);
  std::fprintf(stderr, "adder: error: %s\n", message);
  return code;
}

// A closed descriptor 0, 1 or 2 would be given to the next file that is opened, and what is meant
// for
// the terminal would end up inside of it. Opened the wrong way round, so that its use still fails.
void occupy_standard_descriptors() {
  for (const int descriptor : {0, 1, 2}) {
    if (fcntl(descriptor, F_GETFD) == -1 && errno == EBADF) {
      [[maybe_unused]] const int taken = open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY);
    }
  }
}

// CLI11 only says that a command is required; we name the nearest one.
void check_command_name(const CLI::App& app, int argc, char** argv) {
  if (argc < 2) throw UsageError("a command is required; see adder --help");
  const std::string word = argv[1];
  if (word.rfind('-', 0) == 0) {
    if (app.get_option_no_throw(word) != nullptr) return;
    throw UsageError(fmt::format("unknown option '{}'; see adder --help", word));
  }
  std::vector<std::string> known;
  for (const CLI::App* command : app.get_subcommands({})) known.push_back(command->get_name());
  if (std::find(known.begin(), known.end(), word) != known.end()) return;
  const std::string nearest = nearest_name(word, known);
  throw UsageError(fmt::format("unknown command '{}'{}; see adder --help", word,
                               nearest.empty() ? "" : ", did you mean '" + nearest + "'?"));
}

int parse_and_run(CLI::App& app, int argc, char** argv) {
  try {
    check_command_name(app, argc, argv);
    app.parse(argc, argv);
    flush_output();
    return 0;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) {
      const auto chosen = app.get_subcommands();
      const std::string name = chosen.empty() ? "" : chosen.front()->get_name() + " ";
      return report(fmt::format("{}; see adder {}--help", error.what(), name).c_str(), kWrongUsage);
    }
    app.exit(error);  // --help, --version
    flush_output();
    return 0;
  }
}

int run_guarded(int argc, char** argv) {
  try {
    CLI::App app("Adder trains, runs and measures Mamba state space models.", "adder");
    app.set_version_flag("--version", version_text);
    app.require_subcommand(1);
    app.set_help_flag("--help,-h", "Print this help and exit");
    add_commands(app);
    return parse_and_run(app, argc, argv);
  } catch (const ExitWith& exit) {
    return exit.code;
  } catch (const ReaderGone&) {
    return kFailure;
  } catch (const UsageError& error) {
    return report(error.what(), kWrongUsage);
  } catch (const std::bad_alloc&) {
    return report("out of memory", kFailure);
  } catch (const std::exception& error) {
    return report(error.what(), kFailure);
  } catch (...) {
    return report("unknown failure", kFailure);
  }
}

}  // namespace

int run_command_line(int argc, char** argv) {
  occupy_standard_descriptors();
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is reported by the write that meets it
  const int code = run_guarded(argc, argv);
  // What an error path left in the buffer must not fail silently either.
  try {
    flush_output();
  } catch (const ReaderGone&) {
    return code == 0 ? kFailure : code;
  } catch (const std::exception& error) {
    return code == 0 ? report(error.what(), kFailure) : code;
  }
  return code;
}

}  // namespace adder::apps
