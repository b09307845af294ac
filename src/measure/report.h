// The bench driver checks every accepted variant, times it and sets it against its floor. It
// refuses a line whose check fails: the row says why and carries no time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "measure/ceilings.h"
#include "measure/variant.h"

namespace adder::measure {

enum class RowStatus : uint8_t {
  timed,    // checked and timed
  refused,  // its check failed (why)
  skipped,  // the line does not accept the shape here
};
const char* row_status_name(RowStatus status);

struct BenchRow {
  std::string family;
  std::string line;
  std::string direction;
  std::string dtype;
  std::string shape;
  std::string simd;  // the SIMD target in use
  int threads = 1;
  RowStatus status = RowStatus::timed;
  std::string why;            // of a refusal
  double worst_of_limit = 0;  // error / tolerance of the worst element; <= 1 passes
  double median_us = 0;
  double best_us = 0;  // the shortest run
  double spread = 0;   // (90th - 10th percentile) / median
  int runs = 0;
  double gb_per_s = 0;  // compulsory bytes / median
  double gflop_per_s = 0;
  double gexp_per_s = 0;
  double floor_us = 0;            // max(bytes / bandwidth, flops / peak + exps / exp rate)
  std::string bound;              // the larger of these: "bytes", "flops" or "exps"
  double percent_of_floor = 0;    // 100 floor / median: 100 is all that the machine allows
  double ratio_to_reference = 0;  // time of the reference / median; 0: not timed
  double tokens_per_s = 0;        // whole models only
};

struct BenchOptions {
  /// Every entry must occur in "family line direction dtype shape". A family's own name is an
  /// entry.
  std::vector<std::string> filters;
  std::string family;        // exactly this family (empty: all)
  std::vector<int> threads;  // each row is measured for each; empty: all cores
  double min_seconds = 0.2;  // timed a row
  bool reference = true;     // time the reference too
};
using RowSink = std::function<void(const BenchRow&)>;

/// Whether the options pick this variant.
bool picks(const BenchOptions& options, const Variant& variant);

/// Runs all variants of Purpose::bench that the options pick; rows arrive as they are measured.
/// Returns the number of rows that were refused.
int run_bench(const BenchOptions& options, const RowSink& sink);
/// The same over given variants.
int run_bench(const std::vector<Variant>& variants, const BenchOptions& options,
              const RowSink& sink);

/// Rates, floor and per cent of a row whose median and cost are known.
void set_rates(BenchRow& row, const Cost& cost, Dtype arithmetic);

/// One JSON object on one line, with commit, machine, compiler and date; "kind" tells rows from
/// ceilings.
std::string json_line(const BenchRow& row);
std::string json_line(const Ceilings& ceilings);

/// The table for people: a heading and one line a row.
std::string table_heading();
std::string table_line(const BenchRow& row);

}  // namespace adder::measure
