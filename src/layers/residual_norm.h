// The norm before each mixer, fused with the residual add (math.md 6.3): r = r_in + x, y = norm(r).
// T: activations; R: the residual stream. Thread-safe after binding.
#pragma once

#include <string>

#include "core/context.h"
#include "layers/params.h"

namespace adder {

/// Forward leaves these arrays for backward.
template <class T, class R>
struct ResidualNormSaved {
  using Acc = accumulate_t<T>;
  R* r = nullptr;       // (rows, d_model), after the add
  T* y = nullptr;       // (rows, d_model), normed
  Acc* rstd = nullptr;  // (rows)
  Acc* mean = nullptr;  // (rows), LayerNorm only
};

/// Gradients that meet in one norm.
template <class T, class R>
struct ResidualNormGradient {
  const T* gy = nullptr;  // (rows, d_model)
  bool later = false;     // dr holds the gradient of r from everything after: added
  R* dr = nullptr;        // (rows, d_model), written: of r_in and of x
  T* dx = nullptr;        // (rows, d_model), the same rounded to T; absent: not written
};

template <class T>
class ResidualNorm {
 public:
  using Acc = accumulate_t<T>;
  ResidualNorm(std::string name, int64_t width, bool rms, double eps)
      : name_(std::move(name)), width_(width), rms_(rms), eps_(eps) {}

  /// NAME.weight, and NAME.bias for LayerNorm.
  void visit(ParamVisitor<Acc>& visitor);

  template <class R>
  ResidualNormSaved<T, R> carve_saved(Context& context, int64_t rows) const;
  /// x (rows, width) or null; r_in (rows, width) or null: r = x. saved.r may be r_in.
  template <class R>
  void forward(Context& context, int64_t rows, const T* x, const R* r_in,
               const ResidualNormSaved<T, R>& saved) const;
  template <class R>
  void backward(Context& context, int64_t rows, const ResidualNormSaved<T, R>& saved,
                const ResidualNormGradient<T, R>& gradient) const;

 private:
  std::string name_;
  int64_t width_;
  bool rms_;
  double eps_;
  const Acc* w_ = nullptr;
  const Acc* b_ = nullptr;
  Acc* dw_ = nullptr;
  Acc* db_ = nullptr;
};

}  // namespace adder
