// One call of `s6`.
#pragma once

#include "kernels/ref/s6_ref.h"
#include "kernels/s6/s6.h"
#include "measure/scan_call.h"

namespace adder::measure {

using S6Case = ScanCase<S6Shape>;

template <class T>
class S6Call : public ScanCall<S6Call<T>, T, S6Shape, S6Inputs<T>, S6Forward<T>, S6Backward<T>> {
 public:
  using Base = ScanCall<S6Call<T>, T, S6Shape, S6Inputs<T>, S6Forward<T>, S6Backward<T>>;
  using Wide = S6Call<double>;
  static constexpr Doors<S6Shape, S6Forward<T>, S6Backward<T>> kDoors = {
      s6_forward<T>, s6_backward<T>, ref::s6_forward<T>, ref::s6_backward<T>};
  static constexpr const char* kFamily = "s6";
  static constexpr const char* kTokens = "u";
  static constexpr const char* kTokensGradient = "du";

  explicit S6Call(const S6Case& c) : Base(c) {}
  S6Call(const S6Case& c, uint64_t seed) : Base(c, seed) {
    // Complex: some imaginary parts are positive.
    for (int64_t i = 1; c.shape.complex && i < this->A.count(); i += 4) {
      this->A[i] = -this->A[i];
    }
  }

  static ScanSizes sizes_of(const S6Shape& shape) {
    const int64_t numbers = shape.state_numbers();
    return {.tokens = shape.dim,
            .steps = shape.dim,
            .shared = shape.groups * numbers,
            .rates = shape.dim * numbers,
            .skip = shape.dim,
            .bias = shape.dim,
            .state = shape.dim * numbers};
  }
  static auto& tokens_of(S6Inputs<T>& in) { return in.u; }
  static auto& tokens_gradient_of(S6Backward<T>& args) { return args.du; }
};

}  // namespace adder::measure
