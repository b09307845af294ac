// The causal depthwise convolution with SiLU that both Mamba blocks run before their scan (math.md
// section 2). It works on slices of wider projections, so nothing is copied. Thread-safe once
// bound.
#pragma once

#include <span>
#include <string>

#include "core/view.h"
#include "kernels/conv1d/conv1d.h"
#include "layers/mixer.h"

namespace adder {

template <class T>
class CausalConv {
 public:
  using Acc = accumulate_t<T>;
  CausalConv(int64_t channels, int64_t width, bool bias)
      : channels_(channels), width_(width), has_bias_(bias) {}

  /// PREFIXconv1d.weight (channels, 1, width) and, with a bias, PREFIXconv1d.bias (channels).
  void visit(const std::string& prefix, ParamVisitor<Acc>& visitor);
  /// The last width - 1 inputs, in T.
  StatePart state_part() const { return {"conv", dtype_of<T>, (width_ - 1) * channels_, nullptr}; }

  /// y = silu(conv(x)). `state` is read as the inputs before and replaced by the last ones; absent:
  /// zeros, dropped.
  void forward(Context& context, const TokenLayout& layout, const TokenView<const T>& x,
               const TokenView<T>& y, const StatePart* state) const;
  /// dx is written, gradients of the parameters are added to.
  void backward(Context& context, const TokenLayout& layout, const TokenView<const T>& x,
                const TokenView<const T>& gy, const TokenView<T>& dx) const;

 private:
  Conv1dShape shape(const TokenLayout& layout) const;
  Conv1dInputs<T> inputs(const TokenLayout& layout, const TokenView<const T>& x) const;

  int64_t channels_;
  int64_t width_;
  bool has_bias_;
  const Acc* w_ = nullptr;
  const Acc* bias_ = nullptr;
  Acc* dw_ = nullptr;
  Acc* dbias_ = nullptr;
};

}  // namespace adder
