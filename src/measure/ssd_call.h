// One call of `ssd`.
#pragma once

#include <string_view>

#include "kernels/ref/ssd_ref.h"
#include "kernels/ssd/ssd.h"
#include "measure/scan_call.h"

namespace adder::measure {

using SsdCase = ScanCase<SsdShape>;

/// The line rounds these besides the recurrence.
inline ref::SsdForm ssd_form(const LineInfo& line) {
  const std::string_view name = line.name;
  if (name.starts_with("chunked")) return ref::SsdForm::chunked;
  return name == "quadratic" ? ref::SsdForm::quadratic : ref::SsdForm::recurrent;
}

template <class T>
class SsdCall
    : public ScanCall<SsdCall<T>, T, SsdShape, SsdInputs<T>, SsdForward<T>, SsdBackward<T>> {
 public:
  using Base = ScanCall<SsdCall<T>, T, SsdShape, SsdInputs<T>, SsdForward<T>, SsdBackward<T>>;
  using Wide = SsdCall<double>;
  static constexpr Doors<SsdShape, SsdForward<T>, SsdBackward<T>> kDoors = {ssd_forward<T>,
                                                                            ssd_backward<T>};
  static constexpr const char* kFamily = "ssd";
  static constexpr const char* kTokens = "x";
  static constexpr const char* kTokensGradient = "dx";

  using Base::Base;

  void reference(Direction direction, bool absolute, const LineInfo* line) override {
    const ref::SsdForm form = line == nullptr ? ref::SsdForm::recurrent : ssd_form(*line);
    const SsdShape& shape = this->given.shape;
    if (direction == Direction::forward) {
      ref::ssd_forward(shape, this->forward(Side::host), absolute, form);
    } else {
      ref::ssd_backward(shape, this->backward(Side::host), absolute, form);
    }
  }
  Dtype product_type(const LineInfo& line) const override {
    return line.rounds_operands ? line.dtype : dtype_of<accumulate_t<T>>;
  }

  static ScanSizes sizes_of(const SsdShape& shape) {
    return {.tokens = shape.inner(),
            .steps = shape.heads,
            .shared = shape.groups * shape.state,
            .rates = shape.heads,
            .skip = shape.d_elements(),
            .bias = shape.heads,
            .state = shape.state_elements()};
  }
  static auto& tokens_of(SsdInputs<T>& in) { return in.x; }
  static auto& tokens_gradient_of(SsdBackward<T>& args) { return args.dx; }
};

}  // namespace adder::measure
