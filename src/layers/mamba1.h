// The Mamba-1 block (arXiv 2312.00752; math.md 7.2):
//   [x, z] = in_proj(u);  x = silu(conv(x));  [dtr, B, C] = x_proj(x);
//   y = S6(x, dt_proj dtr, A, B, C, D, z);  out = out_proj(y)
#pragma once

#include "kernels/s6/s6.h"
#include "layers/causal_conv.h"
#include "layers/linear.h"
#include "layers/mixer.h"
#include "layers/scan_params.h"

namespace adder {

struct Mamba1Config {
  int64_t d_model = 0;
  int64_t d_inner = 0;
  int64_t state = 16;
  int64_t conv_width = 4;
  int64_t dt_rank = 0;
  bool bias = false;  // of in_proj and out_proj
  bool conv_bias = true;
  DtConfig dt;
  // Initialisation (math.md 7.7).
  double dt_scale = 1.0;
  bool dt_init_constant = false;
  double out_proj_scale = 1.0;  // factor on out_proj's start values: 1 / sqrt(n_layer)

  void check() const;  // throws Error naming the field
};

/// Forward leaves these arrays for backward; backward keeps the gradients of the same arrays in
/// another one.
template <class T>
struct Mamba1Saved : MixerSaved {
  using Acc = accumulate_t<T>;
  T* xz = nullptr;        // (rows, 2 d_inner)
  T* conv = nullptr;      // (rows, d_inner): u of the scan
  T* x_dbl = nullptr;     // (rows, dt_rank + 2 state)
  T* dt = nullptr;        // (rows, d_inner), raw
  T* y = nullptr;         // (rows, d_inner): input of out_proj
  Acc* states = nullptr;  // chunk-boundary states of the scan
};

template <class T>
class Mamba1Mixer : public Mixer<T> {
 public:
  using Acc = accumulate_t<T>;
  explicit Mamba1Mixer(const Mamba1Config& config);

  void visit(const std::string& prefix, ParamVisitor<Acc>& visitor) override;
  std::vector<StatePart> state_parts() const override;
  std::unique_ptr<MixerSaved> carve_saved(Context& context,
                                          const TokenLayout& layout) const override;
  void forward(Context& context, const TokenLayout& layout, const T* x, T* out, MixerSaved* saved,
               std::span<const StatePart> state) const override;
  void backward(Context& context, const TokenLayout& layout, const T* x, const T* gout,
                const MixerSaved& saved, T* dx) const override;

 private:
  Mamba1Saved<T> carve(Context& context, const TokenLayout& layout, bool training) const;
  S6Shape scan_shape(const TokenLayout& layout) const;
  S6Inputs<T> scan_inputs(const TokenLayout& layout, const Mamba1Saved<T>& saved) const;
  void scan_backward(Context& context, const TokenLayout& layout, const Mamba1Saved<T>& saved,
                     const Mamba1Saved<T>& g) const;

  Mamba1Config config_;
  Linear<T> in_proj_;   // (2 d_inner, d_model), rows x then z
  Linear<T> x_proj_;    // (dt_rank + 2 state, d_inner), rows dt, B, C
  Linear<T> dt_proj_;   // (d_inner, dt_rank)
  Linear<T> out_proj_;  // (d_model, d_inner)
  CausalConv<T> conv_;
  ScanParams<T> scan_;  // A_log (d_inner, state); D and dt_bias (d_inner)
};

}  // namespace adder
