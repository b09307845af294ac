#include "layers/gated_mlp.h"

#include "core/error.h"
#include "kernels/pointwise/pointwise.h"

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
  using Kind = InitSpec::Kind;
  const auto& c = config_;
  fc1_.visit(v, prefix + "fc1", 2 * c.width, c.d_model, {Kind::uniform, fan_in_bound(c.d_model)});
  fc2_.visit(v, prefix + "fc2", c.d_model, c.width,
             {Kind::uniform, fan_in_bound(c.width) * c.fc2_scale});
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
  fc1_.forward(context, rows, {x, d}, {s.pair, 2 * width});
  GateForward<T> gate;
  gate.y = s.pair;
  gate.gate = s.pair + width;
  gate.y_stride = gate.gate_stride = 2 * width;
  gate.out = s.gated;
  gate.out_stride = width;
  gate_forward(context, {rows, width}, gate);
  fc2_.forward(context, rows, {s.gated, width}, {out, d});
}

template <class T>
void GatedMlp<T>::backward(Context& context, const TokenLayout& layout, const T* x, const T* gout,
                           const MixerSaved& saved, T* dx) const {
  Arena::Scope scope(*context.arena);
  const auto& s = static_cast<const GatedMlpSaved<T>&>(saved);
  const int64_t rows = layout.rows();
  const int64_t d = config_.d_model, width = config_.width;
  const GatedMlpSaved<T> g = carve(context, layout);

  fc2_.backward(context, rows, {gout, d}, {s.gated, width}, {g.gated, width});
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
  fc1_.backward(context, rows, {g.pair, 2 * width}, {x, d}, {dx, d});
}

template class GatedMlp<double>;
template class GatedMlp<float>;
template class GatedMlp<Bf16>;

}  // namespace adder
