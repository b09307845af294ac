#include "apps/bench.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "apps/bench_duality.h"
#include "apps/commands.h"
#include "apps/output.h"
#include "core/context.h"
#include "core/error.h"
#include "core/simd_targets.h"
#include "measure/machine.h"

namespace adder::apps {

std::vector<ModelBench> model_benches() {
  return {{"train", "whole optimizer steps", run_train_bench},
          {"decode", "one-token steps and prefill of a 130M-class model", run_decode_bench}};
}

namespace {

/// Named only: it compares forms of one family, and takes longer than their rows.
constexpr const char* kDuality = "duality";

struct BenchCommand {
  std::string family;
  std::vector<int> threads;
  std::vector<std::string> filters;
  std::string simd;
  double min_seconds = 0.2;
  bool no_reference = false;
  bool json = false;
  std::string plot;
  int64_t longest = 16384;
};

/// The mask bit of a SIMD target; 0 for an empty name: the best one.
int64_t target_bits(const std::string& name) {
  if (name.empty()) return 0;
  std::vector<std::string> known;
  for (const SimdTarget& target : simd_targets()) {
    if (target.name == name) return target.bits;
    known.push_back(target.name);
  }
  throw UsageError({"unknown SIMD target, or not one of this CPU", "--simd",
                    fmt::format("{}", fmt::join(known, ", ")), name});
}

// Kernels are compiled for several instruction sets: this one for as long as it lives.
class ForcedTarget {
 public:
  explicit ForcedTarget(int64_t bits) { force_simd_target(bits); }
  ~ForcedTarget() { force_simd_target(0); }
  ForcedTarget(const ForcedTarget&) = delete;
  ForcedTarget& operator=(const ForcedTarget&) = delete;
};

/// Wrong usage is said before anything is measured.
void check_choice(const measure::BenchOptions& options) {
  std::set<std::string> known = {kDuality};
  bool models = false;
  for (const ModelBench& bench : model_benches()) {
    known.insert(bench.name);
    models |= options.family.empty() || options.family == bench.name;
  }
  bool kernels = false;
  for (const auto& variant : measure::all_variants(measure::Purpose::bench)) {
    known.insert(variant.family);
    kernels |= measure::picks(options, variant);
  }
  if (!options.family.empty() && known.count(options.family) == 0) {
    throw UsageError(
        {"unknown family", "bench", fmt::format("{}", fmt::join(known, ", ")), options.family});
  }
  if (!kernels && !models) {
    throw UsageError({"nothing to measure", "bench", "a row that contains every filter",
                      fmt::format("{}", fmt::join(options.filters, ", "))});
  }
}

void print_heading(const BenchCommand& command, const std::vector<int>& threads) {
  if (!command.json) {
    const measure::Machine& machine = measure::this_machine();
    put_line(fmt::format("{}, {} cores; {}; commit {}; {}", machine.cpu, machine.cores,
                         machine.compiler, machine.commit, measure::utc_now()));
  }
  for (const int count : threads) {
    const measure::Ceilings& found = measure::ceilings(count);
    put_line(command.json ? measure::json_line(found) : measure::describe(found));
  }
}

void run_bench_command(const BenchCommand& command) {
  measure::BenchOptions options;
  options.family = command.family;
  options.filters = command.filters;
  options.threads = command.threads;
  if (options.threads.empty()) options.threads.push_back(available_threads());
  options.min_seconds = command.min_seconds;
  options.reference = !command.no_reference;
  const int64_t bits = target_bits(command.simd);
  const bool duality = command.family == kDuality;
  if (!duality) check_choice(options);

  print_heading(command, options.threads);  // the machine's own ceilings: no target is forced yet
  const ForcedTarget target(bits);
  if (!command.json) {
    put_line(fmt::format("kernels on {}", simd_target_name()));
    if (!duality) put_line(measure::table_heading());
  }
  if (duality) {
    for (const int threads : options.threads) {
      run_duality_bench(
          {threads, command.min_seconds, command.longest, command.json, command.plot});
    }
    return;
  }
  int rows = 0;
  const auto sink = [&](const measure::BenchRow& row) {
    ++rows;
    put_line(command.json ? measure::json_line(row) : measure::table_line(row));
  };
  int refused = measure::run_bench(options, sink);
  for (const ModelBench& bench : model_benches()) {
    if (command.family.empty() || command.family == bench.name) refused += bench.run(options, sink);
  }
  if (refused > 0) {
    throw Error(fmt::format("{} of {} rows refused: their check failed", refused, rows));
  }
}

}  // namespace

void add_bench_command(CLI::App& app) {
  auto command = std::make_shared<BenchCommand>();
  CLI::App* bench = app.add_subcommand(
      "bench", "Check and time every implementation against what the machine allows");
  std::string models;
  for (const ModelBench& one : model_benches()) models += "; " + one.name + ": " + one.what;
  bench->add_option("FAMILY", command->family,
                    "A kernel family of `adder info kernels` (default: all)" + models +
                        "; duality: the three forms of SSD against length");
  bench
      ->add_option("--filter", command->filters,
                   "Only rows that contain this, e.g. backward or bf16 (repeat for more)")
      ->allow_extra_args(false);
  bench->add_option("--threads", command->threads, "Threads, e.g. 1,2 (default: all cores)")
      ->delimiter(',')
      ->check(CLI::Range(1, 256));
  bench->add_option("--simd", command->simd, "Run the kernels on this SIMD target, e.g. AVX2");
  bench->add_option("--min-time", command->min_seconds, "Seconds timed for each row (0.2)")
      ->check(CLI::Range(0.0, 3600.0));
  bench->add_flag("--no-reference", command->no_reference, "Leave out the ratio to the reference");
  bench->add_option("--plot", command->plot, "duality: folder of the plot (SVG and PNG)");
  bench->add_option("--longest", command->longest, "duality: longest sequence, tokens (16384)")
      ->check(CLI::Range(int64_t{128}, int64_t{65536}));
  bench->add_flag("--json", command->json, "Print one JSON object a line");
  bench->callback([command] { run_bench_command(*command); });
}

}  // namespace adder::apps
