// `adder op ssd`. Tensors: x, z (batch, len, heads, head_dim); dt (batch, len, heads); A, dt_bias
// (heads); B, C (batch, len, groups, state); D (heads) or (heads, head_dim); h0 (rows, heads,
// head_dim, state) with a row for each batch row or packed sequence; flag softplus (default 1, as
// in Mamba-2); dt_limit (2); cu_seqlens; chunk (1) -> y, hT. Upstream gradients gy, ghT.
#include "kernels/ssd/ssd.h"

#include "apps/op.h"
#include "kernels/ref/ssd_ref.h"

namespace adder::apps {
namespace {

/// Inputs of one call; absent arrays give null pointers.
template <class T>
struct SsdArrays {
  using Acc = accumulate_t<T>;
  SsdShape shape;
  OpArray<T> x, dt, B, C, z;
  OpArray<Acc> A, D, dt_bias, h0;
  OpArray<int32_t> starts;
  Acc dt_min = -std::numeric_limits<Acc>::infinity();
  Acc dt_max = std::numeric_limits<Acc>::infinity();

  std::vector<int64_t> x_shape() const {
    return {shape.batch, shape.len, shape.heads, shape.head_dim};
  }
  std::vector<int64_t> dt_shape() const { return {shape.batch, shape.len, shape.heads}; }
  std::vector<int64_t> bc_shape() const {
    return {shape.batch, shape.len, shape.groups, shape.state};
  }
  std::vector<int64_t> state_shape() const {
    return {shape.state_rows(), shape.heads, shape.head_dim, shape.state};
  }
  template <class U>
  TokenView<U> channels(U* data) const {
    return dense_view<U>(data, shape.len, shape.inner());
  }
  template <class U>
  TokenView<U> steps(U* data) const {
    return dense_view<U>(data, shape.len, shape.heads);
  }
  template <class U>
  TokenView<U> projections(U* data) const {
    return dense_view<U>(data, shape.len, shape.groups * shape.state);
  }

  SsdInputs<T> inputs() const {
    SsdInputs<T> in;
    in.x = channels(x.data());
    in.dt = steps(dt.data());
    in.z = channels(z.data());
    in.B = projections(B.data());
    in.C = projections(C.data());
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
void read_dt_limit(OpInputs& in, SsdArrays<T>& arrays) {
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

template <class T>
void read_shape(OpInputs& in, SsdArrays<T>& a) {
  const auto x = in.sizes("x", {"batch", "len", "heads", "head_dim"});
  const auto B = in.sizes("B", {"batch", "len", "groups", "state"});
  a.shape.batch = x[0];
  a.shape.len = x[1];
  a.shape.heads = x[2];
  a.shape.head_dim = x[3];
  a.shape.groups = B[2];
  a.shape.state = B[3];
  a.starts = in.sequence_starts(x[0], x[1]);
  if (a.starts.present()) a.shape.sequences = a.starts.count() - 1;
  a.shape.softplus = in.flag("softplus", true);
  a.shape.gated = in.has("z");
  a.shape.d_per_channel = in.has("D") && in.rank("D") == 2;
  const OpArray<int32_t> chunk = in.read_if<int32_t>("chunk", {1});
  if (chunk.present()) a.shape.chunk = chunk.data()[0];
  a.shape.check();
}

template <class T>
SsdArrays<T> read_ssd(OpInputs& in) {
  using Acc = accumulate_t<T>;
  SsdArrays<T> a;
  read_shape(in, a);
  const int64_t heads = a.shape.heads;
  a.x = in.read<T>("x", a.x_shape());
  a.dt = in.read<T>("dt", a.dt_shape());
  a.z = in.read_if<T>("z", a.x_shape());
  a.A = in.read<Acc>("A", {heads});
  a.B = in.read<T>("B", a.bc_shape());
  a.C = in.read<T>("C", a.bc_shape());
  a.D = in.read_if<Acc>("D", a.shape.d_per_channel ? std::vector<int64_t>{heads, a.shape.head_dim}
                                                   : std::vector<int64_t>{heads});
  a.dt_bias = in.read_if<Acc>("dt_bias", {heads});
  a.h0 = in.read_if<Acc>("h0", a.state_shape());
  read_dt_limit(in, a);
  return a;
}

/// The output gradients; null where the input is absent.
template <class T>
void add_gradients(const SsdArrays<T>& a, OpOutputs& out, SsdBackward<T>& args) {
  using Acc = accumulate_t<T>;
  args.dx = a.channels(out.add<T>("d_x", a.x_shape()));
  args.ddt = a.steps(out.add<T>("d_dt", a.dt_shape()));
  args.dB = a.projections(out.add<T>("d_B", a.bc_shape()));
  args.dC = a.projections(out.add<T>("d_C", a.bc_shape()));
  args.dz = a.channels(out.add_if<T>(a.z.present(), "d_z", a.x_shape()));
  args.dA = out.add<Acc>("d_A", a.A.shape());
  args.dD = out.add_if<Acc>(a.D.present(), "d_D", a.D.shape());
  args.ddt_bias = out.add_if<Acc>(a.dt_bias.present(), "d_dt_bias", a.dt_bias.shape());
  args.dh0 = out.add_if<Acc>(a.h0.present(), "d_h0", a.state_shape());
}

template <class T>
void run_ssd(const OpRequest& request, OpInputs& in, OpOutputs& out) {
  using Acc = accumulate_t<T>;
  check_impl(request, ssd_lines<T>());
  const SsdArrays<T> a = read_ssd<T>(in);
  const bool reference = request.reference();
  const OpArray<Acc> saved =
      request.grads && !reference ? OpArray<Acc>({a.shape.saved_elements()}) : OpArray<Acc>();
  SsdForward<T> forward;
  forward.in = a.inputs();
  forward.y = a.channels(out.add<T>("y", a.x_shape()));
  forward.hT = out.add<Acc>("hT", a.state_shape());
  forward.saved = saved.data();

  SsdBackward<T> backward;
  OpArray<T> gy;
  OpArray<Acc> ghT;
  if (request.grads) {
    gy = in.read_if<T>("gy", a.x_shape());
    ghT = in.read_if<Acc>("ghT", a.state_shape());
    if (!gy.present() && !ghT.present()) in.fail("gy", "--grads", "gy or ghT", "neither");
    if (!gy.present()) gy = OpArray<T>(a.x_shape());
    backward.in = forward.in;
    backward.saved = forward.saved;
    backward.gy = a.channels(static_cast<const T*>(gy.data()));
    backward.ghT = ghT.data();
    add_gradients(a, out, backward);
  }
  if (reference) {
    out.add_line(OpRequest::kReference);
    ref::ssd_forward(a.shape, forward);
    if (request.grads) ref::ssd_backward(a.shape, backward);
    return;
  }
  const Choice choice{request.impl, 0};
  note_lines("ssd", ssd_lines<T>(), a.shape, request, out);
  run_planned(request.threads, [&](Context& context) {
    ssd_forward(context, a.shape, forward, choice);
    if (request.grads) ssd_backward(context, a.shape, backward, choice);
  });
}

}  // namespace

void run_ssd_op(const OpRequest& request, OpInputs& in, OpOutputs& out) {
  with_storage_type(request.dtype, [&](auto value) { run_ssd<decltype(value)>(request, in, out); });
}

}  // namespace adder::apps
