// Every line of every kernel table, for `adder info kernels`.
#pragma once

#include <string>
#include <vector>

#include "core/kernel_table.h"

namespace adder::apps {

struct KernelRow {
  std::string family;     // as `adder bench` names it
  std::string operation;  // of a family with several: "adamw"; else its name
  LineInfo info;
  std::string types;  // storage types in the order of its templates: "bf16 bf16 f32" for A, B, C
  std::vector<Direction> directions;
};

std::vector<KernelRow> kernel_rows();

}  // namespace adder::apps
