#include <utility>

#include "kernels/conv1d/conv1d.h"
#include "kernels/ref/conv1d_ref.h"
#include "measure/problem_variants.h"

namespace adder::measure {
namespace {

// One call: the shape and the options around it.
struct Case {
  Conv1dShape shape;
  std::vector<int32_t> cu = {};  // packed: the boundaries
  bool bias = true;
  bool state = true;        // s0, gsT, ds0
  bool final_state = true;  // sT
  bool in_place = false;    // sT is s0
  bool indexed = false;     // state_index: rows in reverse, one slot apart
  bool reversed = false;    // order: last token first
  int64_t channel_stride = 1;
  int64_t gap = 0;     // elements between the rows of a wider tensor
  double scale = 1.0;  // of x
  bool accumulate = false;

  int64_t slots() const { return shape.state_rows() * (indexed ? 2 : 1); }
  int64_t token_stride() const { return shape.channels * channel_stride + gap; }
  int64_t state_count(int64_t rows) const { return rows * (shape.width - 1) * shape.channels; }
  std::string describe() const {
    std::string text = shape.describe();
    if (bias) text += " bias";
    if (state) text += " state";
    if (in_place) text += " in_place";
    if (indexed) text += " indexed";
    if (reversed) text += " reversed";
    if (channel_stride != 1) text += " channel_stride " + std::to_string(channel_stride);
    if (gap != 0) text += " gap " + std::to_string(gap);
    if (scale != 1.0) text += " scale " + std::to_string(scale);
    if (accumulate) text += " accumulate";
    return text;
  }
};

template <class T>
struct Problem {
  using Acc = accumulate_t<T>;
  using Case = measure::Case;
  explicit Problem(const Case& c)
      : given(c),
        x(tokens()),
        gy(tokens()),
        y(tokens()),
        dx(tokens()),
        w(c.shape.channels * c.shape.width),
        bias(c.shape.channels),
        dw(w.count()),
        dbias(bias.count()),
        s0(c.state_count(c.slots())),
        sT(s0.count()),
        gsT(c.state_count(c.shape.state_rows())),
        ds0(gsT.count()),
        cu(static_cast<int64_t>(c.cu.size())),
        index(c.shape.state_rows()),
        order(c.shape.len) {}

  Problem(const Case& c, uint64_t seed) : Problem(c) {
    fill_normal(x, seed, "conv1d.x", c.scale);
    fill_normal(gy, seed, "conv1d.gy");
    fill_uniform(w, seed, "conv1d.w", -0.7, 0.7);
    fill_uniform(bias, seed, "conv1d.bias", -0.5, 0.5);
    fill_normal(s0, seed, "conv1d.s0", c.scale);
    fill_normal(gsT, seed, "conv1d.gsT");
    if (c.in_place) sT = s0;
    if (c.accumulate) {
      fill_normal(dw, seed, "conv1d.dw");
      fill_normal(dbias, seed, "conv1d.dbias");
    }
    for (int64_t i = 0; i < cu.count(); ++i) cu[i] = c.cu[static_cast<size_t>(i)];
    for (int64_t r = 0; r < index.count(); ++r) {
      index[r] = static_cast<int32_t>(2 * (index.count() - 1 - r) + 1);
    }
    for (int64_t t = 0; t < order.count(); ++t) {
      order[t] = static_cast<int32_t>(order.count() - 1 - t);
    }
  }

  Problem<double> wide() const {
    using U = double;
    Problem<U> out(given);
    out.row_gap = row_gap;
    out.x = x.template converted<U>();
    out.gy = gy.template converted<U>();
    out.w = w.template converted<U>();
    out.bias = bias.template converted<U>();
    out.s0 = s0.template converted<U>();
    out.gsT = gsT.template converted<U>();
    if (given.in_place) out.sT = out.s0;
    if (given.accumulate) {
      out.dw = dw.template converted<U>();
      out.dbias = dbias.template converted<U>();
    }
    out.cu = cu;
    out.index = index;
    out.order = order;
    return out;
  }

  int64_t tokens() const {
    return given.shape.batch * (given.shape.len * given.token_stride() + row_gap);
  }
  template <class U>
  TokenView<U> view(U* data) const {
    return {data, given.shape.len * given.token_stride() + row_gap, given.token_stride(),
            given.channel_stride};
  }
  Conv1dInputs<T> inputs() const {
    Conv1dInputs<T> in;
    in.x = view(x.data());
    in.w = w.data();
    in.bias = given.bias ? bias.data() : nullptr;
    if (given.state) in.s0 = given.in_place ? sT.data() : s0.data();
    in.cu_seqlens = given.shape.packed() ? cu.data() : nullptr;
    in.state_index = given.indexed ? index.data() : nullptr;
    in.order = given.reversed ? order.data() : nullptr;
    return in;
  }
  Conv1dForward<T> forward() {
    return {inputs(), view(y.data()), given.final_state ? sT.data() : nullptr};
  }
  Conv1dBackward<T> backward() {
    Conv1dBackward<T> args;
    args.in = inputs();
    if (given.state) args.in.s0 = s0.data();
    args.gy = view(gy.data());
    args.gsT = given.state ? gsT.data() : nullptr;
    args.dx = view(dx.data());
    args.dw = dw.data();
    args.dbias = given.bias ? dbias.data() : nullptr;
    args.accumulate = given.accumulate;
    args.ds0 = given.state ? ds0.data() : nullptr;
    return args;
  }
  void watch(InputWatch& inputs) const {
    inputs.watch("x", x);
    inputs.watch("gy", gy);
    inputs.watch("w", w);
    inputs.watch("bias", bias);
    inputs.watch("s0", s0);
    inputs.watch("gsT", gsT);
    inputs.watch("cu_seqlens", cu);
    inputs.watch("state_index", index);
    inputs.watch("order", order);
  }
  template <class Visit>
  static void outputs(Direction direction, const Visit& visit) {
    if (direction == Direction::forward) {
      visit("y", [](auto& p) -> auto& { return p.y; });
      visit("sT", [](auto& p) -> auto& { return p.sT; });
    } else {
      visit("dx", [](auto& p) -> auto& { return p.dx; });
      visit("dw", [](auto& p) -> auto& { return p.dw; });
      visit("dbias", [](auto& p) -> auto& { return p.dbias; });
      visit("ds0", [](auto& p) -> auto& { return p.ds0; });
    }
  }

  Case given;
  int64_t row_gap = batch_gap();
  Guarded<T> x, gy, y, dx;
  Guarded<Acc> w, bias, dw, dbias;
  Guarded<T> s0, sT, gsT, ds0;
  Guarded<int32_t> cu, index, order;
};

template <class T>
void run_reference(Problem<T>& problem, Direction direction, bool absolute, std::string_view) {
  if (direction == Direction::forward) {
    ref::conv1d_forward(problem.given.shape, problem.forward(), absolute);
  } else {
    ref::conv1d_backward(problem.given.shape, problem.backward(), absolute);
  }
}

template <class T>
void run_door(Problem<T>& problem, Direction direction, Context& context, std::string_view line) {
  if (direction == Direction::forward) {
    conv1d_forward(context, problem.given.shape, problem.forward(), {.name = line});
  } else {
    conv1d_backward(context, problem.given.shape, problem.backward(), {.name = line});
  }
}

template <class T>
void add_variants(std::vector<Variant>& variants, Case given) {
  given.shape.layout.unit_stride = given.channel_stride == 1;
  append_variants<Problem<T>>(variants, "conv1d", conv1d_lines<T>(), given);
}

std::vector<Case> test_cases() {
  const auto shape = [](int64_t batch, int64_t len, int64_t channels, int64_t width, bool silu) {
    return Conv1dShape{batch, len, channels, width, 0, silu};
  };
  const auto packed = [](std::vector<int32_t> cu, int64_t channels, int64_t width, bool silu) {
    Case given;
    given.shape = {1, cu.back(), channels, width, static_cast<int64_t>(cu.size()) - 1, silu};
    given.cu = std::move(cu);
    return given;
  };
  std::vector<Case> cases = {
      {.shape = shape(2, 0, 5, 4, true)},
      {.shape = shape(1, 0, 3, 4, true), .in_place = true},
      {.shape = shape(3, 1, 37, 4, true), .in_place = true, .indexed = true},
      {.shape = shape(2, 2, 16, 4, true), .state = false},
      {.shape = shape(1, 2, 17, 7, false), .in_place = true, .gap = 5},
      {.shape = shape(2, 63, 19, 4, true), .bias = false, .gap = 11},
      {.shape = shape(1, 64, 33, 3, true), .state = false, .final_state = false},
      {.shape = shape(2, 65, 8, 2, false), .indexed = true, .reversed = true},
      {.shape = shape(1, 127, 31, 1, true)},
      {.shape = shape(2, 129, 13, 4, true), .indexed = true, .channel_stride = 3, .gap = 2},
      {.shape = shape(1, 200, 261, 4, true), .gap = 1},
      {.shape = shape(1, 257, 24, 5, true), .bias = false, .reversed = true},
      {.shape = shape(1, 263, 7, 16, true), .indexed = true},
      {.shape = shape(2, 139, 6, 17, true), .in_place = true},
      {.shape = shape(1, 211, 5, 67, false), .channel_stride = 2},
      {.shape = shape(1, 31, 9, 67, true), .bias = false, .in_place = true},
      {.shape = shape(1, 131, 21, 4, true), .scale = 1e4},
      {.shape = shape(1, 65, 40, 4, true), .scale = 100},
      {.shape = shape(1, 67, 21, 4, true), .scale = 1e-4},
  };
  for (const size_t i : {0, 6, 8, 9, 10, 14}) {
    cases.push_back(cases[i]);
    cases.back().accumulate = true;
  }
  std::vector<int32_t> each;  // a boundary everywhere
  for (int32_t i = 0; i <= 40; ++i) each.push_back(i);
  cases.push_back(packed(each, 11, 4, true));
  cases.push_back(packed({0, 0, 1, 3, 3, 63, 128, 129, 200, 200}, 35, 4, true));
  cases.push_back(packed({0, 127, 128, 130, 257}, 17, 4, false));
  cases.push_back(packed({0, 5, 5, 6, 71, 143}, 18, 18, true));
  cases.push_back(packed({0, 2, 130, 131}, 6, 3, true));
  cases[cases.size() - 4].indexed = true;
  cases[cases.size() - 3].in_place = true;
  cases[cases.size() - 3].gap = 6;
  cases[cases.size() - 2].reversed = true;
  cases[cases.size() - 1].channel_stride = 2;
  return cases;
}

std::vector<Case> bench_cases() {
  const auto plain = [](int64_t batch, int64_t len, int64_t channels) {
    // The x half of in_proj's (batch, len, 2 d_inner) output, as layers call it.
    return Case{.shape = {batch, len, channels, 4, 0, true}, .state = false, .gap = channels};
  };
  std::vector<Case> cases = {plain(8, 256, 512), plain(1, 2048, 1536)};
  cases.push_back({.shape = {1, 1, 1536, 4, 0, true}, .in_place = true});
  cases.push_back({.shape = {64, 1, 1536, 4, 0, true}, .in_place = true});
  return cases;
}

}  // namespace

std::vector<Variant> conv1d_variants(Purpose purpose) {
  std::vector<Variant> variants;
  for (const Case& given : purpose == Purpose::test ? test_cases() : bench_cases()) {
    if (purpose == Purpose::test) add_variants<double>(variants, given);
    add_variants<float>(variants, given);
    add_variants<Bf16>(variants, given);
  }
  return variants;
}

}  // namespace adder::measure
