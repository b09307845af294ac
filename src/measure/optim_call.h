// One call of `optim`: AdamW, the sum of squares, and the decision between them.
#pragma once

#include <cmath>
#include <string>

#include "kernels/optim/optim.h"
#include "kernels/ref/optim_ref.h"
#include "measure/call_options.h"

namespace adder::measure {

struct AdamWCase {
  OptimShape shape;
  AdamWConstants constants = {};
  StepState state = {};
  bool rounded = false;  // the parameters are stored in bf16, too

  std::string describe() const {
    return OptionText(shape.describe() + " t" + std::to_string(state.updates))
        .on(constants.weight_decay > 0, "decay")
        .on(state.clip != 1, "clip")
        .on(state.skip != 0, "skip")
        .on(rounded, "rounded")
        .text();
  }
};

template <class Acc>
class AdamWCall : public FamilyCall<AdamWCall<Acc>> {
 public:
  using Given = AdamWCase;
  using Wide = AdamWCall<double>;
  static constexpr Doors<OptimShape, AdamWArgs<Acc>, NoBackward> kDoors = {adamw_step<Acc>, nullptr,
                                                                           ref::adamw<Acc>};

  explicit AdamWCall(const Given& c) : given(c), state(1) {
    make_arrays(true, c.shape.count, g, p, m, v);
    make_arrays(c.rounded, c.shape.count, rounded);
    state[0] = c.state;
  }
  AdamWCall(const Given& c, uint64_t seed) : AdamWCall(c) {
    fill_normal(g, seed, "optim g", 1e-2);
    fill_normal(p, seed, "optim p");
    fill_normal(m, seed, "optim m", 1e-2);
    fill_uniform(v, seed, "optim v", 0, 1e-3);
    // A parameter that never had a gradient: 0 / (0 + eps).
    for (int64_t i = 3; i < c.shape.count; i += 17) g[i] = m[i] = v[i] = 0;
  }

  AdamWArgs<Acc> forward(Side side) { return range(side, 0); }
  /// The parameters from `first` on.
  AdamWArgs<Acc> range(Side side, int64_t first) {
    AdamWArgs<Acc> args;
    args.constants = given.constants;
    args.state = state.at(side);
    args.g = g.at(side) + first;
    args.p = p.at(side) + first;
    if (given.rounded) args.rounded = rounded.at(side) + first;
    args.m = m.at(side) + first;
    args.v = v.at(side) + first;
    return args;
  }
  void list(ArrayList& arrays) override {
    arrays.input("g", g);
    arrays.input("state", state);
    arrays.output("p", p);
    arrays.output("m", m);
    arrays.output("v", v);
    arrays.output("rounded", rounded);
  }
  // To the bit p rounded once.
  void check_outputs(Direction, Comparison& comparison) override {
    for (int64_t i = 0; given.state.skip == 0 && i < rounded.count(); ++i) {
      if (rounded[i].bits == from_double<Bf16>(to_double(p[i])).bits) continue;
      return comparison.add_fault("'rounded' is not p");
    }
  }
  static Cost cost(const Given& given, Direction) { return given.shape.cost(dtype_of<Acc>); }

  Given given;
  Guarded<StepState> state;
  Guarded<Acc> g, p, m, v;
  Guarded<Bf16> rounded;
};

struct SquaresCase {
  OptimShape shape;
  bool accumulate = false;

  std::string describe() const {
    return OptionText(shape.describe()).on(accumulate, "accumulate").text();
  }
};

template <class Acc>
class SquaresCall : public FamilyCall<SquaresCall<Acc>> {
 public:
  using Given = SquaresCase;
  using Wide = SquaresCall<double>;
  static constexpr Doors<OptimShape, SquaresArgs<Acc>, NoBackward> kDoors = {
      sum_of_squares<Acc>, nullptr, ref::sum_of_squares<Acc>};

  explicit SquaresCall(const Given& c) : given(c), g(c.shape.count), sum(1) {}
  SquaresCall(const Given& c, uint64_t seed) : SquaresCall(c) {
    fill_normal(g, seed, "optim g");
    if (c.accumulate) sum[0] = 0.75;
  }
  SquaresArgs<Acc> forward(Side side) { return {g.at(side), sum.at(side), given.accumulate}; }
  void list(ArrayList& arrays) override {
    arrays.input("g", g);
    arrays.output("sum", sum);
  }
  static Cost cost(const Given& given, Direction) {
    const auto count = static_cast<double>(given.shape.count);
    return {.flops = 2 * count, .bytes = count * static_cast<double>(sizeof(Acc))};
  }

  Given given;
  Guarded<Acc> g;
  Guarded<double> sum;
};

struct DecisionCase {
  OptimShape shape;
  StepState state = {};
  double clip_norm = 0;

  std::string describe() const {
    return OptionText("decision")
        .on(!std::isfinite(state.squares), "no_norm")
        .on(!std::isfinite(state.loss_sum), "no_loss")
        .number(clip_norm, 0.0, "clip_norm")
        .text();
  }
};

class DecisionCall : public FamilyCall<DecisionCall> {
 public:
  using Given = DecisionCase;
  using Wide = DecisionCall;
  static constexpr Doors<OptimShape, DecisionArgs, NoBackward> kDoors = {
      [](Context& context, const OptimShape&, const DecisionArgs& args, const Choice& choice) {
        decide_step(context, args, choice);
      },
      nullptr, ref::decide_step};

  explicit DecisionCall(const Given& c) : given(c), state(1) { state[0] = c.state; }
  DecisionCall(const Given& c, uint64_t) : DecisionCall(c) {}
  DecisionArgs forward(Side side) { return {state.at(side), given.clip_norm}; }
  void list(ArrayList& arrays) override { arrays.output("state", state); }
  static Cost cost(const Given&, Direction) { return {.flops = 5, .bytes = sizeof(StepState)}; }

  Given given;
  Guarded<StepState> state;
};

}  // namespace adder::measure
