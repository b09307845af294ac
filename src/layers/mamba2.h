// The Mamba-2 block (arXiv 2405.21060; math.md 7.3; state-spaces/mamba modules/mamba2.py):
//   [z0, x0, z, xBC, dt] = in_proj(u);  [x, B, C] = silu(conv(xBC));
//   y = SSD(x, dt, A, B, C, D);  y = gatednorm(y, z), or y silu(z) without that norm;
//   out = out_proj([x0 silu(z0), y])
// z0 and x0, the gated MLP path inside the block, have d_inner - d_ssm channels: usually none.
#pragma once

#include "kernels/norm/norm.h"
#include "kernels/ssd/ssd.h"
#include "layers/causal_conv.h"
#include "layers/linear.h"
#include "layers/mixer.h"
#include "layers/scan_params.h"

namespace adder {

struct Mamba2Config {
  int64_t d_model = 0;
  int64_t d_inner = 0;
  int64_t d_ssm = 0;  // channels through the state space: heads * head_dim, at most d_inner
  int64_t head_dim = 64;
  int64_t state = 128;
  int64_t groups = 1;  // of B and C; divides the heads
  int64_t conv_width = 4;
  bool bias = false;  // of in_proj and out_proj
  bool conv_bias = true;
  bool d_per_channel = false;
  bool norm = true;  // off: z gates y and nothing is normed
  bool norm_before_gate = false;
  int64_t norm_groups = 1;  // of that norm; divides d_ssm
  double norm_eps = 1e-5;
  int64_t chunk = 0;  // tokens of a block: changes speed and rounding only; 0: ssd_chunk_for
  DtConfig dt;
  // Initialisation (math.md 7.7).
  double a_min = 1;  // of -A
  double a_max = 16;
  double out_proj_scale = 1.0;  // factor on out_proj's start values: 1 / sqrt(n_layer)

  int64_t heads() const { return d_ssm / head_dim; }
  int64_t d_mlp() const { return d_inner - d_ssm; }
  /// Channels of x, B and C: those that the convolution sees.
  int64_t conv_channels() const { return d_ssm + 2 * groups * state; }
  // The parts of in_proj's output begin here.
  int64_t z_at() const { return 2 * d_mlp(); }
  int64_t conv_at() const { return z_at() + d_ssm; }
  int64_t dt_at() const { return conv_at() + conv_channels(); }
  int64_t projected() const { return dt_at() + heads(); }

  void check() const;  // throws Error naming the field
};

/// Forward leaves these arrays for backward; backward keeps the gradients of the same arrays in
/// another one.
template <class T>
struct Mamba2Saved : MixerSaved {
  using Acc = accumulate_t<T>;
  T* parts = nullptr;     // (rows, projected): output of in_proj
  T* conv = nullptr;      // (rows, conv_channels): x, B, C
  T* y = nullptr;         // (rows, d_ssm), before the gated norm; absent without it
  Acc* rstd = nullptr;    // (rows, norm_groups); absent without the norm
  T* mixed = nullptr;     // (rows, d_inner): input of out_proj
  Acc* states = nullptr;  // chunk-boundary states
};

template <class T>
class Mamba2Mixer : public Mixer<T> {
 public:
  using Acc = accumulate_t<T>;
  explicit Mamba2Mixer(const Mamba2Config& config);

  void visit(const std::string& prefix, ParamVisitor<Acc>& visitor) override;
  std::vector<StatePart> state_parts() const override;
  std::unique_ptr<MixerSaved> carve_saved(Context& context,
                                          const TokenLayout& layout) const override;
  void forward(Context& context, const TokenLayout& layout, const T* x, T* out, MixerSaved* saved,
               std::span<const StatePart> state) const override;
  void backward(Context& context, const TokenLayout& layout, const T* x, const T* gout,
                const MixerSaved& saved, T* dx) const override;

 private:
  Mamba2Saved<T> carve(Context& context, const TokenLayout& layout, bool training) const;
  SsdShape ssd_shape(const TokenLayout& layout) const;
  GatedNormShape norm_shape(const TokenLayout& layout) const;
  /// The slices of wider tensors that the convolution reads and writes.
  template <class U>
  TokenView<U> conv_input(const TokenLayout& layout, U* parts) const {
    return dense_view(parts, layout.len, config_.projected()).slice(config_.conv_at());
  }
  template <class U>
  TokenView<U> conv_output(const TokenLayout& layout, U* conv) const {
    return dense_view(conv, layout.len, config_.conv_channels());
  }
  SsdInputs<T> ssd_inputs(const TokenLayout& layout, const Mamba2Saved<T>& saved) const;
  /// The operator's output goes before the norm, or straight to out_proj.
  TokenView<T> ssd_output(const TokenLayout& layout, T* y, T* mixed) const;
  void norm_and_gate(Context& context, const TokenLayout& layout,
                     const Mamba2Saved<T>& saved) const;
  void norm_and_gate_backward(Context& context, const TokenLayout& layout,
                              const Mamba2Saved<T>& saved, const Mamba2Saved<T>& g) const;
  void ssd_backward_into(Context& context, const TokenLayout& layout, const Mamba2Saved<T>& saved,
                         const Mamba2Saved<T>& g) const;

  Mamba2Config config_;
  Linear<T> in_proj_;          // (projected, d_model), rows z0, x0, z, x, B, C, dt
  Linear<T> out_proj_;         // (d_model, d_inner)
  CausalConv<T> conv_;         // over x, B, C
  ScanParams<T> scan_;         // A_log and dt_bias (heads); D (heads) or (d_ssm)
  const Acc* norm_ = nullptr;  // (d_ssm) or absent
  Acc* dnorm_ = nullptr;
};

}  // namespace adder
