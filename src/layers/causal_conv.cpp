#include "layers/causal_conv.h"

namespace adder {

template <class T>
void CausalConv<T>::visit(const std::string& prefix, ParamVisitor<Acc>& visitor) {
  const InitSpec init = {InitSpec::Kind::uniform, fan_in_bound(width_)};
  visitor.vector(
      w_, dw_,
      vector_param(prefix + "conv1d.weight", {channels_, 1, width_}, init, ParamKind::conv));
  if (!has_bias_) return;
  visitor.vector(bias_, dbias_, vector_param(prefix + "conv1d.bias", {channels_}, init));
}

template <class T>
Conv1dShape CausalConv<T>::shape(const TokenLayout& layout) const {
  Conv1dShape shape;
  shape.batch = layout.batch;
  shape.len = layout.len;
  shape.channels = channels_;
  shape.width = width_;
  shape.sequences = layout.sequences;
  shape.silu = true;
  return shape;
}

template <class T>
Conv1dInputs<T> CausalConv<T>::inputs(const TokenLayout& layout,
                                      const TokenView<const T>& x) const {
  Conv1dInputs<T> in;
  in.x = x;
  in.w = w_;
  in.bias = bias_;
  in.cu_seqlens = layout.cu_seqlens;
  in.state_index = layout.state_index;
  return in;
}

template <class T>
void CausalConv<T>::forward(Context& context, const TokenLayout& layout,
                            const TokenView<const T>& x, const TokenView<T>& y,
                            const StatePart* state) const {
  Conv1dForward<T> args;
  args.in = inputs(layout, x);
  args.y = y;
  if (state != nullptr) args.in.s0 = args.sT = static_cast<T*>(state->data);
  conv1d_forward(context, shape(layout), args);
}

template <class T>
void CausalConv<T>::backward(Context& context, const TokenLayout& layout,
                             const TokenView<const T>& x, const TokenView<const T>& gy,
                             const TokenView<T>& dx) const {
  Conv1dBackward<T> args;
  args.in = inputs(layout, x);
  args.gy = gy;
  args.dx = dx;
  args.dw = dw_;
  args.dbias = dbias_;
  args.accumulate = true;
  conv1d_backward(context, shape(layout), args);
}

template class CausalConv<double>;
template class CausalConv<float>;
template class CausalConv<Bf16>;

}  // namespace adder
