// The gated MLP that may follow a mixer (math.md 7.6; state-spaces/mamba modules/mlp.py):
//   [y, gate] = fc1(u);  out = fc2(y silu(gate));  no biases.
// It carries nothing from token to token: a mixer without state.
#pragma once

#include "layers/linear.h"
#include "layers/mixer.h"

namespace adder {

struct GatedMlpConfig {
  int64_t d_model = 0;
  int64_t width = 0;       // of y and of gate
  double fc2_scale = 1.0;  // factor on fc2's start values: 1 / sqrt(n_layer)

  void check() const;  // throws Error naming the field
};

template <class T>
struct GatedMlpSaved : MixerSaved {
  T* pair = nullptr;   // (rows, 2 width): y and gate
  T* gated = nullptr;  // (rows, width): input of fc2
};

template <class T>
class GatedMlp : public Mixer<T> {
 public:
  using Acc = accumulate_t<T>;
  explicit GatedMlp(const GatedMlpConfig& config);

  void visit(const std::string& prefix, ParamVisitor<Acc>& visitor) override;
  std::vector<StatePart> state_parts() const override { return {}; }
  std::unique_ptr<MixerSaved> carve_saved(Context& context,
                                          const TokenLayout& layout) const override;
  void forward(Context& context, const TokenLayout& layout, const T* x, T* out, MixerSaved* saved,
               std::span<const StatePart> state) const override;
  void backward(Context& context, const TokenLayout& layout, const T* x, const T* gout,
                const MixerSaved& saved, T* dx) const override;

 private:
  GatedMlpSaved<T> carve(Context& context, const TokenLayout& layout) const;

  GatedMlpConfig config_;
  Linear<T> fc1_;  // (2 width, d_model), rows y then gate
  Linear<T> fc2_;  // (d_model, width)
};

}  // namespace adder
