// The test driver and the bench driver read variants: every line of every family on every shape.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "measure/call.h"

namespace adder::measure {

/// Arguments of one call, allocated and filled, ready to be run again and again.
class Prepared {
 public:
  virtual ~Prepared() = default;
  virtual void run() = 0;
};

/// One line of a family's table in one direction on one shape.
struct Variant {
  std::string family;
  LineInfo line;
  Direction direction = Direction::forward;
  std::string shape;  // describe() of the shape plus the options that are on
  Cost cost;
  /// See check_call. A line that does not accept the shape here says so: it is listed as skipped.
  std::function<Comparison(const RunOptions&)> check;
  /// For timing: arguments filled with realistic random values.
  std::function<std::unique_ptr<Prepared>(const RunOptions&)> prepare;
  /// The reference on the same arguments ("ratio to the reference"), for the bench.
  std::function<std::unique_ptr<Prepared>(const RunOptions&)> prepare_reference;
};

enum class Purpose : uint8_t { test, bench };

struct Family {
  const char* name;
  /// test: many awkward shapes, small; bench: the shapes of real models.
  std::vector<Variant> (*variants)(Purpose purpose);
  bool every_shape;  // its lines take every shape here
};
std::span<const Family> families();
std::vector<Variant> all_variants(Purpose purpose);

// One function a family, in <family>_variants.cpp.
std::vector<Variant> s6_variants(Purpose purpose);
std::vector<Variant> ssd_variants(Purpose purpose);
std::vector<Variant> ssd_product_variants(Purpose purpose);  // products of its chunks alone
std::vector<Variant> conv1d_variants(Purpose purpose);
std::vector<Variant> norm_variants(Purpose purpose);
std::vector<Variant> gemm_variants(Purpose purpose);
std::vector<Variant> embed_variants(Purpose purpose);
std::vector<Variant> pointwise_variants(Purpose purpose);
std::vector<Variant> loss_variants(Purpose purpose);
std::vector<Variant> optim_variants(Purpose purpose);
std::vector<Variant> sample_variants(Purpose purpose);

}  // namespace adder::measure
