// `adder bench`: kernels come from the tables through measure; whole models add themselves here.
#pragma once

#include <string>
#include <vector>

#include "measure/report.h"

namespace adder::apps {

/// A bench of a whole model: `adder bench NAME`. It reports through the sink as the kernels do,
/// with family = its name; one file a bench, one line in bench.cpp.
struct ModelBench {
  std::string name;
  std::string what;  // for --help
  /// Returns how many rows were refused.
  int (*run)(const measure::BenchOptions& options, const measure::RowSink& sink);
};
std::vector<ModelBench> model_benches();

int run_train_bench(const measure::BenchOptions& options, const measure::RowSink& sink);
int run_decode_bench(const measure::BenchOptions& options, const measure::RowSink& sink);

}  // namespace adder::apps
