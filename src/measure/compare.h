// The tolerance rule of design.md section 6, element by element:
//   |got - expected| <= max(2 E, 8 u S)
// expected: the double-precision reference; E: |reference evaluated in the dtype - expected|; S:
// the reference on absolute values; u: unit roundoff of the output type, or of the type that
// operands of products were rounded to where that is coarser. Results below the smallest
// normal number of the output type are allowed to flush to zero.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace adder::measure {

/// One output tensor, everything widened to double.
struct OutputCheck {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<double> got;
  std::vector<double> expected;   // reference in double
  std::vector<double> evaluated;  // reference in the dtype (may be empty: E = 0)
  std::vector<double> absolute;   // reference on absolute values
  // Coarsest type that an operand was rounded to, if coarser than dtype.
  Dtype product = Dtype::f64;
};

/// The worst element over all outputs of one check.
struct Comparison {
  bool accepted = true;  // false: the line does not take the shape, nothing ran
  bool empty = false;    // the outputs have no elements to compare
  double worst = 0;      // max of error / limit; infinity where got is not finite and should be
  std::string worst_at;  // "du[17]: got 1.5, expected 1.25, limit 1e-7"
  int64_t elements = 0;  // compared
  std::vector<std::string> faults;  // canary overwritten, output not written, input changed, ...

  bool passed() const {
    return accepted && worst <= 1.0 && faults.empty() && (elements > 0 || empty);
  }
  void add(const OutputCheck& output);
  void add_fault(std::string fault) { faults.push_back(std::move(fault)); }
  std::string describe() const;
};

}  // namespace adder::measure
