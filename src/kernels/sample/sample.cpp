#include "kernels/sample/sample.h"

#include <fmt/format.h>

#include <cmath>

#include "core/door.h"
#include "kernels/sample/rows.h"

namespace adder {
namespace {

constexpr Door kDoor("sample");

// Three passes of a nanosecond an element.
double predict_us(const Caps&, const SampleShape& shape, Direction) {
  return 1.0 + static_cast<double>(shape.rows * shape.vocab) * 3e-3 / kPredictedThreads;
}

void require(bool good, const char* option, const char* expected, double got) {
  if (!good) {
    throw Error({"option out of range", fmt::format("sampling {}", option), expected,
                 fmt::format("{}", got)});
  }
}

}  // namespace

void SamplingOptions::check() const {
  require(std::isfinite(temperature) && temperature >= 0, "temperature", ">= 0", temperature);
  require(top_k >= 0, "top_k", ">= 0", static_cast<double>(top_k));
  require(top_p >= 0 && top_p <= 1, "top_p", "in [0, 1]", top_p);
  require(min_p >= 0 && min_p <= 1, "min_p", "in [0, 1]", min_p);
  require(std::isfinite(repetition_penalty) && repetition_penalty > 0, "repetition_penalty", "> 0",
          repetition_penalty);
}

void SampleShape::check() const {
  kDoor.at_least("rows", rows, 0);
  kDoor.at_least("vocab", vocab, 1);
}

Cost SampleShape::cost() const {
  const double elements = static_cast<double>(rows) * static_cast<double>(vocab);
  Cost cost;
  cost.flops = 3 * elements;  // maximum, shift, sum
  cost.exps = elements;
  cost.bytes = elements * sizeof(float);
  return cost;
}

std::string SampleShape::describe() const { return fmt::format("rows{} vocab{}", rows, vocab); }

std::span<const SampleLine> sample_lines() {
  static constexpr SampleLine kLines[] = {{cpu_line<float>("sequential", 1),
                                           accepts_all,
                                           predict_us,
                                           sample_rows_scratch,
                                           {sample_rows}}};
  return kLines;
}

void sample_tokens(Context& context, const SampleShape& shape, const SampleArgs& args,
                   const Choice& choice) {
  shape.check();
  kDoor.array("logits", args.logits, shape.rows);
  kDoor.row_stride("logit_stride", args.logit_stride, shape.rows, shape.vocab);
  kDoor.array("options", args.options, shape.rows);
  kDoor.array("ids", args.ids, shape.rows);
  run_line(context, kDoor.family(), sample_lines(), shape, Direction::forward, args, choice);
}

}  // namespace adder
