// The tests of this room share these: calls with every option, dense, and the lines that take them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "measure/call_laws_test.h"
#include "measure/ssd_call.h"

namespace adder::ssd {

using measure::kBackward;
using measure::kForward;
using measure::SsdCall;
using measure::SsdCase;

template <class T>
SsdCall<T> dense(const SsdShape& shape, std::vector<int32_t> cu = {}) {
  return {SsdCase::dense(shape, std::move(cu)), 1};
}

inline SsdShape sizes(int64_t len, int64_t heads = 2, int64_t head_dim = 5, int64_t state = 3,
                      int64_t groups = 1, int64_t chunk = 16) {
  return {.len = len,
          .heads = heads,
          .head_dim = head_dim,
          .state = state,
          .groups = groups,
          .chunk = chunk};
}

/// The lines of the table that accept the shape here.
template <class T>
std::vector<std::string> lines_for(const SsdShape& shape) {
  std::vector<std::string> names;
  for (const auto& line : ssd_lines<T>()) {
    if (line.accepts(cpu_caps(), shape)) names.emplace_back(line.info.name);
  }
  return names;
}

/// body(choice) for each of them, of which there must be one.
template <class T, class Body>
void for_each_line(const SsdShape& shape, const Body& body) {
  const auto names = lines_for<T>(shape);
  ASSERT_FALSE(names.empty());
  for (const std::string& name : names) body(Choice{.name = name});
}

}  // namespace adder::ssd
