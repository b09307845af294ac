// One call of `sample`.
#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/ref/sample_ref.h"
#include "kernels/sample/sample.h"
#include "measure/call_options.h"

namespace adder::measure {

struct SampleCase {
  SampleShape shape;
  SamplingOptions options = {};  // of every row
  int64_t pad = 0;               // elements between the rows of logits
  int64_t previous = 0;          // ids so far, of every row
  bool awkward = false;          // ties, NaN and -inf among the logits

  std::string describe() const {
    return OptionText(shape.describe())
        .number(options.temperature, 1.0, "temperature")
        .number<int64_t>(options.top_k, 0, "top_k")
        .number(options.top_p, 1.0, "top_p")
        .number(options.min_p, 0.0, "min_p")
        .number(options.repetition_penalty, 1.0, "penalty")
        .number<int64_t>(pad, 0, "pad")
        .number<int64_t>(previous, 0, "previous")
        .on(awkward, "awkward")
        .text();
  }
};

class SampleCall : public FamilyCall<SampleCall> {
 public:
  using Given = SampleCase;
  using Wide = SampleCall;
  static constexpr Doors<SampleShape, SampleArgs, NoBackward> kDoors = {sample_tokens};

  explicit SampleCall(const Given& c)
      : given(c),
        logits(c.shape.rows * stride()),
        options(c.shape.rows),
        ids(c.shape.rows),
        probability(c.shape.rows * c.shape.vocab) {
    make_arrays(c.previous > 0, c.shape.rows * c.previous, previous);
  }
  SampleCall(const Given& c, uint64_t seed) : SampleCall(c) {
    fill_normal(logits, seed, "sample logits", 2);
    const auto vocab = static_cast<uint64_t>(c.shape.vocab);
    for (int64_t i = 0; i < previous.count(); ++i) {
      previous[i] = static_cast<int32_t>(
          uniform_below(seed, stream_of("sample previous"), static_cast<uint64_t>(i), vocab));
    }
    for (int64_t row = 0; row < c.shape.rows; ++row) {
      options[row] = {.options = c.options,
                      .sequence = 2,
                      .position = static_cast<uint64_t>(row),
                      .previous_begin = row * c.previous,
                      .previous_count = c.previous};
      if (c.awkward) spoil(row);
    }
  }

  int64_t stride() const { return given.shape.vocab + given.pad; }
  SampleArgs forward(Side side) {
    return {logits.at(side),   stride(),     options.at(side),
            previous.at(side), ids.at(side), probability.at(side)};
  }
  void list(ArrayList& arrays) override {
    arrays.input("logits", logits);
    arrays.input("options", options);
    arrays.input("previous", previous);
    arrays.output("ids", ids).not_compared();
    arrays.output("probability", probability);
  }
  /// The distribution; absolute: what rounding the exponents and the sum can do.
  void reference(Direction, bool absolute, const LineInfo*) override {
    const auto vocab = static_cast<size_t>(given.shape.vocab);
    const auto seen = static_cast<size_t>(given.previous);
    for (int64_t row = 0; row < given.shape.rows; ++row) {
      const std::span<const float> x(logits.data() + row * stride(), vocab);
      const std::span<const int32_t> so_far(previous.data() + row * given.previous, seen);
      std::vector<double> p(vocab, 0.0);
      if (has_token(row)) p = ref::sampling_distribution(given.options, x, so_far);
      for (size_t i = 0; i < vocab; ++i) {
        const double size = p[i] > 0 ? 1 - std::log(p[i]) + static_cast<double>(vocab) : 1;
        probability[row * given.shape.vocab + static_cast<int64_t>(i)] =
            absolute ? p[i] * size : p[i];
      }
    }
  }
  // Whatever the order in which ids share the unit interval.
  void check_outputs(Direction, Comparison& comparison) override {
    for (int64_t row = 0; row < given.shape.rows; ++row) {
      const int32_t id = ids[row];
      const bool drawn =
          id >= 0 && id < given.shape.vocab && probability[row * given.shape.vocab + id] > 0;
      if (has_token(row) ? drawn : id == kNoToken) continue;
      comparison.add_fault("row " + std::to_string(row) + " drew id " + std::to_string(id));
    }
  }
  static Cost cost(const Given& given, Direction) { return given.shape.cost(); }

  Given given;
  Guarded<float> logits;
  Guarded<SampleRow> options;
  Guarded<int32_t> previous, ids;
  Guarded<double> probability;

 private:
  bool has_token(int64_t row) const {
    for (int64_t i = 0; i < given.shape.vocab; ++i) {
      if (logits[row * stride() + i] > -std::numeric_limits<float>::infinity()) return true;
    }
    return false;
  }
  // Every fourth row has no token at all.
  void spoil(int64_t row) {
    float* x = logits.data() + row * stride();
    const int64_t vocab = given.shape.vocab;
    for (int64_t i = 5; i < vocab; i += 11) x[i] = x[i - 3];
    for (int64_t i = 7; i < vocab; i += 23) x[i] = std::numeric_limits<float>::quiet_NaN();
    for (int64_t i = 9; i < vocab; i += 29) x[i] = -std::numeric_limits<float>::infinity();
    for (int64_t i = 0; row % 4 == 3 && i < vocab; ++i) {
      x[i] = i % 2 == 0 ? std::nanf("") : -std::numeric_limits<float>::infinity();
    }
  }
};

}  // namespace adder::measure
