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
Mamba1Mixer<T>::Mamba1Mixer(const Mamba1Config& config)
    : config_((config.check(), config)),
      conv_(config.d_inner, config.conv_width, config.conv_bias) {}

template <class T>
void Mamba1Mixer<T>::visit(const std::string& prefix, ParamVisitor<Acc>& v) {
  using Kind = InitSpec::Kind;
  const auto& c = config_;
  auto& w = w_;
  auto& g = d_;
  const double dt_bound = c.dt_scale / std::sqrt(static_cast<double>(c.dt_rank));
  v.vector(
      w.A_log, g.A_log,
      vector_param(prefix + "A_log", {c.d_inner, c.state}, {Kind::a_log_range}, ParamKind::decay));
  v.decay(w.A, prefix + "A_log");
  v.vector(w.D, g.D, vector_param(prefix + "D", {c.d_inner}, {Kind::ones}));
  v.matrix(
      in_proj_, d_in_proj_,
      matrix_param(prefix + "in_proj.weight", 2 * c.d_inner, c.d_model, fan_in_bound(c.d_model)));
  if (c.bias) {
    v.vector(w.in_proj_bias, g.in_proj_bias,
             vector_param(prefix + "in_proj.bias", {2 * c.d_inner}, {Kind::zeros}));
  }
  conv_.visit(prefix, v);
  v.matrix(x_proj_, d_x_proj_,
           matrix_param(prefix + "x_proj.weight", c.dt_rank + 2 * c.state, c.d_inner,
                        fan_in_bound(c.d_inner)));
  ParamInfo dt_info = matrix_param(prefix + "dt_proj.weight", c.d_inner, c.dt_rank, dt_bound);
  if (c.dt_init_constant) dt_info.init = {Kind::constant, dt_bound};
  v.matrix(dt_proj_, d_dt_proj_, dt_info);
  v.vector(w.dt_bias, g.dt_bias,
           vector_param(prefix + "dt_proj.bias", {c.d_inner},
                        {Kind::dt_bias, c.dt_min, c.dt_max, c.dt_init_floor}));
  v.matrix(out_proj_, d_out_proj_,
           matrix_param(prefix + "out_proj.weight", c.d_model, c.d_inner,
                        fan_in_bound(c.d_inner) * c.out_proj_scale));
  if (c.bias) {
    v.vector(w.out_proj_bias, g.out_proj_bias,
             vector_param(prefix + "out_proj.bias", {c.d_model}, {Kind::zeros}));
  }
}

template <class T>
std::vector<StatePart> Mamba1Mixer<T>::state_parts() const {
  return {conv_.state_part(), {"ssm", dtype_of<Acc>, config_.d_inner * config_.state, nullptr}};
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
  if (training) saved.states = arena.take<Acc>(scan_shape(layout).saved_elements());
  return saved;
}

template <class T>
std::unique_ptr<MixerSaved> Mamba1Mixer<T>::carve_saved(Context& context,
                                                        const TokenLayout& layout) const {
  return std::make_unique<Mamba1Saved<T>>(carve(context, layout, true));
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
  in.A = w_.A;
  in.D = w_.D;
  in.dt_bias = w_.dt_bias;
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
  linear_forward<T>(context, rows, {x, config_.d_model}, in_proj_, w_.in_proj_bias, {s.xz, 2 * di});

  conv_.forward(context, layout, dense_view<const T>(s.xz, layout.len, 2 * di),
                dense_view(s.conv, layout.len, di), state.empty() ? nullptr : &state[0]);

  linear_forward<T>(context, rows, {s.conv, di}, x_proj_, nullptr, {s.x_dbl, dbl});
  linear_forward<T>(context, rows, {s.x_dbl, dbl}, dt_proj_, nullptr, {s.dt, di});

  S6Forward<T> scan;
  scan.in = scan_inputs(layout, s);
  scan.y = dense_view(s.y, layout.len, di);
  scan.saved = s.states;
  if (!state.empty()) scan.in.h0 = scan.hT = static_cast<Acc*>(state[1].data);
  s6_forward(context, scan_shape(layout), scan);

  linear_forward<T>(context, rows, {s.y, di}, out_proj_, w_.out_proj_bias, {out, config_.d_model});
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
  scan.dD = d_.D;
  scan.ddt_bias = d_.dt_bias;
  scan.accumulate = true;
  const int64_t decays = di * config_.state;
  if (d_.A_log != nullptr) {
    scan.dA = context.arena->take<Acc>(decays);
    zero_elements(context, scan.dA, decays);
  }
  s6_backward(context, scan_shape(layout), scan);
  if (d_.A_log != nullptr) {
    decay_backward<Acc>(context, {1, decays}, {w_.A, scan.dA, d_.A_log, true});
  }
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

  linear_backward_weight<T>(context, rows, {gout, config_.d_model}, {s.y, di}, out_proj_,
                            d_out_proj_, d_.out_proj_bias);
  linear_backward_input<T>(context, rows, {gout, config_.d_model}, out_proj_, {g.y, di});

  scan_backward(context, layout, s, g);

  linear_backward_weight<T>(context, rows, {g.dt, di}, {s.x_dbl, dbl}, dt_proj_, d_dt_proj_);
  linear_backward_input<T>(context, rows, {g.dt, di}, dt_proj_, {g.x_dbl, dbl});
  linear_backward_weight<T>(context, rows, {g.x_dbl, dbl}, {s.conv, di}, x_proj_, d_x_proj_);
  linear_backward_input<T>(context, rows, {g.x_dbl, dbl}, x_proj_, {g.conv, di}, true);

  conv_.backward(context, layout, dense_view<const T>(s.xz, layout.len, 2 * di),
                 dense_view<const T>(g.conv, layout.len, di), dense_view(g.xz, layout.len, 2 * di));

  linear_backward_weight<T>(context, rows, {g.xz, 2 * di}, {x, config_.d_model}, in_proj_,
                            d_in_proj_, d_.in_proj_bias);
  linear_backward_input<T>(context, rows, {g.xz, 2 * di}, in_proj_, {dx, config_.d_model});
}

template class Mamba1Mixer<double>;
template class Mamba1Mixer<float>;
template class Mamba1Mixer<Bf16>;

}  // namespace adder
