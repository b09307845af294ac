// `adder op conv1d`. Tensors: x (batch, len, channels); w (channels, width); bias (channels); s0
// (rows,
// width - 1, channels) with a row for each batch row or packed sequence; flag silu (default 0);
// cu_seqlens -> y, sT. Upstream gradients gy, gsT.
#include "apps/op.h"
#include "kernels/conv1d/conv1d.h"
#include "kernels/ref/conv1d_ref.h"

namespace adder::apps {
namespace {

template <class T>
struct Conv1dArrays {
  using Acc = accumulate_t<T>;
  Conv1dShape shape;
  OpArray<T> x, s0;
  OpArray<Acc> w, bias;
  OpArray<int32_t> starts;

  std::vector<int64_t> x_shape() const { return {shape.batch, shape.len, shape.channels}; }
  std::vector<int64_t> state_shape() const {
    return {shape.state_rows(), shape.width - 1, shape.channels};
  }
  template <class U>
  TokenView<U> view(U* data) const {
    return dense_view<U>(data, shape.len, shape.channels);
  }

  Conv1dInputs<T> inputs() const {
    Conv1dInputs<T> in;
    in.x = view<const T>(x.data());
    in.w = w.data();
    in.bias = bias.data();
    in.s0 = s0.data();
    in.cu_seqlens = starts.data();
    return in;
  }
};

template <class T>
Conv1dArrays<T> read_conv1d(OpInputs& in) {
  using Acc = accumulate_t<T>;
  Conv1dArrays<T> a;
  const auto x = in.sizes("x", {"batch", "len", "channels"});
  const auto width = in.sizes("w", {"channels", "width"})[1];
  a.shape.batch = x[0];
  a.shape.len = x[1];
  a.shape.channels = x[2];
  a.shape.width = width;
  if (width < 1) in.fail("w", "wrong width", "at least 1", std::to_string(width));
  a.starts = in.sequence_starts(x[0], x[1]);
  if (a.starts.present()) a.shape.sequences = a.starts.count() - 1;
  a.shape.silu = in.flag("silu", false);
  a.x = in.read<T>("x", a.x_shape());
  a.w = in.read<Acc>("w", {x[2], width});
  a.bias = in.read_if<Acc>("bias", {x[2]});
  a.s0 = in.read_if<T>("s0", a.state_shape());
  a.shape.check();
  return a;
}

template <class T>
void add_gradients(const Conv1dArrays<T>& a, OpOutputs& out, Conv1dBackward<T>& args) {
  using Acc = accumulate_t<T>;
  args.dx = a.template view<T>(out.add<T>("d_x", a.x_shape()));
  args.dw = out.add<Acc>("d_w", a.w.shape());
  args.dbias = out.add_if<Acc>(a.bias.present(), "d_bias", a.bias.shape());
  args.ds0 = out.add_if<T>(a.s0.present(), "d_s0", a.state_shape());
}

template <class T>
void run_conv1d(const OpRequest& request, OpInputs& in, OpOutputs& out) {
  check_impl(request, conv1d_lines<T>());
  const Conv1dArrays<T> a = read_conv1d<T>(in);
  Conv1dForward<T> forward;
  forward.in = a.inputs();
  forward.y = a.template view<T>(out.add<T>("y", a.x_shape()));
  forward.sT = out.add<T>("sT", a.state_shape());

  Conv1dBackward<T> backward;
  OpArray<T> gy, gsT;
  if (request.grads) {
    gy = in.read_if<T>("gy", a.x_shape());
    gsT = in.read_if<T>("gsT", a.state_shape());
    if (!gy.present() && !gsT.present()) in.fail("gy", "--grads", "gy or gsT", "neither");
    if (!gy.present()) gy = OpArray<T>(a.x_shape());
    backward.in = forward.in;
    backward.gy = a.template view<const T>(gy.data());
    backward.gsT = gsT.data();
    add_gradients(a, out, backward);
  }
  if (request.reference()) {
    out.add_line(OpRequest::kReference);
    ref::conv1d_forward(a.shape, forward);
    if (request.grads) ref::conv1d_backward(a.shape, backward);
    return;
  }
  const Choice choice{request.impl, 0};
  note_lines("conv1d", conv1d_lines<T>(), a.shape, request, out);
  run_planned(request.threads, [&](Context& context) {
    conv1d_forward(context, a.shape, forward, choice);
    if (request.grads) conv1d_backward(context, a.shape, backward, choice);
  });
}

}  // namespace

void run_conv1d_op(const OpRequest& request, OpInputs& in, OpOutputs& out) {
  with_storage_type(request.dtype,
                    [&](auto value) { run_conv1d<decltype(value)>(request, in, out); });
}

}  // namespace adder::apps
