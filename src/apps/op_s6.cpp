// `adder op s6`. Tensors: u, dt, z (batch, len, dim); A (dim, state); B, C (batch, len, groups,
// state); D, dt_bias (dim); h0 (rows, dim, state) with a row for each batch row or packed sequence;
// flag softplus (default 0); dt_limit (2); cu_seqlens -> y, hT. Upstream gradients gy, ghT. Complex
// scan: A, B, C, h0 and ghT end in one more size of 2 (real and imaginary part), and so do hT and
// their gradients. B or C of shape (dim, state) is constant over the tokens; then the other one is
// constant, too, or has groups = dim.
#include <cmath>

#include "apps/op_scan.h"
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

  std::vector<int64_t> y_shape() const { return {shape.batch, shape.len, shape.dim}; }
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

  /// The output gradients, in the order of the header; null where the input is absent.
  void gradients(OpOutputs& out, S6Backward<T>& args) const {
    args.du = channels(out.add<T>("d_u", y_shape()));
    args.ddt = channels(out.add<T>("d_dt", y_shape()));
    args.dB = projections(out.add<T>("d_B", B.shape()), B);
    args.dC = projections(out.add<T>("d_C", C.shape()), C);
    args.dz = channels(out.add_if<T>(z.present(), "d_z", y_shape()));
    args.dA = out.add<Acc>("d_A", A.shape());
    args.dD = out.add_if<Acc>(D.present(), "d_D", D.shape());
    args.ddt_bias = out.add_if<Acc>(dt_bias.present(), "d_dt_bias", dt_bias.shape());
    args.dh0 = out.add_if<Acc>(h0.present(), "d_h0", state_shape());
  }
};

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
  a.u = in.read<T>("u", a.y_shape());
  a.dt = in.read<T>("dt", a.y_shape());
  a.z = in.read_if<T>("z", a.y_shape());
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

/// The family as run_scan sees it.
struct S6Family {
  static constexpr const char* kName = "s6";
  template <class T>
  using Forward = S6Forward<T>;
  template <class T>
  using Backward = S6Backward<T>;
  template <class T>
  static std::span<const S6Line<T>> lines() {
    return s6_lines<T>();
  }
  template <class T>
  static void door(Context& c, const S6Shape& s, const Forward<T>& args, const Choice& choice) {
    s6_forward(c, s, args, choice);
  }
  template <class T>
  static void door(Context& c, const S6Shape& s, const Backward<T>& args, const Choice& choice) {
    s6_backward(c, s, args, choice);
  }
  template <class T>
  static void reference(const S6Shape& shape, const Forward<T>& args) {
    ref::s6_forward(shape, args);
  }
  template <class T>
  static void reference(const S6Shape& shape, const Backward<T>& args) {
    ref::s6_backward(shape, args);
  }
};

}  // namespace

void run_s6_op(const OpRequest& request, OpInputs& in, OpOutputs& out) {
  with_storage_type(request.dtype, [&](auto value) {
    using T = decltype(value);
    check_impl(request, s6_lines<T>());
    run_scan<S6Family, T>(request, in, out, read_s6<T>(in));
  });
}

}  // namespace adder::apps
