#include "apps/bench.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <set>

#include "apps/commands.h"
#include "apps/output.h"
#include "core/context.h"
#include "core/error.h"
#include "core/simd_targets.h"
#include "measure/machine.h"

namespace adder::apps {

std::vector<ModelBench> model_benches() {
  return {{"train", "whole optimizer steps", run_train_bench}};
}

namespace {

struct BenchCommand {
  std::string family;
  std::vector<int> threads;
  std::vector<std::string> filters;
  std::string simd;
  double min_seconds = 0.2;
  bool no_reference = false;
  bool json = false;
};

// Kernels are compiled for several instruction sets: this one for as long as it lives.
class ForcedTarget {
 public:
  explicit ForcedTarget(const std::string& name) {
    if (name.empty()) return;
    std::string known;
    for (const SimdTarget& target : simd_targets()) {
      if (target.name == name) {
        force_simd_target(target.bits);
        return;
      }
      known += (known.empty() ? "" : ", ") + target.name;
    }
    throw UsageError({"unknown SIMD target, or not one of this CPU", "--simd", known, name});
  }
  ~ForcedTarget() { force_simd_target(0); }
  ForcedTarget(const ForcedTarget&) = delete;
  ForcedTarget& operator=(const ForcedTarget&) = delete;
};

void check_family(const std::string& family, const std::vector<measure::Variant>& variants) {
  std::set<std::string> known;
  for (const auto& variant : variants) known.insert(variant.family);
  for (const auto& bench : model_benches()) known.insert(bench.name);
  if (family.empty() || known.count(family) != 0) return;
  throw UsageError({"unknown family", "bench", fmt::format("{}", fmt::join(known, ", ")), family});
}

void run_bench_command(const BenchCommand& command) {
  measure::BenchOptions options;
  options.family = command.family;
  options.filters = command.filters;
  options.threads = command.threads;
  if (options.threads.empty()) options.threads.push_back(available_threads());
  options.min_seconds = command.min_seconds;
  options.reference = !command.no_reference;
  const auto variants = measure::all_variants(measure::Purpose::bench);
  check_family(command.family, variants);

  if (!command.json) {
    const measure::Machine& machine = measure::this_machine();
    put_line(fmt::format("{}, {} cores; {}; commit {}; {}", machine.cpu, machine.cores,
                         machine.compiler, machine.commit, measure::utc_now()));
  }
  for (const int threads : options.threads) {  // before a target is forced: the machine's own
    const measure::Ceilings& found = measure::ceilings(threads);
    put_line(command.json ? measure::json_line(found) : measure::describe(found));
  }
  const ForcedTarget target(command.simd);
  if (!command.json) {
    put_line(fmt::format("kernels on {}", simd_target_name()));
    put_line(measure::table_heading());
  }
  int rows = 0;
  const auto sink = [&](const measure::BenchRow& row) {
    ++rows;
    put_line(command.json ? measure::json_line(row) : measure::table_line(row));
  };
  int refused = measure::run_bench(variants, options, sink);
  for (const ModelBench& bench : model_benches()) {
    if (command.family.empty() || command.family == bench.name) refused += bench.run(options, sink);
  }
  if (rows == 0)
    throw UsageError({"nothing to measure", "bench", "a row that all filters pick", {}});
  if (refused > 0)
    throw Error(fmt::format("{} of {} rows refused: their check failed", refused, rows));
}

}  // namespace

void add_bench_command(CLI::App& app) {
  auto command = std::make_shared<BenchCommand>();
  CLI::App* bench = app.add_subcommand(
      "bench", "Check and time every implementation against what the machine allows");
  std::string models;
  for (const ModelBench& one : model_benches()) models += "; " + one.name + ": " + one.what;
  bench->add_option("FAMILY", command->family,
                    "A kernel family of `adder info kernels` (default: all)" + models);
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
  bench->add_flag("--json", command->json, "Print one JSON object a line");
  bench->callback([command] { run_bench_command(*command); });
}

}  // namespace adder::apps
