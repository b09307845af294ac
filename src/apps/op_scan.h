// What `op s6` and `op ssd` share: a scan with a state in and out and a dt chain (math.md 0.4).
#pragma once

#include <limits>
#include <string>

#include "apps/op.h"

namespace adder::apps {

/// Sets the limits of delta from `dt_limit` (2), if there.
template <class Arrays>
void read_dt_limit(OpInputs& in, Arrays& arrays) {
  const OpArray<double> limit = in.read_if<double>("dt_limit", {2});
  if (!limit.present()) return;
  const double low = limit.data()[0];
  const double high = limit.data()[1];
  if (!(low <= high)) {
    in.fail("dt_limit", "wrong limits", "low <= high",
            std::to_string(low) + ", " + std::to_string(high));
  }
  arrays.dt_min = static_cast<typename Arrays::Acc>(low);
  arrays.dt_max = static_cast<typename Arrays::Acc>(high);
}

/// Forward and, asked for gradients, backward; through the reference or the family's table. Family
/// names kName, Forward<T>, Backward<T>, lines<T>(), the doors and the references. Arrays: shape,
/// inputs(), y_shape(), channels(data), state_shape(), gradients(out, args).
template <class Family, class T, class Arrays>
void run_scan(const OpRequest& request, OpInputs& in, OpOutputs& out, const Arrays& a) {
  using Acc = accumulate_t<T>;
  const bool reference = request.reference();
  const OpArray<Acc> saved =
      request.grads && !reference ? OpArray<Acc>({a.shape.saved_elements()}) : OpArray<Acc>();
  typename Family::template Forward<T> forward;
  forward.in = a.inputs();
  forward.y = a.channels(out.add<T>("y", a.y_shape()));
  forward.hT = out.add<Acc>("hT", a.state_shape());
  forward.saved = saved.data();

  typename Family::template Backward<T> backward;
  OpArray<T> gy;
  OpArray<Acc> ghT;
  if (request.grads) {
    gy = in.read_if<T>("gy", a.y_shape());
    ghT = in.read_if<Acc>("ghT", a.state_shape());
    if (!gy.present() && !ghT.present()) in.fail("gy", "--grads", "gy or ghT", "neither");
    if (!gy.present()) gy = OpArray<T>(a.y_shape());
    backward.in = forward.in;
    backward.saved = forward.saved;
    backward.gy = a.channels(gy.data());
    backward.ghT = ghT.data();
    a.gradients(out, backward);
  }
  if (reference) {
    out.add_line(OpRequest::kReference);
    Family::reference(a.shape, forward);
    if (request.grads) Family::reference(a.shape, backward);
    return;
  }
  const Choice choice{request.impl, 0};
  note_lines(Family::kName, Family::template lines<T>(), a.shape, request, out);
  run_planned(request.threads, [&](Context& context) {
    Family::door(context, a.shape, forward, choice);
    if (request.grads) Family::door(context, a.shape, backward, choice);
  });
}

}  // namespace adder::apps
