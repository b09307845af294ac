#include "layers/gated_mlp.h"

#include "core/error.h"
#include "kernels/pointwise/pointwise.h"
#include "layers/linear.h"

namespace adder {

void GatedMlpConfig::check() const {
  const auto positive = [](int64_t value, const char* field) {
    if (value >= 1) return;
    throw Error(
        {"out of range", std::string("gated mlp: ") + field, ">= 1", std::to_string(value)});
  };
  positive(d_model, "d_model");
  positive(width, "width");
}

template <class T>
GatedMlp<T>::GatedMlp(const GatedMlpConfig& config) : config_(config) {
  config_.check();
}

template <class T>
void GatedMlp<T>::visit(const std::string& prefix, ParamVisitor<Acc>& v) {
  const auto& c = config_;
  v.matrix(fc1_, fc1_grad_,
           matrix_param(prefix + "fc1.weight", 2 * c.width, c.d_model, fan_in_bound(c.d_model)));
  v.matrix(
      fc2_, fc2_grad_,
      matrix_param(prefix + "fc2.weight", c.d_model, c.width, fan_in_bound(c.width) * c.fc2_scale));
}

template <class T>
GatedMlpSaved<T> GatedMlp<T>::carve(Context& context, const TokenLayout& layout) const {
  GatedMlpSaved<T> saved;
  saved.pair = context.arena->take<T>(layout.rows() * 2 * config_.width);
  saved.gated = context.arena->take<T>(layout.rows() * config_.width);
  return saved;
}

template <class T>
std::unique_ptr<MixerSaved> GatedMlp<T>::carve_saved(Context& context,
                                                     const TokenLayout& layout) const {
  return std::make_unique<GatedMlpSaved<T>>(carve(context, layout));
}

template <class T>
void GatedMlp<T>::forward(Context& context, const TokenLayout& layout, const T* x, T* out,
                          MixerSaved* saved_for_backward, std::span<const StatePart>) const {
  Arena::Scope scope(*context.arena);
  const int64_t rows = layout.rows();
  const int64_t d = config_.d_model, width = config_.width;
  const GatedMlpSaved<T> s = saved_for_backward != nullptr
                                 ? static_cast<const GatedMlpSaved<T>&>(*saved_for_backward)
                                 : carve(context, layout);
  linear_forward<T>(context, rows, {x, d}, fc1_, nullptr, {s.pair, 2 * width});
  GateForward<T> gate;
  gate.y = s.pair;
  gate.gate = s.pair + width;
  gate.y_stride = gate.gate_stride = 2 * width;
  gate.out = s.gated;
  gate.out_stride = width;
  gate_forward(context, {rows, width}, gate);
  linear_forward<T>(context, rows, {s.gated, width}, fc2_, nullptr, {out, d});
}

template <class T>
void GatedMlp<T>::backward(Context& context, const TokenLayout& layout, const T* x, const T* gout,
                           const MixerSaved& saved, T* dx) const {
  Arena::Scope scope(*context.arena);
  const auto& s = static_cast<const GatedMlpSaved<T>&>(saved);
  const int64_t rows = layout.rows();
  const int64_t d = config_.d_model, width = config_.width;
  const GatedMlpSaved<T> g = carve(context, layout);

  linear_backward_weight<T>(context, rows, {gout, d}, {s.gated, width}, fc2_, fc2_grad_);
  linear_backward_input<T>(context, rows, {gout, d}, fc2_, {g.gated, width});
  GateBackward<T> gate;
  gate.y = s.pair;
  gate.gate = s.pair + width;
  gate.y_stride = gate.gate_stride = 2 * width;
  gate.gout = g.gated;
  gate.gout_stride = width;
  gate.dy = g.pair;
  gate.dgate = g.pair + width;
  gate.dy_stride = gate.dgate_stride = 2 * width;
  gate_backward(context, {rows, width}, gate);
  linear_backward_weight<T>(context, rows, {g.pair, 2 * width}, {x, d}, fc1_, fc1_grad_);
  linear_backward_input<T>(context, rows, {g.pair, 2 * width}, fc1_, {dx, d});
}

template class GatedMlp<double>;
template class GatedMlp<float>;
template class GatedMlp<Bf16>;

}  // namespace adder
