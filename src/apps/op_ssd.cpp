// `adder op ssd`. Tensors: x, z (batch, len, heads, head_dim); dt (batch, len, heads); A, dt_bias
// (heads); B, C (batch, len, groups, state); D (heads) or (heads, head_dim); h0 (rows, heads,
// head_dim, state) with a row for each batch row or packed sequence; flag softplus (default 1, as
// in Mamba-2); dt_limit (2); cu_seqlens; chunk (1) -> y, hT. Upstream gradients gy, ghT.
#include "apps/op_scan.h"
#include "measure/ssd_call.h"

namespace adder::apps {
namespace {

measure::SsdCase read_case(const OpRequest& request, OpInputs& in) {
  SsdShape shape;
  const auto x = in.sizes("x", {"batch", "len", "heads", "head_dim"});
  const auto B = in.sizes("B", {"batch", "len", "groups", "state"});
  shape.batch = x[0];
  shape.len = x[1];
  shape.heads = x[2];
  shape.head_dim = x[3];
  shape.groups = B[2];
  shape.state = B[3];
  shape.softplus = in.flag("softplus", true);
  shape.d_per_channel = in.has("D") && in.rank("D") == 2;
  const OpArray<int32_t> chunk = in.read_if<int32_t>("chunk", {1});
  if (chunk.present()) shape.chunk = chunk.data()[0];
  return read_scan_case(request, in, shape);
}

OpShapes shapes_of(const SsdShape& shape) {
  const std::vector<int64_t> tokens = {shape.batch, shape.len, shape.heads, shape.head_dim};
  const std::vector<int64_t> shared = {shape.batch, shape.len, shape.groups, shape.state};
  const std::vector<int64_t> state = {shape.state_rows(), shape.heads, shape.head_dim, shape.state};
  const std::vector<int64_t> heads = {shape.heads};
  const std::vector<int64_t> channels = {shape.heads, shape.head_dim};
  return {{"x", tokens},
          {"dt", {shape.batch, shape.len, shape.heads}},
          {"z", tokens},
          {"A", heads},
          {"D", shape.d_per_channel ? channels : heads},
          {"dt_bias", heads},
          {"B", shared},
          {"C", shared},
          {"h0", state},
          {"y", tokens},
          {"hT", state},
          {"gy", tokens},
          {"ghT", state}};
}

}  // namespace

void run_ssd_op(const OpRequest& request, OpInputs& in, OpOutputs& out) {
  with_storage_type(request.dtype, [&](auto value) {
    using T = decltype(value);
    check_impl(request, ssd_lines<T>());
    const auto given = read_case(request, in);
    run_scan<measure::SsdCall<T>>("ssd", ssd_lines<T>(), request, in, given, shapes_of(given.shape),
                                  out);
  });
}

}  // namespace adder::apps
