#include "layers/mamba1.h"

#include <cmath>

#include "kernels/pointwise/pointwise.h"
#include "layers/linear.h"

namespace adder {
namespace {

void require_positive(int64_t value, const char* field) {
  if (value < 1)
    throw Error({"out of range", std::string("mamba1: ") + field, ">= 1", std::to_string(value)});
}

}  // namespace

void Mamba1Config::check() const {
  require_positive(d_model, "d_model");
  require_positive(d_inner, "d_inner");
  require_positive(state, "state");
  require_positive(conv_width, "conv_width");
  require_positive(dt_rank, "dt_rank");
}

template <class T>
Mamba1Mixer<T>::Mamba1Mixer(const Mamba1Config& config) : config_(config) {
  config_.check();
}

template <class T>
void Mamba1Mixer<T>::visit(const std::string& prefix, ParamVisitor<Acc>& v) {
  using Kind = InitSpec::Kind;
  const auto& c = config_;
  auto& w = weights_;
  auto& g = grads_;
  const double conv_bound = fan_in_bound(c.conv_width);
  const double dt_bound = c.dt_scale / std::sqrt(static_cast<double>(c.dt_rank));
  v.vector(
      w.A_log, g.A_log,
      vector_param(prefix + "A_log", {c.d_inner, c.state}, {Kind::a_log_range}, ParamKind::decay));
  v.vector(w.D, g.D, vector_param(prefix + "D", {c.d_inner}, {Kind::ones}));
  v.matrix(
      w.in_proj, g.in_proj,
      matrix_param(prefix + "in_proj.weight", 2 * c.d_inner, c.d_model, fan_in_bound(c.d_model)));
  if (c.bias) {
    v.vector(w.in_proj_bias, g.in_proj_bias,
             vector_param(prefix + "in_proj.bias", {2 * c.d_inner}, {Kind::zeros}));
  }
  v.vector(w.conv_w, g.conv_w,
           vector_param(prefix + "conv1d.weight", {c.d_inner, 1, c.conv_width},
                        {Kind::uniform, conv_bound}, ParamKind::conv));
  if (c.conv_bias) {
    v.vector(w.conv_bias, g.conv_bias,
             vector_param(prefix + "conv1d.bias", {c.d_inner}, {Kind::uniform, conv_bound}));
  }
  v.matrix(w.x_proj, g.x_proj,
           matrix_param(prefix + "x_proj.weight", c.dt_rank + 2 * c.state, c.d_inner,
                        fan_in_bound(c.d_inner)));
  ParamInfo dt_info = matrix_param(prefix + "dt_proj.weight", c.d_inner, c.dt_rank, dt_bound);
  if (c.dt_init_constant) dt_info.init = {Kind::constant, dt_bound};
  v.matrix(w.dt_proj, g.dt_proj, dt_info);
  v.vector(w.dt_bias, g.dt_bias,
           vector_param(prefix + "dt_proj.bias", {c.d_inner},
                        {Kind::dt_bias, c.dt_min, c.dt_max, c.dt_init_floor}));
  v.matrix(w.out_proj, g.out_proj,
           matrix_param(prefix + "out_proj.weight", c.d_model, c.d_inner,
                        fan_in_bound(c.d_inner) * c.out_proj_scale));
  if (c.bias) {
    v.vector(w.out_proj_bias, g.out_proj_bias,
             vector_param(prefix + "out_proj.bias", {c.d_model}, {Kind::zeros}));
  }
}

template <class T>
std::vector<StatePart> Mamba1Mixer<T>::state_parts() const {
  return {{"conv", dtype_of<T>, (config_.conv_width - 1) * config_.d_inner, nullptr},
          {"ssm", dtype_of<Acc>, config_.d_inner * config_.state, nullptr}};
}

template <class T>
Conv1dShape Mamba1Mixer<T>::conv_shape(const TokenLayout& layout) const {
  Conv1dShape shape;
  shape.batch = layout.batch;
  shape.len = layout.len;
  shape.channels = config_.d_inner;
  shape.width = config_.conv_width;
  shape.sequences = layout.sequences;
  shape.silu = true;
  return shape;
}

template <class T>
S6Shape Mamba1Mixer<T>::scan_shape(const TokenLayout& layout) const {
  S6Shape shape;
  shape.batch = layout.batch;
  shape.len = layout.len;
  shape.dim = config_.d_inner;
  shape.state = config_.state;
  shape.sequences = layout.sequences;
  shape.gated = true;
  return shape;
}

template <class T>
Mamba1Saved<T> Mamba1Mixer<T>::carve(Context& context, const TokenLayout& layout,
                                     bool training) const {
  Arena& arena = *context.arena;
  const int64_t rows = layout.rows();
  const int64_t di = config_.d_inner;
  Mamba1Saved<T> saved;
  saved.xz = arena.take<T>(rows * 2 * di);
  saved.conv = arena.take<T>(rows * di);
  saved.x_dbl = arena.take<T>(rows * (config_.dt_rank + 2 * config_.state));
  saved.dt = arena.take<T>(rows * di);
  saved.y = arena.take<T>(rows * di);
  saved.A = arena.take<Acc>(di * config_.state);
  if (training) saved.states = arena.take<Acc>(scan_shape(layout).saved_elements());
  return saved;
}

template <class T>
std::unique_ptr<MixerSaved> Mamba1Mixer<T>::carve_saved(Context& context,
                                                        const TokenLayout& layout) const {
  return std::make_unique<Mamba1Saved<T>>(carve(context, layout, true));
}

template <class T>
Conv1dInputs<T> Mamba1Mixer<T>::conv_inputs(const TokenLayout& layout,
                                            const Mamba1Saved<T>& saved) const {
  Conv1dInputs<T> in;
  in.x = dense_view<const T>(saved.xz, layout.len, 2 * config_.d_inner);
  in.w = weights_.conv_w;
  in.bias = weights_.conv_bias;
  in.cu_seqlens = layout.cu_seqlens;
  in.state_index = layout.state_index;
  return in;
}

template <class T>
S6Inputs<T> Mamba1Mixer<T>::scan_inputs(const TokenLayout& layout,
                                        const Mamba1Saved<T>& saved) const {
  const int64_t di = config_.d_inner;
  const auto x_dbl =
      dense_view<const T>(saved.x_dbl, layout.len, config_.dt_rank + 2 * config_.state);
  S6Inputs<T> in;
  in.u = dense_view<const T>(saved.conv, layout.len, di);
  in.dt = dense_view<const T>(saved.dt, layout.len, di);
  in.B = x_dbl.slice(config_.dt_rank);
  in.C = x_dbl.slice(config_.dt_rank + config_.state);
  in.z = dense_view<const T>(saved.xz, layout.len, 2 * di).slice(di);
  in.A = saved.A;
  in.D = weights_.D;
  in.dt_bias = weights_.dt_bias;
  if (config_.dt_limit_low > 0) in.dt_min = static_cast<Acc>(config_.dt_limit_low);
  in.dt_max = static_cast<Acc>(config_.dt_limit_high);
  in.cu_seqlens = layout.cu_seqlens;
  in.state_index = layout.state_index;
  return in;
}

template <class T>
void Mamba1Mixer<T>::forward(Context& context, const TokenLayout& layout, const T* x, T* out,
                             MixerSaved* saved_for_backward,
                             std::span<const StatePart> state) const {
  Arena::Scope scope(*context.arena);
  const int64_t rows = layout.rows();
  const int64_t di = config_.d_inner;
  const int64_t dbl = config_.dt_rank + 2 * config_.state;
  const Mamba1Saved<T> s = saved_for_backward != nullptr
                               ? static_cast<const Mamba1Saved<T>&>(*saved_for_backward)
                               : carve(context, layout, false);
  linear_forward<T>(context, rows, {x, config_.d_model}, weights_.in_proj, weights_.in_proj_bias,
                    {s.xz, 2 * di});

  Conv1dForward<T> conv;
  conv.in = conv_inputs(layout, s);
  conv.y = dense_view(s.conv, layout.len, di);
  if (!state.empty()) conv.in.s0 = conv.sT = static_cast<T*>(state[0].data);
  conv1d_forward(context, conv_shape(layout), conv);

  linear_forward<T>(context, rows, {s.conv, di}, weights_.x_proj, nullptr, {s.x_dbl, dbl});
  linear_forward<T>(context, rows, {s.x_dbl, dbl}, weights_.dt_proj, nullptr, {s.dt, di});

  decay_from_log(context, di * config_.state, weights_.A_log, s.A);
  S6Forward<T> scan;
  scan.in = scan_inputs(layout, s);
  scan.y = dense_view(s.y, layout.len, di);
  scan.saved = s.states;
  if (!state.empty()) scan.in.h0 = scan.hT = static_cast<Acc*>(state[1].data);
  s6_forward(context, scan_shape(layout), scan);

  linear_forward<T>(context, rows, {s.y, di}, weights_.out_proj, weights_.out_proj_bias,
                    {out, config_.d_model});
}

template <class T>
struct Mamba1Mixer<T>::Gradients {
  T* y = nullptr;      // (rows, d_inner), of the scan's output
  T* conv = nullptr;   // (rows, d_inner), of the scan's u
  T* dt = nullptr;     // (rows, d_inner)
  T* x_dbl = nullptr;  // (rows, dt_rank + 2 state)
  T* xz = nullptr;     // (rows, 2 d_inner)
};

template <class T>
void Mamba1Mixer<T>::scan_backward(Context& context, const TokenLayout& layout,
                                   const Mamba1Saved<T>& s, const Gradients& g) const {
  Arena::Scope scope(*context.arena);
  const int64_t di = config_.d_inner;
  const auto dx_dbl = dense_view(g.x_dbl, layout.len, config_.dt_rank + 2 * config_.state);
  S6Backward<T> scan;
  scan.in = scan_inputs(layout, s);
  scan.saved = s.states;
  scan.gy = dense_view<const T>(g.y, layout.len, di);
  scan.du = dense_view(g.conv, layout.len, di);
  scan.ddt = dense_view(g.dt, layout.len, di);
  scan.dB = dx_dbl.slice(config_.dt_rank);
  scan.dC = dx_dbl.slice(config_.dt_rank + config_.state);
  scan.dz = dense_view(g.xz, layout.len, 2 * di).slice(di);
  scan.dA = context.arena->take<Acc>(di * config_.state);
  scan.dD = context.arena->take<Acc>(di);
  scan.ddt_bias = context.arena->take<Acc>(di);
  s6_backward(context, scan_shape(layout), scan);
  if (grads_.A_log != nullptr) {
    decay_log_gradient<Acc>(context, di * config_.state, s.A, scan.dA, grads_.A_log, true);
  }
  if (grads_.D != nullptr) add_into<Acc>(context, di, scan.dD, grads_.D);
  if (grads_.dt_bias != nullptr) add_into<Acc>(context, di, scan.ddt_bias, grads_.dt_bias);
}

template <class T>
void Mamba1Mixer<T>::conv_backward(Context& context, const TokenLayout& layout,
                                   const Mamba1Saved<T>& s, const Gradients& g) const {
  Arena::Scope scope(*context.arena);
  const int64_t di = config_.d_inner;
  Conv1dBackward<T> conv;
  conv.in = conv_inputs(layout, s);
  conv.gy = dense_view<const T>(g.conv, layout.len, di);
  conv.dx = dense_view(g.xz, layout.len, 2 * di);
  conv.dw = context.arena->take<Acc>(di * config_.conv_width);
  conv.dbias = context.arena->take<Acc>(di);
  conv1d_backward(context, conv_shape(layout), conv);
  if (grads_.conv_w != nullptr) {
    add_into<Acc>(context, di * config_.conv_width, conv.dw, grads_.conv_w);
  }
  if (grads_.conv_bias != nullptr) add_into<Acc>(context, di, conv.dbias, grads_.conv_bias);
}

template <class T>
void Mamba1Mixer<T>::backward(Context& context, const TokenLayout& layout, const T* x,
                              const T* gout, const MixerSaved& saved, T* dx) const {
  Arena::Scope scope(*context.arena);
  Arena& arena = *context.arena;
  const auto& s = static_cast<const Mamba1Saved<T>&>(saved);
  const int64_t rows = layout.rows();
  const int64_t di = config_.d_inner;
  const int64_t dbl = config_.dt_rank + 2 * config_.state;
  Gradients g;
  g.y = arena.take<T>(rows * di);
  g.conv = arena.take<T>(rows * di);
  g.dt = arena.take<T>(rows * di);
  g.x_dbl = arena.take<T>(rows * dbl);
  g.xz = arena.take<T>(rows * 2 * di);

  linear_backward_weight<T>(context, rows, {gout, config_.d_model}, {s.y, di}, weights_.out_proj,
                            grads_.out_proj, grads_.out_proj_bias);
  linear_backward_input<T>(context, rows, {gout, config_.d_model}, weights_.out_proj, {g.y, di});

  scan_backward(context, layout, s, g);

  linear_backward_weight<T>(context, rows, {g.dt, di}, {s.x_dbl, dbl}, weights_.dt_proj,
                            grads_.dt_proj, nullptr);
  linear_backward_input<T>(context, rows, {g.dt, di}, weights_.dt_proj, {g.x_dbl, dbl});
  linear_backward_weight<T>(context, rows, {g.x_dbl, dbl}, {s.conv, di}, weights_.x_proj,
                            grads_.x_proj, nullptr);
  linear_backward_input<T>(context, rows, {g.x_dbl, dbl}, weights_.x_proj, {g.conv, di}, true);

  conv_backward(context, layout, s, g);

  linear_backward_weight<T>(context, rows, {g.xz, 2 * di}, {x, config_.d_model}, weights_.in_proj,
                            grads_.in_proj, grads_.in_proj_bias);
  linear_backward_input<T>(context, rows, {g.xz, 2 * di}, weights_.in_proj, {dx, config_.d_model});
}

template class Mamba1Mixer<double>;
template class Mamba1Mixer<float>;
template class Mamba1Mixer<Bf16>;

}  // namespace adder
