// One call of each table of `pointwise`.
#pragma once

#include <string>

#include "kernels/pointwise/pointwise.h"
#include "kernels/ref/pointwise_ref.h"
#include "measure/call_options.h"

namespace adder::measure {

struct PointwiseCase {
  PointwiseShape shape;
  int64_t gap = 0;          // elements between rows beyond the width
  double scale = 1;         // of the gate, of values to convert
  bool accumulate = false;  // sums are added to

  int64_t stride() const { return shape.width + gap; }
  std::string describe() const {
    return OptionText(shape.describe() + " gap " + std::to_string(gap))
        .on(accumulate, "accumulate")
        .text();
  }
};

template <class T>
class GateCall : public FamilyCall<GateCall<T>> {
 public:
  using Given = PointwiseCase;
  using Wide = GateCall<double>;
  static constexpr Doors<PointwiseShape, GateForward<T>, GateBackward<T>> kDoors = {
      gate_forward<T>, gate_backward<T>, ref::gate_forward<T>, ref::gate_backward<T>};

  explicit GateCall(const Given& c) : given(c) {
    make_arrays(true, c.shape.rows * given.stride(), y, gate, gout, out, dy, dgate);
  }
  GateCall(const Given& c, uint64_t seed) : GateCall(c) {
    fill_normal(y, seed, "pointwise.y");
    fill_normal(gate, seed, "pointwise.gate", c.scale);
    fill_normal(gout, seed, "pointwise.gout");
  }

  GateForward<T> forward(Side side) {
    return {y.at(side),     given.stride(), gate.at(side),
            given.stride(), out.at(side),   given.stride()};
  }
  GateBackward<T> backward(Side side) {
    return {y.at(side),     given.stride(), gate.at(side),  given.stride(), gout.at(side),
            given.stride(), dy.at(side),    given.stride(), dgate.at(side), given.stride()};
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

/// Dense: there are no gaps.
template <class From, class To>
class ConvertCall : public FamilyCall<ConvertCall<From, To>> {
 public:
  using Given = PointwiseCase;
  using Wide = ConvertCall<double, double>;
  static constexpr Doors<PointwiseShape, ConvertArgs<From, To>, NoBackward> kDoors = {
      convert<From, To>, nullptr, ref::convert<From, To>};

  explicit ConvertCall(const Given& c)
      : given(c), from(c.shape.rows * c.shape.width), to(from.count()) {}
  ConvertCall(const Given& c, uint64_t seed) : ConvertCall(c) {
    fill_normal(from, seed, "pointwise.from", c.scale);
  }
  ConvertArgs<From, To> forward(Side side) { return {from.at(side), to.at(side)}; }
  void list(ArrayList& arrays) override {
    arrays.input("from", from);
    arrays.output("to", to);
  }
  static Cost cost(const Given& given, Direction) {
    return given.shape.cost(dtype_of<From>, dtype_of<To>);
  }

  Given given;
  Guarded<From> from;
  Guarded<To> to;
};

template <class T>
class ColumnSumCall : public FamilyCall<ColumnSumCall<T>> {
 public:
  using Given = PointwiseCase;
  using Wide = ColumnSumCall<double>;
  static constexpr Doors<PointwiseShape, ColumnSumArgs<T>, NoBackward> kDoors = {
      column_sum<T>, nullptr, ref::column_sum<T>};

  explicit ColumnSumCall(const Given& c)
      : given(c), g(c.shape.rows * c.stride()), out(c.shape.width) {}
  ColumnSumCall(const Given& c, uint64_t seed) : ColumnSumCall(c) {
    fill_normal(g, seed, "pointwise.g");
    if (c.accumulate) fill_normal(out, seed, "pointwise.sums");
  }
  ColumnSumArgs<T> forward(Side side) {
    return {g.at(side), given.stride(), out.at(side), given.accumulate};
  }
  void list(ArrayList& arrays) override {
    arrays.input("g", g);
    arrays.output("out", out);
  }
  static Cost cost(const Given& given, Direction) {
    return given.shape.cost(dtype_of<T>, dtype_of<T>);
  }

  Given given;
  Guarded<T> g;
  Guarded<accumulate_t<T>> out;
};

/// Dense: there are no gaps.
template <class Acc>
class DecayCall : public FamilyCall<DecayCall<Acc>> {
 public:
  using Given = PointwiseCase;
  using Wide = DecayCall<double>;
  static constexpr Doors<PointwiseShape, DecayForward<Acc>, DecayBackward<Acc>> kDoors = {
      decay_forward<Acc>, decay_backward<Acc>, ref::decay_forward<Acc>, ref::decay_backward<Acc>};

  explicit DecayCall(const Given& c) : given(c) {
    make_arrays(true, c.shape.rows * c.shape.width, a_log, a, given_a, da, da_log);
  }
  DecayCall(const Given& c, uint64_t seed) : DecayCall(c) {
    fill_uniform(a_log, seed, "pointwise.a_log", -8, 5);
    fill_uniform(given_a, seed, "pointwise.given_a", -9, -0.1);
    fill_normal(da, seed, "pointwise.da");
    if (c.accumulate) fill_normal(da_log, seed, "pointwise.sums");
  }
  DecayForward<Acc> forward(Side side) { return {a_log.at(side), a.at(side)}; }
  DecayBackward<Acc> backward(Side side) {
    return {given_a.at(side), da.at(side), da_log.at(side), given.accumulate};
  }
  void list(ArrayList& arrays) override {
    arrays.input("a_log", a_log);
    arrays.input("given_a", given_a);
    arrays.output("a", a);
    arrays.upstream("da", da, a);
    arrays.gradient("da_log", da_log, a_log);
  }
  static Cost cost(const Given& given, Direction) {
    return given.shape.cost(dtype_of<Acc>, dtype_of<Acc>);
  }

  Given given;
  Guarded<Acc> a_log, a, given_a, da, da_log;
};

}  // namespace adder::measure
