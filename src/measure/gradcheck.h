// Hand-written gradients against central differences in double (math.md section 12).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/rng.h"

namespace adder::measure {

/// One input of the function: its values, which the check changes in place and puts back, and the
/// gradient that is claimed for them.
struct GradInput {
  std::string name;
  std::span<double> values;
  std::span<const double> gradient;
};

struct GradOptions {
  double step = 1e-5;        // times max(1, |x|)
  int64_t max_entries = 64;  // of one input; more are sampled
  uint64_t seed = 1;         // of the sample
};

struct GradReport {
  double worst = 0;      // max |claimed - difference| / largest gradient entry of the same input
  std::string worst_at;  // "du[17]: claimed 1.5, difference 1.25"
  int64_t entries = 0;   // checked

  bool passed(double limit = 1e-7) const { return entries > 0 && worst <= limit; }
};

namespace gradcheck_detail {

/// The entries that are checked: all, or `most` different ones drawn from (seed, name).
inline std::vector<int64_t> sample(const GradInput& input, const GradOptions& options) {
  const auto count = static_cast<int64_t>(input.values.size());
  std::vector<int64_t> entries(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) entries[static_cast<size_t>(i)] = i;
  if (count <= options.max_entries) return entries;
  const uint64_t stream = stream_of(input.name.c_str());
  for (int64_t i = 0; i < options.max_entries; ++i) {  // the first steps of a Fisher-Yates shuffle
    const auto rest = static_cast<uint64_t>(count - i);
    const auto j = i + static_cast<int64_t>(
                           uniform_below(options.seed, stream, static_cast<uint64_t>(i), rest));
    std::swap(entries[static_cast<size_t>(i)], entries[static_cast<size_t>(j)]);
  }
  entries.resize(static_cast<size_t>(options.max_entries));
  return entries;
}

}  // namespace gradcheck_detail

/// (f(x + h) - f(x - h)) / 2h for entry `at` of `values`, which it restores.
inline double central_difference(const std::function<double()>& f, std::span<double> values,
                                 size_t at, double step) {
  const double x = values[at];
  const double h = step * std::max(1.0, std::abs(x));
  values[at] = x + h;
  const double above = f();
  const double high = values[at];
  values[at] = x - h;
  const double below = f();
  const double width = high - values[at];  // as rounded
  values[at] = x;
  return (above - below) / width;
}

/// Checks every input of the scalar function `f`, which reads the inputs' values where they lie.
/// An input whose gradient is 0 everywhere is measured against the largest entry of all inputs.
inline GradReport check_gradients(const std::function<double()>& f,
                                  std::span<const GradInput> inputs,
                                  const GradOptions& options = {}) {
  GradReport report;
  double largest_of_all = 0;
  for (const GradInput& input : inputs) {
    for (const double g : input.gradient) largest_of_all = std::max(largest_of_all, std::abs(g));
  }
  for (const GradInput& input : inputs) {
    ADDER_CHECK(input.values.size() == input.gradient.size());
    double largest = 0;
    for (const double g : input.gradient) largest = std::max(largest, std::abs(g));
    std::vector<std::pair<size_t, double>> differences;
    for (const int64_t entry : gradcheck_detail::sample(input, options)) {
      const auto at = static_cast<size_t>(entry);
      differences.emplace_back(at, central_difference(f, input.values, at, options.step));
      largest = std::max(largest, std::abs(differences.back().second));
    }
    if (largest <= 1e-9 * largest_of_all) largest = largest_of_all;
    for (const auto& [at, difference] : differences) {
      double error = std::abs(input.gradient[at] - difference);
      if (error != 0) error /= largest;
      if (std::isnan(error)) error = std::numeric_limits<double>::infinity();
      ++report.entries;
      if (error > report.worst) {
        report.worst = error;
        report.worst_at = input.name + "[" + std::to_string(at) + "]: claimed " +
                          std::to_string(input.gradient[at]) + ", difference " +
                          std::to_string(difference);
      }
    }
  }
  return report;
}

}  // namespace adder::measure
