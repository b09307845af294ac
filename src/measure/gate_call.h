// One call of the gate of `pointwise`.
#pragma once

#include <string>

#include "kernels/pointwise/pointwise.h"
#include "kernels/ref/pointwise_ref.h"
#include "measure/call_options.h"

namespace adder::measure {

struct GateCase {
  PointwiseShape shape;
  int64_t gap = 0;   // elements between rows beyond the width
  double scale = 1;  // of the gate

  std::string describe() const { return shape.describe() + " gap " + std::to_string(gap); }
};

template <class T>
class GateCall : public FamilyCall<GateCall<T>> {
 public:
  using Given = GateCase;
  using Wide = GateCall<double>;
  static constexpr Doors<PointwiseShape, GateForward<T>, GateBackward<T>> kDoors = {
      gate_forward<T>, gate_backward<T>, ref::gate_forward<T>, ref::gate_backward<T>};

  explicit GateCall(const Given& c) : given(c) {
    make_arrays(true, c.shape.rows * stride(), y, gate, gout, out, dy, dgate);
  }
  GateCall(const Given& c, uint64_t seed) : GateCall(c) {
    fill_normal(y, seed, "pointwise.y");
    fill_normal(gate, seed, "pointwise.gate", c.scale);
    fill_normal(gout, seed, "pointwise.gout");
  }

  int64_t stride() const { return given.shape.width + given.gap; }
  GateForward<T> forward(Side side) {
    return {y.at(side), stride(), gate.at(side), stride(), out.at(side), stride()};
  }
  GateBackward<T> backward(Side side) {
    return {y.at(side), stride(),    gate.at(side), stride(),       gout.at(side),
            stride(),   dy.at(side), stride(),      dgate.at(side), stride()};
  }
  void list(ArrayList& arrays) override {
    arrays.input("y", y);
    arrays.input("gate", gate);
    arrays.output("out", out);
    arrays.upstream("gout", gout, out);
    arrays.gradient("dy", dy, y);
    arrays.gradient("dgate", dgate, gate);
  }
  static Cost cost(const Given& given, Direction direction) {
    Cost cost = given.shape.cost(dtype_of<T>, dtype_of<T>);
    cost.bytes *= direction == Direction::forward ? 1.5 : 2.5;
    cost.exps = static_cast<double>(given.shape.rows * given.shape.width);
    return cost;
  }

  Given given;
  Guarded<T> y, gate, gout, out, dy, dgate;
};

}  // namespace adder::measure
