#include "layers/mamba1.h"

#include <cmath>

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
      conv_(config.d_inner, config.conv_width, config.conv_bias),
      scan_(config.dt) {}

template <class T>
void Mamba1Mixer<T>::visit(const std::string& prefix, ParamVisitor<Acc>& v) {
  using Kind = InitSpec::Kind;
  const auto& c = config_;
  const auto uniform = [](double bound) { return InitSpec{Kind::uniform, bound}; };
  const double dt_bound = c.dt_scale / std::sqrt(static_cast<double>(c.dt_rank));
  scan_.visit_decay(v, prefix, {c.d_inner, c.state}, {Kind::a_log_range});
  scan_.visit_skip(v, prefix + "D", c.d_inner);
  in_proj_.visit(v, prefix + "in_proj", 2 * c.d_inner, c.d_model, uniform(fan_in_bound(c.d_model)),
                 c.bias);
  conv_.visit(prefix, v);
  x_proj_.visit(v, prefix + "x_proj", c.dt_rank + 2 * c.state, c.d_inner,
                uniform(fan_in_bound(c.d_inner)));
  dt_proj_.visit(v, prefix + "dt_proj", c.d_inner, c.dt_rank,
                 c.dt_init_constant ? InitSpec{Kind::constant, dt_bound} : uniform(dt_bound));
  scan_.visit_dt_bias(v, prefix + "dt_proj.bias", c.d_inner);
  out_proj_.visit(v, prefix + "out_proj", c.d_model, c.d_inner,
                  uniform(fan_in_bound(c.d_inner) * c.out_proj_scale), c.bias);
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
  scan_.enter(layout, in);
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
  in_proj_.forward(context, rows, {x, config_.d_model}, {s.xz, 2 * di});

  conv_.forward(context, layout, dense_view<const T>(s.xz, layout.len, 2 * di),
                dense_view(s.conv, layout.len, di), state.empty() ? nullptr : &state[0]);

  x_proj_.forward(context, rows, {s.conv, di}, {s.x_dbl, dbl});
  dt_proj_.forward(context, rows, {s.x_dbl, dbl}, {s.dt, di});

  S6Forward<T> scan;
  scan.in = scan_inputs(layout, s);
  scan.y = dense_view(s.y, layout.len, di);
  scan.saved = s.states;
  if (!state.empty()) scan.in.h0 = scan.hT = static_cast<Acc*>(state[1].data);
  s6_forward(context, scan_shape(layout), scan);

  out_proj_.forward(context, rows, {s.y, di}, {out, config_.d_model});
}

template <class T>
void Mamba1Mixer<T>::scan_backward(Context& context, const TokenLayout& layout,
                                   const Mamba1Saved<T>& s, const Mamba1Saved<T>& g) const {
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
  scan_.run_backward(context, scan, [&](const S6Backward<T>& args) {
    s6_backward(context, scan_shape(layout), args);
  });
}

template <class T>
void Mamba1Mixer<T>::backward(Context& context, const TokenLayout& layout, const T* x,
                              const T* gout, const MixerSaved& saved, T* dx) const {
  Arena::Scope scope(*context.arena);
  const auto& s = static_cast<const Mamba1Saved<T>&>(saved);
  const Mamba1Saved<T> g = carve(context, layout, false);
  const int64_t rows = layout.rows();
  const int64_t d = config_.d_model, di = config_.d_inner;
  const int64_t dbl = config_.dt_rank + 2 * config_.state;
  out_proj_.backward(context, rows, {gout, d}, {s.y, di}, {g.y, di});
  scan_backward(context, layout, s, g);
  dt_proj_.backward(context, rows, {g.dt, di}, {s.x_dbl, dbl}, {g.x_dbl, dbl});
  x_proj_.backward(context, rows, {g.x_dbl, dbl}, {s.conv, di}, {g.conv, di}, true);
  conv_.backward(context, layout, dense_view<const T>(s.xz, layout.len, 2 * di),
                 dense_view<const T>(g.conv, layout.len, di), dense_view(g.xz, layout.len, 2 * di));
  in_proj_.backward(context, rows, {g.xz, 2 * di}, {x, d}, {dx, d});
}

template class Mamba1Mixer<double>;
template class Mamba1Mixer<float>;
template class Mamba1Mixer<Bf16>;

}  // namespace adder
