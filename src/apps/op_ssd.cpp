// `adder op ssd`. Tensors: x, z (batch, len, heads, head_dim); dt (batch, len, heads); A, dt_bias
// (heads); B, C (batch, len, groups, state); D (heads) or (heads, head_dim); h0 (rows, heads,
// head_dim, state) with a row for each batch row or packed sequence; flag softplus (default 1, as
// in Mamba-2); dt_limit (2); cu_seqlens; chunk (1) -> y, hT. Upstream gradients gy, ghT.
#include "kernels/ssd/ssd.h"

#include "apps/op_scan.h"
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

  std::vector<int64_t> y_shape() const {
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

  /// The output gradients, in the order of the header; null where the input is absent.
  void gradients(OpOutputs& out, SsdBackward<T>& args) const {
    args.dx = channels(out.add<T>("d_x", y_shape()));
    args.ddt = steps(out.add<T>("d_dt", dt_shape()));
    args.dB = projections(out.add<T>("d_B", bc_shape()));
    args.dC = projections(out.add<T>("d_C", bc_shape()));
    args.dz = channels(out.add_if<T>(z.present(), "d_z", y_shape()));
    args.dA = out.add<Acc>("d_A", A.shape());
    args.dD = out.add_if<Acc>(D.present(), "d_D", D.shape());
    args.ddt_bias = out.add_if<Acc>(dt_bias.present(), "d_dt_bias", dt_bias.shape());
    args.dh0 = out.add_if<Acc>(h0.present(), "d_h0", state_shape());
  }
};

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
  a.x = in.read<T>("x", a.y_shape());
  a.dt = in.read<T>("dt", a.dt_shape());
  a.z = in.read_if<T>("z", a.y_shape());
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

/// The family as run_scan sees it.
struct SsdFamily {
  static constexpr const char* kName = "ssd";
  template <class T>
  using Forward = SsdForward<T>;
  template <class T>
  using Backward = SsdBackward<T>;
  template <class T>
  static std::span<const SsdLine<T>> lines() {
    return ssd_lines<T>();
  }
  template <class T>
  static void door(Context& c, const SsdShape& s, const Forward<T>& args, const Choice& choice) {
    ssd_forward(c, s, args, choice);
  }
  template <class T>
  static void door(Context& c, const SsdShape& s, const Backward<T>& args, const Choice& choice) {
    ssd_backward(c, s, args, choice);
  }
  template <class T>
  static void reference(const SsdShape& shape, const Forward<T>& args) {
    ref::ssd_forward(shape, args);
  }
  template <class T>
  static void reference(const SsdShape& shape, const Backward<T>& args) {
    ref::ssd_backward(shape, args);
  }
};

}  // namespace

void run_ssd_op(const OpRequest& request, OpInputs& in, OpOutputs& out) {
  with_storage_type(request.dtype, [&](auto value) {
    using T = decltype(value);
    check_impl(request, ssd_lines<T>());
    run_scan<SsdFamily, T>(request, in, out, read_ssd<T>(in));
  });
}

}  // namespace adder::apps
