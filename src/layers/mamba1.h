// The Mamba-1 block (arXiv 2312.00752; math.md 7.2):
//   [x, z] = in_proj(u);  x = silu(conv(x));  [dtr, B, C] = x_proj(x);
//   y = S6(x, dt_proj dtr, A, B, C, D, z);  out = out_proj(y)
#pragma once

#include "kernels/s6/s6.h"
#include "layers/causal_conv.h"
#include "layers/mixer.h"

namespace adder {

struct Mamba1Config {
  int64_t d_model = 0;
  int64_t d_inner = 0;
  int64_t state = 16;
  int64_t conv_width = 4;
  int64_t dt_rank = 0;
  bool bias = false;  // of in_proj and out_proj
  bool conv_bias = true;
  double dt_limit_low = 0;  // limits of delta; 0 and infinity: none
  double dt_limit_high = std::numeric_limits<double>::infinity();
  // Initialisation (math.md 7.7).
  double dt_min = 1e-3;
  double dt_max = 0.1;
  double dt_init_floor = 1e-4;
  double dt_scale = 1.0;
  bool dt_init_constant = false;
  double out_proj_scale = 1.0;  // factor on out_proj's start values: 1 / sqrt(n_layer)

  void check() const;  // throws Error naming the field
};

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
  struct Gradients;  // what flows back between the parts
  Mamba1Saved<T> carve(Context& context, const TokenLayout& layout, bool training) const;
  S6Shape scan_shape(const TokenLayout& layout) const;
  S6Inputs<T> scan_inputs(const TokenLayout& layout, const Mamba1Saved<T>& saved) const;
  void scan_backward(Context& context, const TokenLayout& layout, const Mamba1Saved<T>& saved,
                     const Gradients& g) const;

  Mamba1Config config_;
  // Weights, and beside them their gradients: absent where frozen or not training.
  Matrix in_proj_;   // (2 d_inner, d_model), rows x then z
  Matrix x_proj_;    // (dt_rank + 2 state, d_inner), rows dt, B, C
  Matrix dt_proj_;   // (d_inner, dt_rank)
  Matrix out_proj_;  // (d_model, d_inner)
  MatrixGrad<Acc> d_in_proj_, d_x_proj_, d_dt_proj_, d_out_proj_;
  CausalConv<T> conv_;
  struct Vectors {
    const Acc* in_proj_bias = nullptr;   // (2 d_inner) or absent
    const Acc* dt_bias = nullptr;        // (d_inner): added inside the scan
    const Acc* A_log = nullptr;          // (d_inner, state)
    const Acc* A = nullptr;              // -exp(A_log)
    const Acc* D = nullptr;              // (d_inner)
    const Acc* out_proj_bias = nullptr;  // (d_model) or absent
  } w_;
  struct VectorGrads {
    Acc *in_proj_bias = nullptr, *dt_bias = nullptr, *A_log = nullptr, *D = nullptr;
    Acc* out_proj_bias = nullptr;
  } d_;
};

}  // namespace adder
