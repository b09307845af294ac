// The Highway target that runs; tests can force each of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace adder {

struct SimdTarget {
  int64_t bits;  // Highway's mask bit
  std::string name;
};

/// Every target that was compiled in and that this CPU can run, best first.
std::vector<SimdTarget> simd_targets();
/// Runs one target only, until force_simd_target(0). For tests and benches; not thread-safe.
void force_simd_target(int64_t bits);
/// The name and vector width of the target in use.
std::string simd_target_name();
int simd_vector_bytes();

}  // namespace adder
