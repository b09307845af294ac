// `op s6` and `op ssd` share these: a scan has a state in and out and a dt chain (math.md 0.4).
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "apps/op.h"
#include "measure/scan_call.h"

namespace adder::apps {

/// Completes the shape with what the file says about sequences and the gate, checks it, and takes
/// the options from what the file holds; `dt_limit` (2) sets the limits of delta.
template <class Shape>
measure::ScanCase<Shape> read_scan_case(const OpRequest& request, OpInputs& in, Shape shape) {
  auto cu = in.sequence_starts(shape.batch, shape.len);
  if (!cu.empty()) shape.sequences = static_cast<int64_t>(cu.size()) - 1;
  shape.gated = in.has("z");
  shape.check();
  auto given = measure::ScanCase<Shape>::dense(shape, std::move(cu));
  given.shape = shape;
  given.skip = in.has("D");
  given.bias = in.has("dt_bias");
  given.state = in.has("h0");
  given.upstream_state = true;
  given.saves = request.grads && !request.reference();
  const OpArray<double> limit = in.read_if<double>("dt_limit", {2});
  if (!limit.present()) return given;
  given.dt_min = limit.data()[0];
  given.dt_max = limit.data()[1];
  if (!(given.dt_min <= given.dt_max)) {
    in.fail("dt_limit", "wrong limits", "low <= high",
            std::to_string(given.dt_min) + ", " + std::to_string(given.dt_max));
  }
  return given;
}

/// The lines rely on decays that do not grow; the reference takes any.
template <class C, class L, class Shape>
void run_scan(const char* family, std::span<const L> lines, const OpRequest& request, OpInputs& in,
              const measure::ScanCase<Shape>& given, const OpShapes& shapes, OpOutputs& out) {
  const measure::ArenaLayout layout;
  auto call = std::make_unique<C>(given);
  read_call(request, in, shapes, *call);
  if (!request.reference()) {
    check_decay(given.shape, std::span<const typename C::Acc>(call->A.span()));
  }
  run_call(family, lines, request, shapes, std::move(call), out);
}

}  // namespace adder::apps
