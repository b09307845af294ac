// One call of `loss`: softmax cross-entropy with its gradient, and the sum of the rows' losses.
#pragma once

#include <cmath>
#include <string>

#include "kernels/loss/loss.h"
#include "kernels/ref/loss_ref.h"
#include "measure/call_options.h"

namespace adder::measure {

struct LossCase {
  LossShape shape;
  int64_t pad = 0;   // elements between rows
  double scale = 2;  // standard deviation of the logits
  bool gradient = true;
  bool in_place = false;
  bool infinite = false;  // every fifth logit is -inf (never the target)

  std::string describe() const {
    return OptionText(shape.describe())
        .on(!gradient, "no_gradient")
        .on(in_place, "in_place")
        .on(infinite, "minus_inf")
        .number<int64_t>(pad, 0, "pad")
        .number(scale, 2.0, "scale")
        .text();
  }
};

/// In place where D is not L there is no gradient array to share: the case runs out of place.
template <class L, class D>
class LossCall : public FamilyCall<LossCall<L, D>> {
 public:
  using Given = LossCase;
  using Wide = LossCall<double, double>;
  static constexpr Doors<LossShape, LossForward<L, D>, NoBackward> kDoors = {
      softmax_cross_entropy<L, D>, nullptr, ref::softmax_cross_entropy<L, D>};

  explicit LossCall(const Given& c) : given(c) {
    if (!std::is_same_v<L, D>) given.in_place = false;
    const int64_t elements = c.shape.rows * stride();
    logits = Guarded<L>(elements);
    targets = Guarded<int32_t>(c.shape.rows);
    row_loss = Guarded<double>(c.shape.rows);
    gradient_scale = Guarded<double>(1);
    make_arrays(given.gradient && !given.in_place, elements, dlogits);
  }
  LossCall(const Given& c, uint64_t seed) : LossCall(c) {
    fill_normal(logits, seed, "loss logits", c.scale);
    gradient_scale[0] = 1.0 / 64;
    const auto vocab = static_cast<uint64_t>(c.shape.vocab);
    for (int64_t r = 0; r < c.shape.rows; ++r) {
      targets[r] = static_cast<int32_t>(
          uniform_below(seed, stream_of("loss targets"), static_cast<uint64_t>(r), vocab));
      for (int64_t v = 0; c.infinite && v < c.shape.vocab; v += 5) {
        if (v != targets[r]) logits[r * stride() + v] = from_double<L>(-INFINITY);
      }
      if (r % 4 == 3) targets[r] = kIgnoreIndex;
    }
  }

  int64_t stride() const { return given.shape.columns + given.pad; }
  LossForward<L, D> forward(Side side) {
    LossForward<L, D> args;
    args.logits = logits.at(side);
    args.logit_stride = stride();
    args.targets = targets.at(side);
    args.row_loss = row_loss.at(side);
    args.dlogits = dlogits.at(side);
    if constexpr (std::is_same_v<L, D>) {
      if (given.gradient && given.in_place) args.dlogits = logits.at(side);
    }
    args.dlogit_stride = stride();
    args.gradient_scale = gradient_scale.at(side);
    return args;
  }
  void list(ArrayList& arrays) override {
    if (given.gradient && given.in_place) {
      arrays.output("dlogits", logits);
    } else {
      arrays.input("logits", logits);
    }
    arrays.input("targets", targets);
    arrays.input("gradient_scale", gradient_scale);
    // A double that holds sums of the compute type.
    arrays.output("row_loss", row_loss).judged_as(dtype_of<accumulate_t<L>>);
    arrays.output("dlogits", dlogits);
  }
  static Cost cost(const Given& given, Direction) {
    return given.shape.cost(given.gradient ? Direction::backward : Direction::forward, dtype_of<L>);
  }

  Given given;
  Guarded<L> logits;
  Guarded<D> dlogits;
  Guarded<int32_t> targets;
  Guarded<double> row_loss, gradient_scale;
};

struct LossSumCase {
  LossSumShape shape;
  bool accumulate = false;

  std::string describe() const {
    return OptionText(shape.describe()).on(accumulate, "accumulate").text();
  }
};

class LossSumCall : public FamilyCall<LossSumCall> {
 public:
  using Given = LossSumCase;
  using Wide = LossSumCall;
  static constexpr Doors<LossSumShape, LossSumArgs, NoBackward> kDoors = {sum_losses, nullptr,
                                                                          ref::sum_losses};

  explicit LossSumCall(const Given& c) : given(c), row_loss(c.shape.rows), sum(1) {}
  LossSumCall(const Given& c, uint64_t seed) : LossSumCall(c) {
    fill_normal(row_loss, seed, "loss rows");
    if (c.accumulate) sum[0] = 1.25;
  }
  LossSumArgs forward(Side side) { return {row_loss.at(side), sum.at(side), given.accumulate}; }
  void list(ArrayList& arrays) override {
    arrays.input("row_loss", row_loss);
    arrays.output("sum", sum);
  }
  static Cost cost(const Given& given, Direction) { return given.shape.cost(); }

  Given given;
  Guarded<double> row_loss, sum;
};

}  // namespace adder::measure
