// One call of `conv1d`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/conv1d/conv1d.h"
#include "kernels/ref/conv1d_ref.h"
#include "measure/sequence_call.h"

namespace adder::measure {

/// The shape and the options around it.
struct Conv1dCase {
  Conv1dShape shape;
  std::vector<int32_t> cu = {};  // packed: the boundaries
  bool bias = true;
  bool state = true;                        // s0, ds0
  std::optional<bool> upstream_state = {};  // gsT; unset: as `state`
  bool final_state = true;                  // sT
  bool in_place = false;                    // sT is s0
  bool indexed = false;                     // state_index
  bool reversed = false;                    // order
  bool accumulate = false;                  // dw and dbias are added to
  int64_t channel_stride = 1;
  int64_t gap = 0;       // elements between the rows of a wider tensor
  int64_t row_gap = -1;  // elements after each batch row; -1: batch_gap()
  double scale = 1.0;    // of x

  int64_t slots() const { return shape.state_rows() * (indexed ? 2 : 1); }
  int64_t token_stride() const { return shape.channels * channel_stride + gap; }
  int64_t state_numbers() const { return (shape.width - 1) * shape.channels; }
  /// Sums of gradients differ, forward does not.
  bool only_backward() const { return accumulate; }
  std::string describe() const {
    return OptionText(shape.describe())
        .on(bias, "bias")
        .on(state, "state")
        .on(in_place, "in_place")
        .on(indexed, "indexed")
        .on(reversed, "reversed")
        .on(accumulate, "accumulate")
        .number<int64_t>(channel_stride, 1, "channel_stride")
        .number<int64_t>(gap, 0, "gap")
        .number(scale, 1.0, "scale")
        .text();
  }
  /// Every option on, nothing between rows: what tests of laws index flatly.
  static Conv1dCase dense(const Conv1dShape& shape, std::vector<int32_t> cu = {}) {
    return {.shape = shape, .cu = std::move(cu), .row_gap = 0};
  }
};

template <class T>
class Conv1dCall : public FamilyCall<Conv1dCall<T>> {
 public:
  using Acc = accumulate_t<T>;
  using Given = Conv1dCase;
  using Wide = Conv1dCall<double>;
  static constexpr Doors<Conv1dShape, Conv1dForward<T>, Conv1dBackward<T>> kDoors = {
      conv1d_forward<T>, conv1d_backward<T>, ref::conv1d_forward<T>, ref::conv1d_backward<T>};

  explicit Conv1dCall(const Given& c) : given(c) {
    if (given.row_gap < 0) given.row_gap = batch_gap();
    const Conv1dShape& shape = c.shape;
    make_arrays(true, shape.batch * row_elements(), x, gy, y, dx);
    make_arrays(true, shape.channels * shape.width, w, dw);
    make_arrays(c.bias, shape.channels, bias, dbias);
    make_arrays(c.state, c.slots() * c.state_numbers(), s0);
    make_arrays(c.final_state, c.slots() * c.state_numbers(), sT);
    make_arrays(c.state, shape.state_rows() * c.state_numbers(), ds0);
    make_arrays(c.upstream_state.value_or(c.state), shape.state_rows() * c.state_numbers(), gsT);
    sequence.make(c);
  }
  Conv1dCall(const Given& c, uint64_t seed) : Conv1dCall(c) {
    fill_normal(x, seed, "conv1d.x", c.scale);
    fill_normal(gy, seed, "conv1d.gy");
    fill_uniform(w, seed, "conv1d.w", -0.7, 0.7);
    fill_uniform(bias, seed, "conv1d.bias", -0.5, 0.5);
    fill_normal(s0, seed, "conv1d.s0", c.scale);
    fill_normal(gsT, seed, "conv1d.gsT");
    if (c.in_place) sT = s0;
    if (!c.accumulate) return;
    for (auto* sum : {&dw, &dbias}) fill_normal(*sum, seed, "conv1d.sums");
  }

  template <class U>
  TokenView<U> view(U* data) const {
    return {data, row_elements(), given.token_stride(), given.channel_stride};
  }
  Conv1dInputs<T> inputs(Side side) const {
    Conv1dInputs<T> in;
    in.x = view(x.at(side));
    in.w = w.at(side);
    in.bias = bias.at(side);
    in.s0 = s0.at(side);
    sequence.give(side, in);
    return in;
  }
  Conv1dForward<T> forward(Side side) {
    Conv1dForward<T> args{inputs(side), view(y.at(side)), sT.at(side)};
    if (given.in_place) args.in.s0 = args.sT;
    return args;
  }
  /// The token at t of each batch row.
  Conv1dForward<T> token(Side side, int64_t t) {
    Conv1dForward<T> args = forward(side);
    args.in.x.data += t * args.in.x.token_stride;
    args.y.data += t * args.y.token_stride;
    return args;
  }
  Conv1dBackward<T> backward(Side side) {
    Conv1dBackward<T> args;
    args.in = inputs(side);
    args.gy = view(gy.at(side));
    args.gsT = gsT.at(side);
    args.dx = view(dx.at(side));
    args.dw = dw.at(side);
    args.dbias = dbias.at(side);
    args.accumulate = given.accumulate;
    args.ds0 = ds0.at(side);
    return args;
  }
  void list(ArrayList& arrays) override {
    arrays.input("x", x).by_token(given.shape.channels);
    arrays.input("w", w);
    arrays.input("bias", bias);
    arrays.input("s0", s0).by_row(given.state_numbers());
    sequence.list(arrays);
    arrays.output("y", y).by_token(given.shape.channels);
    arrays.output("sT", sT).by_row(given.state_numbers());
    arrays.upstream("gy", gy, y).by_token(given.shape.channels);
    arrays.upstream("gsT", gsT, sT).by_row(given.state_numbers());
    arrays.gradient("dx", dx, x).by_token(given.shape.channels);
    arrays.gradient("dw", dw, w);
    arrays.gradient("dbias", dbias, bias);
    arrays.gradient("ds0", ds0, s0).by_row(given.state_numbers());
  }
  static Cost cost(const Given& given, Direction direction) {
    return given.shape.cost(direction, dtype_of<T>);
  }

  Given given;
  Guarded<T> x, gy, y, dx, s0, sT, gsT, ds0;
  Guarded<Acc> w, bias, dw, dbias;
  SequenceArrays sequence;

 private:
  int64_t row_elements() const { return given.shape.len * given.token_stride() + given.row_gap; }
};

}  // namespace adder::measure
