// `adder op s6`. Tensors: u, dt, z (batch, len, dim); A (dim, state); B, C (batch, len, groups,
// state); D, dt_bias (dim); h0 (rows, dim, state) with a row for each batch row or packed sequence;
// flag softplus (default 0); dt_limit (2); cu_seqlens -> y, hT. Upstream gradients gy, ghT. Complex
// scan: A, B, C, h0 and ghT end in one more size of 2 (real and imaginary part), and so do hT and
// their gradients. B or C of shape (dim, state) is constant over the tokens; then the other one is
// constant, too, or has groups = dim.
#include "apps/op_scan.h"
#include "measure/s6_call.h"

namespace adder::apps {
namespace {

bool is_constant(const OpInputs& in, const S6Shape& shape, const char* name) {
  return in.rank(name) == (shape.complex ? 3 : 2);
}

/// Groups of B and C: those of the one that varies, `dim` where one is constant (each channel has
/// rows of its own then).
int64_t groups_of(OpInputs& in, const S6Shape& shape) {
  int64_t groups = 0;
  for (const char* name : {"B", "C"}) {
    if (is_constant(in, shape, name)) return shape.dim;
    groups = (shape.complex ? in.sizes(name, {"batch", "len", "groups", "state", "2"})
                            : in.sizes(name, {"batch", "len", "groups", "state"}))[2];
  }
  return groups;
}

measure::S6Case read_case(const OpRequest& request, OpInputs& in) {
  S6Shape shape;
  const auto u = in.sizes("u", {"batch", "len", "dim"});
  shape.complex = in.rank("A") == 3;
  const auto A =
      shape.complex ? in.sizes("A", {"dim", "state", "2"}) : in.sizes("A", {"dim", "state"});
  shape.batch = u[0];
  shape.len = u[1];
  shape.dim = u[2];
  shape.state = A[1];
  shape.groups = groups_of(in, shape);
  shape.softplus = in.flag("softplus", false);
  measure::S6Case given = read_scan_case(request, in, shape);
  given.constant_B = is_constant(in, shape, "B");
  given.constant_C = is_constant(in, shape, "C");
  return given;
}

OpShapes shapes_of(const measure::S6Case& given) {
  const S6Shape& shape = given.shape;
  const auto pairs = [&](std::vector<int64_t> sizes) {
    if (shape.complex) sizes.push_back(2);
    return sizes;
  };
  const std::vector<int64_t> tokens = {shape.batch, shape.len, shape.dim};
  const auto A = pairs({shape.dim, shape.state});
  const auto shared = pairs({shape.batch, shape.len, shape.groups, shape.state});
  const auto state = pairs({shape.state_rows(), shape.dim, shape.state});
  return {{"u", tokens},
          {"dt", tokens},
          {"z", tokens},
          {"A", A},
          {"D", {shape.dim}},
          {"dt_bias", {shape.dim}},
          {"B", given.constant_B ? A : shared},
          {"C", given.constant_C ? A : shared},
          {"h0", state},
          {"y", tokens},
          {"hT", state},
          {"gy", tokens},
          {"ghT", state}};
}

}  // namespace

void run_s6_op(const OpRequest& request, OpInputs& in, OpOutputs& out) {
  with_storage_type(request.dtype, [&](auto value) {
    using T = decltype(value);
    check_impl(request, s6_lines<T>());
    const auto given = read_case(request, in);
    run_scan<measure::S6Call<T>>("s6", s6_lines<T>(), request, in, given, shapes_of(given), out);
  });
}

}  // namespace adder::apps
