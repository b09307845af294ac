#include "layers/mamba2.h"

#include "kernels/pointwise/pointwise.h"

namespace adder {
namespace {

[[noreturn]] void fail(const char* field, const std::string& expected, int64_t got) {
  throw Error({"out of range", std::string("mamba2: ") + field, expected, std::to_string(got)});
}

void require_positive(int64_t value, const char* field) {
  if (value < 1) fail(field, ">= 1", value);
}

void require_divisor(int64_t value, const char* field, int64_t of, const char* of_what) {
  require_positive(value, field);
  if (of % value != 0) {
    fail(field, "a divisor of the " + std::to_string(of) + " " + of_what, value);
  }
}

}  // namespace

void Mamba2Config::check() const {
  require_positive(d_model, "d_model");
  require_positive(d_inner, "d_inner");
  if (d_ssm < 1 || d_ssm > d_inner) fail("d_ssm", "1 to d_inner " + std::to_string(d_inner), d_ssm);
  require_divisor(head_dim, "head_dim", d_ssm, "channels of d_ssm");
  require_divisor(groups, "groups", heads(), "heads");
  require_divisor(norm_groups, "norm_groups", d_ssm, "channels of d_ssm");
  require_positive(state, "state");
  require_positive(conv_width, "conv_width");
  if (chunk < 0) fail("chunk", ">= 0", chunk);
}

template <class T>
Mamba2Mixer<T>::Mamba2Mixer(const Mamba2Config& config)
    : config_((config.check(), config)),
      conv_(config.conv_channels(), config.conv_width, config.conv_bias),
      scan_(config.dt) {
  if (config_.chunk == 0) config_.chunk = ssd_chunk_for(config_.head_dim, config_.state);
}

template <class T>
void Mamba2Mixer<T>::visit(const std::string& prefix, ParamVisitor<Acc>& v) {
  using Kind = InitSpec::Kind;
  const auto& c = config_;
  scan_.visit_dt_bias(v, prefix + "dt_bias", c.heads());
  scan_.visit_decay(v, prefix, {c.heads()}, {Kind::a_log_uniform, c.a_min, c.a_max});
  scan_.visit_skip(v, prefix + "D", c.d_per_channel ? c.d_ssm : c.heads());
  in_proj_.visit(v, prefix + "in_proj", c.projected(), c.d_model,
                 {Kind::uniform, fan_in_bound(c.d_model)}, c.bias);
  conv_.visit(prefix, v);
  if (c.norm) {
    v.vector(norm_, dnorm_, vector_param(prefix + "norm.weight", {c.d_ssm}, {Kind::ones}));
  }
  out_proj_.visit(v, prefix + "out_proj", c.d_model, c.d_inner,
                  {Kind::uniform, fan_in_bound(c.d_inner) * c.out_proj_scale}, c.bias);
}

template <class T>
std::vector<StatePart> Mamba2Mixer<T>::state_parts() const {
  return {conv_.state_part(), {"ssm", dtype_of<Acc>, config_.d_ssm * config_.state, nullptr}};
}

template <class T>
SsdShape Mamba2Mixer<T>::ssd_shape(const TokenLayout& layout) const {
  SsdShape shape;
  shape.batch = layout.batch;
  shape.len = layout.len;
  shape.heads = config_.heads();
  shape.head_dim = config_.head_dim;
  shape.state = config_.state;
  shape.groups = config_.groups;
  shape.chunk = config_.chunk;
  shape.sequences = layout.sequences;
  shape.gated = !config_.norm;
  shape.d_per_channel = config_.d_per_channel;
  return shape;
}

template <class T>
GatedNormShape Mamba2Mixer<T>::norm_shape(const TokenLayout& layout) const {
  GatedNormShape shape;
  shape.rows = layout.rows();
  shape.width = config_.d_ssm;
  shape.group = config_.d_ssm / config_.norm_groups;
  shape.norm_before_gate = config_.norm_before_gate;
  shape.eps = config_.norm_eps;
  return shape;
}

template <class T>
Mamba2Saved<T> Mamba2Mixer<T>::carve(Context& context, const TokenLayout& layout,
                                     bool training) const {
  Arena& arena = *context.arena;
  const int64_t rows = layout.rows();
  Mamba2Saved<T> saved;
  saved.parts = arena.take<T>(rows * config_.projected());
  saved.conv = arena.take<T>(rows * config_.conv_channels());
  saved.mixed = arena.take<T>(rows * config_.d_inner);
  if (config_.norm) {
    saved.y = arena.take<T>(rows * config_.d_ssm);
    saved.rstd = arena.take<Acc>(rows * config_.norm_groups);
  }
  if (training) saved.states = arena.take<Acc>(ssd_shape(layout).saved_elements());
  return saved;
}

template <class T>
std::unique_ptr<MixerSaved> Mamba2Mixer<T>::carve_saved(Context& context,
                                                        const TokenLayout& layout) const {
  return std::make_unique<Mamba2Saved<T>>(carve(context, layout, true));
}

template <class T>
SsdInputs<T> Mamba2Mixer<T>::ssd_inputs(const TokenLayout& layout,
                                        const Mamba2Saved<T>& saved) const {
  const auto parts = dense_view<const T>(saved.parts, layout.len, config_.projected());
  const auto conv = dense_view<const T>(saved.conv, layout.len, config_.conv_channels());
  SsdInputs<T> in;
  in.x = conv;
  in.B = conv.slice(config_.d_ssm);
  in.C = conv.slice(config_.d_ssm + config_.groups * config_.state);
  in.dt = parts.slice(config_.dt_at());
  if (!config_.norm) in.z = parts.slice(config_.z_at());
  scan_.enter(layout, in);
  return in;
}

template <class T>
TokenView<T> Mamba2Mixer<T>::ssd_output(const TokenLayout& layout, T* y, T* mixed) const {
  if (config_.norm) return dense_view(y, layout.len, config_.d_ssm);
  return dense_view(mixed, layout.len, config_.d_inner).slice(config_.d_mlp());
}

// Fills `mixed` from what the operator left: the MLP path, and the gated norm where there is one.
template <class T>
void Mamba2Mixer<T>::norm_and_gate(Context& context, const TokenLayout& layout,
                                   const Mamba2Saved<T>& s) const {
  const auto& c = config_;
  if (c.d_mlp() > 0) {
    GateForward<T> gate;
    gate.gate = s.parts;
    gate.y = s.parts + c.d_mlp();
    gate.gate_stride = gate.y_stride = c.projected();
    gate.out = s.mixed;
    gate.out_stride = c.d_inner;
    gate_forward(context, {layout.rows(), c.d_mlp()}, gate);
  }
  if (!c.norm) return;
  GatedNormForward<T> norm;
  norm.y = s.y;
  norm.y_stride = c.d_ssm;
  norm.z = s.parts + c.z_at();
  norm.z_stride = c.projected();
  norm.w = norm_;
  norm.out = s.mixed + c.d_mlp();
  norm.out_stride = c.d_inner;
  norm.rstd = s.rstd;
  gated_norm_forward(context, norm_shape(layout), norm);
}

template <class T>
void Mamba2Mixer<T>::forward(Context& context, const TokenLayout& layout, const T* x, T* out,
                             MixerSaved* saved_for_backward,
                             std::span<const StatePart> state) const {
  Arena::Scope scope(*context.arena);
  const int64_t rows = layout.rows();
  const Mamba2Saved<T> s = saved_for_backward != nullptr
                               ? static_cast<const Mamba2Saved<T>&>(*saved_for_backward)
                               : carve(context, layout, false);
  in_proj_.forward(context, rows, {x, config_.d_model}, {s.parts, config_.projected()});
  conv_.forward(context, layout, conv_input<const T>(layout, s.parts), conv_output(layout, s.conv),
                state.empty() ? nullptr : &state[0]);

  SsdForward<T> ssd;
  ssd.in = ssd_inputs(layout, s);
  ssd.y = ssd_output(layout, s.y, s.mixed);
  ssd.saved = s.states;
  if (!state.empty()) ssd.in.h0 = ssd.hT = static_cast<Acc*>(state[1].data);
  ssd_forward(context, ssd_shape(layout), ssd);

  norm_and_gate(context, layout, s);
  out_proj_.forward(context, rows, {s.mixed, config_.d_inner}, {out, config_.d_model});
}

template <class T>
void Mamba2Mixer<T>::norm_and_gate_backward(Context& context, const TokenLayout& layout,
                                            const Mamba2Saved<T>& s,
                                            const Mamba2Saved<T>& g) const {
  const auto& c = config_;
  if (c.d_mlp() > 0) {
    GateBackward<T> gate;
    gate.gate = s.parts;
    gate.y = s.parts + c.d_mlp();
    gate.gate_stride = gate.y_stride = c.projected();
    gate.gout = g.mixed;
    gate.gout_stride = c.d_inner;
    gate.dgate = g.parts;
    gate.dy = g.parts + c.d_mlp();
    gate.dgate_stride = gate.dy_stride = c.projected();
    gate_backward(context, {layout.rows(), c.d_mlp()}, gate);
  }
  if (!c.norm) return;
  GatedNormBackward<T> norm;
  norm.y = s.y;
  norm.y_stride = c.d_ssm;
  norm.z = s.parts + c.z_at();
  norm.z_stride = c.projected();
  norm.w = norm_;
  norm.rstd = s.rstd;
  norm.gout = g.mixed + c.d_mlp();
  norm.gout_stride = c.d_inner;
  norm.dy = g.y;
  norm.dy_stride = c.d_ssm;
  norm.dz = g.parts + c.z_at();
  norm.dz_stride = c.projected();
  norm.dw = dnorm_;
  norm.accumulate = true;
  gated_norm_backward(context, norm_shape(layout), norm);
}

template <class T>
void Mamba2Mixer<T>::ssd_backward_into(Context& context, const TokenLayout& layout,
                                       const Mamba2Saved<T>& s, const Mamba2Saved<T>& g) const {
  Arena::Scope scope(*context.arena);
  const auto& c = config_;
  const auto dparts = dense_view(g.parts, layout.len, c.projected());
  const auto dconv = dense_view(g.conv, layout.len, c.conv_channels());
  SsdBackward<T> ssd;
  ssd.in = ssd_inputs(layout, s);
  ssd.saved = s.states;
  ssd.gy = ssd_output(layout, g.y, g.mixed);
  ssd.dx = dconv;
  ssd.dB = dconv.slice(c.d_ssm);
  ssd.dC = dconv.slice(c.d_ssm + c.groups * c.state);
  ssd.ddt = dparts.slice(c.dt_at());
  if (!c.norm) ssd.dz = dparts.slice(c.z_at());
  scan_.run_backward(context, ssd, [&](const SsdBackward<T>& args) {
    ssd_backward(context, ssd_shape(layout), args);
  });
}

template <class T>
void Mamba2Mixer<T>::backward(Context& context, const TokenLayout& layout, const T* x,
                              const T* gout, const MixerSaved& saved, T* dx) const {
  Arena::Scope scope(*context.arena);
  const auto& s = static_cast<const Mamba2Saved<T>&>(saved);
  const Mamba2Saved<T> g = carve(context, layout, false);
  const auto& c = config_;
  const int64_t rows = layout.rows();
  out_proj_.backward(context, rows, {gout, c.d_model}, {s.mixed, c.d_inner}, {g.mixed, c.d_inner});
  norm_and_gate_backward(context, layout, s, g);
  ssd_backward_into(context, layout, s, g);
  conv_.backward(context, layout, conv_input<const T>(layout, s.parts),
                 conv_output<const T>(layout, g.conv), conv_input(layout, g.parts));
  in_proj_.backward(context, rows, {g.parts, c.projected()}, {x, c.d_model}, {dx, c.d_model});
}

template class Mamba2Mixer<double>;
template class Mamba2Mixer<float>;
template class Mamba2Mixer<Bf16>;

}  // namespace adder
