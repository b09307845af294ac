#include "measure/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/simd_targets.h"
#include "measure/machine.h"
#include "measure/tensors.h"
#include "measure/timing.h"

namespace adder::measure {
namespace {

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      out += c;
    }
  }
  return out + '"';
}

// JSON has no infinity: null.
std::string number(double value) {
  return std::isfinite(value) ? fmt::format("{:.6g}", value) : "null";
}

std::string machine_fields() {
  const Machine& machine = this_machine();
  return fmt::format("\"commit\":{},\"machine\":{},\"cores\":{},\"compiler\":{},\"date\":{}",
                     quoted(machine.commit), quoted(machine.cpu), machine.cores,
                     quoted(machine.compiler), quoted(utc_now()));
}

BenchRow row_of(const Variant& variant, int threads) {
  BenchRow row;
  row.family = variant.family;
  row.line = variant.line.name;
  row.direction = direction_name(variant.direction);
  row.dtype = dtype_name(variant.line.dtype);
  row.shape = variant.shape;
  row.simd = simd_target_name();
  row.threads = threads;
  return row;
}

// Products have their own units for bf16: those of gemm, and of lines that use them. Every other
// kernel computes in f32 there.
Dtype arithmetic_of(const Variant& variant) {
  const bool units = variant.family == "gemm" || variant.line.matrix_units;
  return variant.line.dtype == Dtype::f64 || units ? variant.line.dtype : Dtype::f32;
}

struct Verdict {
  RowStatus status = RowStatus::timed;
  std::string why;
  double worst_of_limit = 0;
};

// One check serves all thread counts, since the bits do not depend on them (the tests hold that):
// at bench shapes it costs seconds of sequential reference.
Verdict verdict_of(const Variant& variant, int threads) {
  const Comparison comparison = variant.check({.threads = threads});
  if (!comparison.accepted) {
    return {RowStatus::skipped, "the line does not accept this shape here", 0};
  }
  if (comparison.passed()) return {RowStatus::timed, "", comparison.worst};
  return {RowStatus::refused, comparison.describe(), comparison.worst};
}

// The lines of one shape share their reference: it is timed once.
class ReferenceTimes {
 public:
  double median_us(const Variant& variant, const BenchRow& row) {
    if (!variant.prepare_reference) return 0;
    const std::string key =
        fmt::format("{} {} {} {}", row.family, row.direction, row.dtype, row.shape);
    double& us = known_[key];
    if (us == 0) {
      // Sequential scalar code: seconds on large shapes, so a few runs have to do.
      const auto prepared = variant.prepare_reference({.threads = row.threads});
      us = time_runs([&] { prepared->run(); }, 3, 0.05, 0.3).median_us;
    }
    return us;
  }

 private:
  std::map<std::string, double> known_;
};

// Times a row that is not refused or skipped.
void time_row(const Variant& variant, const BenchOptions& options, ReferenceTimes& references,
              BenchRow& row) {
  const ArenaLayout layout;
  const RunOptions run{.threads = row.threads};
  const auto prepared = variant.prepare(run);
  const Timing timing = time_runs([&] { prepared->run(); }, 20, options.min_seconds,
                                  std::max(5 * options.min_seconds, 1.0), run.context());
  row.median_us = timing.median_us;
  row.best_us = timing.best_us;
  row.spread = timing.spread;
  row.runs = timing.runs;
  set_rates(row, variant.cost, arithmetic_of(variant));
  if (options.reference) {
    row.ratio_to_reference = references.median_us(variant, row) / row.median_us;
  }
}

}  // namespace

const char* row_status_name(RowStatus status) {
  switch (status) {
    case RowStatus::timed:
      return "timed";
    case RowStatus::refused:
      return "refused";
    default:
      return "skipped";
  }
}

void set_rates(BenchRow& row, const Cost& cost, Dtype arithmetic) {
  const double seconds = row.median_us * 1e-6;
  row.gb_per_s = cost.bytes / seconds / 1e9;
  row.gflop_per_s = cost.flops / seconds / 1e9;
  row.gexp_per_s = cost.exps / seconds / 1e9;
  const Floor floor = floor_of(cost, arithmetic, row.threads);
  row.floor_us = floor.us;
  row.bound = floor.bound;
  row.percent_of_floor = 100.0 * floor.us / row.median_us;
}

bool picks(const BenchOptions& options, const Variant& variant) {
  if (!options.family.empty() && options.family != variant.family) return false;
  const std::string text =
      fmt::format("{} {} {} {} {}", variant.family, variant.line.name,
                  direction_name(variant.direction), dtype_name(variant.line.dtype), variant.shape);
  return std::all_of(options.filters.begin(), options.filters.end(),
                     [&](const auto& filter) { return text.find(filter) != std::string::npos; });
}

int run_bench(const BenchOptions& options, const RowSink& sink) {
  return run_bench(all_variants(Purpose::bench), options, sink);
}

int run_bench(const std::vector<Variant>& variants, const BenchOptions& options,
              const RowSink& sink) {
  std::vector<int> threads = options.threads;
  if (threads.empty()) threads.push_back(available_threads());
  ReferenceTimes references;
  int refused = 0;
  for (const Variant& variant : variants) {
    if (!picks(options, variant)) continue;
    const Verdict verdict = verdict_of(variant, *std::max_element(threads.begin(), threads.end()));
    for (const int count : threads) {
      BenchRow row = row_of(variant, count);
      row.status = verdict.status;
      row.why = verdict.why;
      row.worst_of_limit = verdict.worst_of_limit;
      if (row.status == RowStatus::timed) time_row(variant, options, references, row);
      refused += row.status == RowStatus::refused ? 1 : 0;
      sink(row);
    }
  }
  return refused;
}

std::string json_line(const BenchRow& row) {
  std::string text = fmt::format(
      "{{\"kind\":\"row\",\"family\":{},\"line\":{},\"direction\":{},\"dtype\":{},\"shape\":{},"
      "\"simd\":{},\"threads\":{},\"status\":\"{}\",\"passed\":{},\"worst_of_limit\":{}",
      quoted(row.family), quoted(row.line), quoted(row.direction), quoted(row.dtype),
      quoted(row.shape), quoted(row.simd), row.threads, row_status_name(row.status),
      row.status == RowStatus::timed, number(row.worst_of_limit));
  if (!row.why.empty()) text += fmt::format(",\"why\":{}", quoted(row.why));
  if (row.status == RowStatus::timed) {
    text += fmt::format(
        ",\"median_us\":{},\"best_us\":{},\"spread\":{},\"runs\":{},\"gb_per_s\":{},"
        "\"gflop_per_s\":{},\"gexp_per_s\":{},\"floor_us\":{},\"bound\":{},\"percent_of_floor\":{}",
        number(row.median_us), number(row.best_us), number(row.spread), row.runs,
        number(row.gb_per_s), number(row.gflop_per_s), number(row.gexp_per_s), number(row.floor_us),
        quoted(row.bound), number(row.percent_of_floor));
    if (row.ratio_to_reference > 0) {
      text += fmt::format(",\"ratio_to_reference\":{}", number(row.ratio_to_reference));
    }
    if (row.tokens_per_s > 0) text += fmt::format(",\"tokens_per_s\":{}", number(row.tokens_per_s));
  }
  return text + "," + machine_fields() + "}";
}

std::string json_line(const Ceilings& c) {
  return fmt::format(
      "{{\"kind\":\"ceilings\",\"threads\":{},\"simd\":{},\"buffer_bytes\":{},"
      "\"read_gb_per_s\":{},\"copy_gb_per_s\":{},\"f32_gflop_per_s\":{},\"f64_gflop_per_s\":{},"
      "\"bf16_gflop_per_s\":{},\"bf16_by\":{},\"bf16_product_gflop_per_s\":{},\"f32_gexp_per_s\":{}"
      ",\"f64_gexp_per_s\":{},{}}}",
      c.threads, quoted(c.simd), c.buffer_bytes, number(c.read_bytes_per_s / 1e9),
      number(c.copy_bytes_per_s / 1e9), number(c.f32_flops_per_s / 1e9),
      number(c.f64_flops_per_s / 1e9), number(c.bf16_flops_per_s / 1e9), quoted(c.bf16_by),
      number(c.bf16_product_per_s / 1e9), number(c.f32_exps_per_s / 1e9),
      number(c.f64_exps_per_s / 1e9), machine_fields());
}

std::string table_heading() {
  return fmt::format(
      "{:<10} {:<22} {:<8} {:<5} {:>3} {:>11} {:>11} {:>6} {:>7} {:>8} {:>7} {:<5} {:>8}  {}",
      "family", "line", "dir", "dtype", "thr", "median us", "best us", "spread", "GB/s", "GFLOP/s",
      "% floor", "bound", "x ref", "shape");
}

std::string table_line(const BenchRow& row) {
  std::string text = fmt::format("{:<10} {:<22} {:<8} {:<5} {:>3} ", row.family, row.line,
                                 row.direction, row.dtype, row.threads);
  if (row.status != RowStatus::timed) {
    return text + fmt::format("{}: {} ({})", row_status_name(row.status), row.why, row.shape);
  }
  const std::string ratio =
      row.ratio_to_reference > 0 ? fmt::format("{:.1f}", row.ratio_to_reference) : "-";
  text += fmt::format("{:>11.2f} {:>11.2f} {:>5.0f}% {:>7.1f} {:>8.1f} {:>6.0f}% {:<5} {:>8}  {}",
                      row.median_us, row.best_us, 100 * row.spread, row.gb_per_s, row.gflop_per_s,
                      row.percent_of_floor, row.bound, ratio, row.shape);
  if (row.tokens_per_s > 0) text += fmt::format("  {:.0f} tokens/s", row.tokens_per_s);
  return text;
}

}  // namespace adder::measure
