#include "measure/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace adder::measure {
namespace {

struct Range {
  double largest;
  double smallest_normal;
};

Range range_of(Dtype type) {
  switch (type) {
    case Dtype::f64:
      return {std::numeric_limits<double>::max(), std::numeric_limits<double>::min()};
    case Dtype::f16:
      return {65504.0, 0x1p-14};
    default:  // bf16 has the exponents of f32
      return {std::numeric_limits<float>::max(), std::numeric_limits<float>::min()};
  }
}

// error / limit of one element; infinity where no limit can excuse it.
double ratio(const OutputCheck& output, size_t i, double* limit) {
  const Range range = range_of(output.dtype);
  const double expected = output.expected[i];
  const double got = output.got[i];
  const double e = output.evaluated.empty() ? 0.0 : std::abs(output.evaluated[i] - expected);
  const double s = output.absolute.empty() ? std::abs(expected) : output.absolute[i];
  const double u = std::max(unit_roundoff(output.dtype), unit_roundoff(output.product));
  *limit = std::max(2.0 * (std::isfinite(e) ? e : 0.0), 8.0 * u * s) + range.smallest_normal;
  if (std::abs(expected) > range.largest || !std::isfinite(expected)) {
    // The exact result does not fit: infinity, NaN or the largest number are all honest answers.
    return 0.0;
  }
  if (!std::isfinite(got)) return std::numeric_limits<double>::infinity();
  return std::abs(got - expected) / *limit;
}

}  // namespace

void Comparison::add(const OutputCheck& output) {
  ADDER_CHECK(output.got.size() == output.expected.size());
  for (size_t i = 0; i < output.got.size(); ++i) {
    double limit = 0;
    const double r = ratio(output, i, &limit);
    ++elements;
    if (r > worst || std::isnan(r)) {
      worst = std::isnan(r) ? std::numeric_limits<double>::infinity() : r;
      worst_at = fmt::format("{}[{}]: got {:.9g}, expected {:.9g}, limit {:.3g}", output.name, i,
                             output.got[i], output.expected[i], limit);
    }
  }
}

std::string Comparison::describe() const {
  std::string text = fmt::format("worst {:.3f} of the limit over {} elements", worst, elements);
  if (!worst_at.empty()) text += " at " + worst_at;
  for (const auto& fault : faults) text += "; " + fault;
  return text;
}

}  // namespace adder::measure
