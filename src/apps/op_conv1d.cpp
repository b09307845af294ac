// `adder op conv1d`. Tensors: x (batch, len, channels); w (channels, width); bias (channels); s0
// (rows, width - 1, channels) with a row for each batch row or packed sequence; flag silu (default
// 0); cu_seqlens -> y, sT. Upstream gradients gy, gsT.
#include <memory>

#include "apps/op.h"
#include "measure/conv1d_call.h"

namespace adder::apps {
namespace {

measure::Conv1dCase read_case(OpInputs& in) {
  Conv1dShape shape;
  const auto x = in.sizes("x", {"batch", "len", "channels"});
  const auto width = in.sizes("w", {"channels", "width"})[1];
  shape.batch = x[0];
  shape.len = x[1];
  shape.channels = x[2];
  shape.width = width;
  if (width < 1) in.fail("w", "wrong width", "at least 1", std::to_string(width));
  auto cu = in.sequence_starts(x[0], x[1]);
  if (!cu.empty()) shape.sequences = static_cast<int64_t>(cu.size()) - 1;
  shape.silu = in.flag("silu", false);
  shape.check();
  auto given = measure::Conv1dCase::dense(shape, std::move(cu));
  given.bias = in.has("bias");
  given.state = in.has("s0");
  given.upstream_state = true;
  return given;
}

OpShapes shapes_of(const Conv1dShape& shape) {
  const std::vector<int64_t> tokens = {shape.batch, shape.len, shape.channels};
  const std::vector<int64_t> state = {shape.state_rows(), shape.width - 1, shape.channels};
  return {{"x", tokens},
          {"w", {shape.channels, shape.width}},
          {"bias", {shape.channels}},
          {"s0", state},
          {"y", tokens},
          {"sT", state},
          {"gy", tokens},
          {"gsT", state}};
}

}  // namespace

void run_conv1d_op(const OpRequest& request, OpInputs& in, OpOutputs& out) {
  with_storage_type(request.dtype, [&](auto value) {
    using T = decltype(value);
    check_impl(request, conv1d_lines<T>());
    const auto given = read_case(in);
    const auto shapes = shapes_of(given.shape);
    const measure::ArenaLayout layout;
    auto call = std::make_unique<measure::Conv1dCall<T>>(given);
    read_call(request, in, shapes, *call);
    run_call("conv1d", conv1d_lines<T>(), request, shapes, std::move(call), out);
  });
}

}  // namespace adder::apps
