// `adder op s6`. Tensors: u, dt, z (batch, len, dim); A (dim, state); B, C (batch, len, groups,
// state); D, dt_bias (dim); h0 (rows, dim, state) with a row for each batch row or packed sequence;
// flag softplus (default 0); dt_limit (2); cu_seqlens -> y, hT. Upstream gradients gy, ghT. Complex
// scan: A, B, C, h0 and ghT end in one more size of 2 (real and imaginary part), and so do hT and
// their gradients. B or C of shape (dim, state) is constant over the tokens; then the other one is
// constant, too, or has groups = dim.
#include <cmath>

#include "apps/op.h"
#include "kernels/ref/s6_ref.h"
#include "kernels/s6/s6.h"

namespace adder::apps {
namespace {

/// Inputs of one call; absent arrays give null pointers.
template <class T>
struct S6Arrays {
  using Acc = accumulate_t<T>;
  S6Shape shape;
  OpArray<T> u, dt, B, C, z;
  OpArray<Acc> A, D, dt_bias, h0;
  OpArray<int32_t> starts;
  Acc dt_min = -std::numeric_limits<Acc>::infinity();
  Acc dt_max = std::numeric_limits<Acc>::infinity();

  std::vector<int64_t> u_shape() const { return {shape.batch, shape.len, shape.dim}; }
  std::vector<int64_t> bc_shape() const {
    return pairs({shape.batch, shape.len, shape.groups, shape.state});
  }
  std::vector<int64_t> state_shape() const {
    return pairs({shape.state_rows(), shape.dim, shape.state});
  }
  std::vector<int64_t> pairs(std::vector<int64_t> sizes) const {
    if (shape.complex) sizes.push_back(2);
    return sizes;
  }
  TokenView<const T> channels(const OpArray<T>& array) const {
    return dense_view<const T>(array.data(), shape.len, shape.dim);
  }
  TokenView<T> channels(T* data) const { return dense_view<T>(data, shape.len, shape.dim); }
  bool is_constant(const OpInputs& in, const char* name) const {
    return in.rank(name) == (shape.complex ? 3 : 2);
  }
  TokenView<T> projections(T* data, const OpArray<T>& input) const {
    if (input.shape() == A.shape()) return {data, 0, 0, 1};
    return dense_view<T>(data, shape.len, shape.groups * shape.state_numbers());
  }

  S6Inputs<T> inputs() const {
    S6Inputs<T> in;
    in.u = channels(u);
    in.dt = channels(dt);
    in.z = channels(z);
    in.B = projections(B.data(), B);
    in.C = projections(C.data(), C);
    in.A = A.data();
    in.D = D.data();
    in.dt_bias = dt_bias.data();
    in.dt_min = dt_min;
    in.dt_max = dt_max;
    in.h0 = h0.data();
    in.cu_seqlens = starts.data();
    return in;
  }
};

template <class T>
void read_dt_limit(OpInputs& in, S6Arrays<T>& arrays) {
  const OpArray<double> limit = in.read_if<double>("dt_limit", {2});
  if (!limit.present()) return;
  const double low = limit.data()[0];
  const double high = limit.data()[1];
  if (!(low <= high)) {
    in.fail("dt_limit", "wrong limits", "low <= high",
            std::to_string(low) + ", " + std::to_string(high));
  }
  arrays.dt_min = static_cast<accumulate_t<T>>(low);
  arrays.dt_max = static_cast<accumulate_t<T>>(high);
}

/// Groups of B and C: those of the one that varies, `dim` where one is constant (each channel has
/// rows of its own then).
int64_t groups_of(OpInputs& in, const S6Shape& shape) {
  int64_t groups = 0;
  for (const char* name : {"B", "C"}) {
    if (in.rank(name) == (shape.complex ? 3 : 2)) return shape.dim;
    groups = (shape.complex ? in.sizes(name, {"batch", "len", "groups", "state", "2"})
                            : in.sizes(name, {"batch", "len", "groups", "state"}))[2];
  }
  return groups;
}

template <class T>
S6Arrays<T> read_s6(OpInputs& in) {
  using Acc = accumulate_t<T>;
  S6Arrays<T> a;
  const auto u = in.sizes("u", {"batch", "len", "dim"});
  a.shape.complex = in.rank("A") == 3;
  const auto state =
      (a.shape.complex ? in.sizes("A", {"dim", "state", "2"}) : in.sizes("A", {"dim", "state"}))[1];
  a.shape.batch = u[0];
  a.shape.len = u[1];
  a.shape.dim = u[2];
  a.shape.state = state;
  a.shape.groups = groups_of(in, a.shape);
  a.starts = in.sequence_starts(u[0], u[1]);
  if (a.starts.present()) a.shape.sequences = a.starts.count() - 1;
  a.shape.softplus = in.flag("softplus", false);
  a.shape.gated = in.has("z");
  a.u = in.read<T>("u", a.u_shape());
  a.dt = in.read<T>("dt", a.u_shape());
  a.z = in.read_if<T>("z", a.u_shape());
  a.A = in.read<Acc>("A", a.pairs({u[2], state}));
  a.B = in.read<T>("B", a.is_constant(in, "B") ? a.A.shape() : a.bc_shape());
  a.C = in.read<T>("C", a.is_constant(in, "C") ? a.A.shape() : a.bc_shape());
  a.D = in.read_if<Acc>("D", {u[2]});
  a.dt_bias = in.read_if<Acc>("dt_bias", {u[2]});
  a.h0 = in.read_if<Acc>("h0", a.state_shape());
  read_dt_limit(in, a);
  a.shape.check();
  return a;
}

/// The output gradients, in the order of the header; null where the input is absent.
template <class T>
void add_gradients(const S6Arrays<T>& a, OpOutputs& out, S6Backward<T>& args) {
  using Acc = accumulate_t<T>;
  args.du = a.channels(out.add<T>("d_u", a.u_shape()));
  args.ddt = a.channels(out.add<T>("d_dt", a.u_shape()));
  args.dB = a.projections(out.add<T>("d_B", a.B.shape()), a.B);
  args.dC = a.projections(out.add<T>("d_C", a.C.shape()), a.C);
  args.dz = a.channels(out.add_if<T>(a.z.present(), "d_z", a.u_shape()));
  args.dA = out.add<Acc>("d_A", a.A.shape());
  args.dD = out.add_if<Acc>(a.D.present(), "d_D", a.D.shape());
  args.ddt_bias = out.add_if<Acc>(a.dt_bias.present(), "d_dt_bias", a.dt_bias.shape());
  args.dh0 = out.add_if<Acc>(a.h0.present(), "d_h0", a.state_shape());
}

template <class T>
void run_s6(const OpRequest& request, OpInputs& in, OpOutputs& out) {
  using Acc = accumulate_t<T>;
  check_impl(request, s6_lines<T>());
  const S6Arrays<T> a = read_s6<T>(in);
  const bool reference = request.reference();
  const OpArray<Acc> saved =
      request.grads && !reference ? OpArray<Acc>({a.shape.saved_elements()}) : OpArray<Acc>();
  S6Forward<T> forward;
  forward.in = a.inputs();
  forward.y = a.channels(out.add<T>("y", a.u_shape()));
  forward.hT = out.add<Acc>("hT", a.state_shape());
  forward.saved = saved.data();

  S6Backward<T> backward;
  OpArray<T> gy;
  OpArray<Acc> ghT;
  if (request.grads) {
    gy = in.read_if<T>("gy", a.u_shape());
    ghT = in.read_if<Acc>("ghT", a.state_shape());
    if (!gy.present() && !ghT.present()) in.fail("gy", "--grads", "gy or ghT", "neither");
    if (!gy.present()) gy = OpArray<T>(a.u_shape());
    backward.in = forward.in;
    backward.saved = forward.saved;
    backward.gy = a.channels(gy);
    backward.ghT = ghT.data();
    add_gradients(a, out, backward);
  }
  if (reference) {
    out.add_line(OpRequest::kReference);
    ref::s6_forward(a.shape, forward);
    if (request.grads) ref::s6_backward(a.shape, backward);
    return;
  }
  const Choice choice{request.impl, 0};
  note_lines("s6", s6_lines<T>(), a.shape, request, out);
  run_planned(request.threads, [&](Context& context) {
    s6_forward(context, a.shape, forward, choice);
    if (request.grads) s6_backward(context, a.shape, backward, choice);
  });
}

}  // namespace

void run_s6_op(const OpRequest& request, OpInputs& in, OpOutputs& out) {
  with_storage_type(request.dtype, [&](auto value) { run_s6<decltype(value)>(request, in, out); });
}

}  // namespace adder::apps
