#include <cmath>
#include <utility>

#include "kernels/ref/s6_ref.h"
#include "kernels/s6/s6.h"
#include "measure/problem_variants.h"

namespace adder::measure {
namespace {

// What dt and A are made of.
enum class Values : uint8_t {
  trained,   // as a trained model has them
  extreme,   // dt raw from -106 to 100, A from -0.0 to -1e4
  unbounded  // softplus off: dt from 0 to 1e4
};

// One call: the shape and the options around it.
struct Case {
  S6Shape shape;
  std::vector<int32_t> cu = {};  // packed: the boundaries
  bool skip = true;              // D
  bool bias = true;              // dt_bias
  bool state = true;             // h0, ghT, dh0
  bool final_state = true;       // hT
  bool in_place = false;         // hT is h0
  bool saves = true;             // forward keeps what backward needs
  bool indexed = false;          // state_index: rows in reverse, one slot apart
  bool reversed = false;         // order: last token first
  bool constant = false;         // one row of B and C for all tokens
  bool sparse = false;           // only some gradients are asked for
  double dt_min = -INFINITY;
  double dt_max = INFINITY;
  int64_t channel_stride = 1;  // of everything but B and C
  int64_t gap = 0;             // elements between the rows of a wider tensor
  Values values = Values::trained;

  int64_t slots() const { return shape.state_rows() * (indexed ? 2 : 1); }
  int64_t token_stride() const { return shape.dim * channel_stride + gap; }
  int64_t shared_stride() const { return shape.groups * shape.state_numbers() + gap; }
  int64_t state_count(int64_t rows) const { return rows * shape.dim * shape.state_numbers(); }
  std::string describe() const {
    std::string text = shape.describe();
    const auto option = [&](bool on, const char* name) {
      if (on) text += std::string(" ") + name;
    };
    option(skip, "D");
    option(bias, "dt_bias");
    option(state, "state");
    option(in_place, "in_place");
    option(!saves, "inference");
    option(indexed, "indexed");
    option(reversed, "reversed");
    option(constant, "constant");
    option(sparse, "sparse");
    option(std::isfinite(dt_min) || std::isfinite(dt_max), "limits");
    option(values == Values::extreme, "extreme");
    option(values == Values::unbounded, "unbounded");
    if (channel_stride != 1) text += " channel_stride " + std::to_string(channel_stride);
    if (gap != 0) text += " gap " + std::to_string(gap);
    return text;
  }
};

template <class T>
struct Problem {
  using Acc = accumulate_t<T>;
  using Case = measure::Case;
  explicit Problem(const Case& c) : given(c) {
    const S6Shape& shape = c.shape;
    const int64_t tokens = shape.batch * (shape.len * c.token_stride() + row_gap);
    const int64_t shared = shape.batch * (shape.len * c.shared_stride() + row_gap);
    for (auto* array : {&u, &dt, &z, &y, &gy, &du, &ddt, &dz}) *array = Guarded<T>(tokens);
    for (auto* array : {&B, &C, &dB, &dC}) *array = Guarded<T>(shared);
    for (auto* array : {&A, &dA}) *array = Guarded<Acc>(shape.dim * shape.state_numbers());
    for (auto* array : {&D, &dt_bias, &dD, &ddt_bias}) *array = Guarded<Acc>(shape.dim);
    for (auto* array : {&h0, &hT}) *array = Guarded<Acc>(c.state_count(c.slots()));
    for (auto* array : {&ghT, &dh0}) *array = Guarded<Acc>(c.state_count(shape.state_rows()));
    saved = Guarded<Acc>(shape.saved_elements());
    cu = Guarded<int32_t>(static_cast<int64_t>(c.cu.size()));
    index = Guarded<int32_t>(shape.state_rows());
    order = Guarded<int32_t>(shape.len);
  }

  Problem(const Case& c, uint64_t seed) : Problem(c) {
    fill_normal(u, seed, "s6.u");
    fill_normal(z, seed, "s6.z");
    fill_normal(gy, seed, "s6.gy");
    fill_normal(B, seed, "s6.B");
    fill_normal(C, seed, "s6.C");
    fill_uniform(D, seed, "s6.D", -1, 1);
    fill_uniform(dt_bias, seed, "s6.dt_bias", -2, 0.5);
    fill_normal(h0, seed, "s6.h0");
    fill_normal(ghT, seed, "s6.ghT");
    fill_uniform(dt, seed, "s6.dt", -4, 2);
    fill_uniform(A, seed, "s6.A", -3, 2.8);
    for (int64_t i = 0; i < A.count(); ++i) A[i] = -std::exp(A[i]);
    for (int64_t i = 1; c.shape.complex && i < A.count(); i += 4) A[i] = -A[i];
    if (c.values != Values::trained) exaggerate(seed);
    for (int64_t i = 0; i < cu.count(); ++i) cu[i] = c.cu[static_cast<size_t>(i)];
    for (int64_t r = 0; r < index.count(); ++r) {
      index[r] = static_cast<int32_t>(2 * (index.count() - 1 - r) + 1);
    }
    for (int64_t t = 0; t < order.count(); ++t) {
      order[t] = static_cast<int32_t>(order.count() - 1 - t);
    }
    if (c.in_place) hT = h0;
  }

  void exaggerate(uint64_t seed) {
    const uint64_t stream = stream_of("s6.extreme");
    for (int64_t i = 0; i < dt.count(); ++i) {
      const auto draw = uniform_below(seed, stream, static_cast<uint64_t>(i), 5);
      const double unbounded[] = {0, 1e4, 1e-4, 0.3, 0};
      const double raw[] = {100, -106, -20, 0.5, 25};
      dt[i] = from_double<T>((given.values == Values::unbounded ? unbounded : raw)[draw]);
    }
    for (int64_t i = 0; i < A.count(); ++i) {
      const double rates[] = {-0.0, -1e4, -1e-6, -1, -200, -0.01};
      A[i] = from_double<Acc>(rates[uniform_below(seed, stream + 1, static_cast<uint64_t>(i), 6)]);
    }
  }

  Problem<double> wide() const {
    Problem<double> out(given);
    out.row_gap = row_gap;
    const auto copy = [](auto& to, const auto& from) { to = from.template converted<double>(); };
    copy(out.u, u), copy(out.dt, dt), copy(out.z, z), copy(out.gy, gy);
    copy(out.B, B), copy(out.C, C), copy(out.A, A), copy(out.D, D);
    copy(out.dt_bias, dt_bias), copy(out.h0, h0), copy(out.ghT, ghT);
    if (given.in_place) out.hT = out.h0;
    out.cu = cu;
    out.index = index;
    out.order = order;
    return out;
  }

  template <class U>
  TokenView<U> view(U* data) const {
    return {data, given.shape.len * given.token_stride() + row_gap, given.token_stride(),
            given.channel_stride};
  }
  template <class U>
  TokenView<U> shared(U* data) const {
    if (given.constant) return {data, 0, 0, 1};
    return {data, given.shape.len * given.shared_stride() + row_gap, given.shared_stride(), 1};
  }
  S6Inputs<T> inputs() const {
    S6Inputs<T> in;
    in.u = view(u.data());
    in.dt = view(dt.data());
    in.B = shared(B.data());
    in.C = shared(C.data());
    if (given.shape.gated) in.z = view(z.data());
    in.A = A.data();
    in.D = given.skip ? D.data() : nullptr;
    in.dt_bias = given.bias ? dt_bias.data() : nullptr;
    in.dt_min = static_cast<Acc>(given.dt_min);
    in.dt_max = static_cast<Acc>(given.dt_max);
    if (given.state) in.h0 = h0.data();
    in.cu_seqlens = given.shape.packed() ? cu.data() : nullptr;
    in.state_index = given.indexed ? index.data() : nullptr;
    in.order = given.reversed ? order.data() : nullptr;
    return in;
  }
  S6Forward<T> forward() {
    S6Forward<T> args{inputs(), view(y.data()), given.final_state ? hT.data() : nullptr,
                      given.saves ? saved.data() : nullptr};
    if (given.in_place) args.in.h0 = hT.data();
    return args;
  }
  S6Backward<T> backward() {
    S6Backward<T> args;
    args.in = inputs();
    args.saved = saved.data();
    args.gy = view(gy.data());
    args.ghT = given.state ? ghT.data() : nullptr;
    args.du = view(du.data());
    args.dB = shared(dB.data());
    args.dA = dA.data();
    if (given.sparse) return args;
    args.ddt = view(ddt.data());
    args.dC = shared(dC.data());
    if (given.shape.gated) args.dz = view(dz.data());
    args.dD = dD.data();
    args.ddt_bias = ddt_bias.data();
    args.dh0 = given.state ? dh0.data() : nullptr;
    return args;
  }
  void watch(InputWatch& inputs) const {
    inputs.watch("u", u);
    inputs.watch("dt", dt);
    inputs.watch("z", z);
    inputs.watch("gy", gy);
    inputs.watch("B", B);
    inputs.watch("C", C);
    inputs.watch("A", A);
    inputs.watch("D", D);
    inputs.watch("dt_bias", dt_bias);
    inputs.watch("h0", h0);
    inputs.watch("ghT", ghT);
    inputs.watch("cu_seqlens", cu);
    inputs.watch("state_index", index);
    inputs.watch("order", order);
  }
  template <class Visit>
  static void outputs(Direction direction, const Visit& visit) {
    if (direction == Direction::forward) {
      visit("y", [](auto& p) -> auto& { return p.y; });
      visit("hT", [](auto& p) -> auto& { return p.hT; });
      visit("saved", [](auto& p) -> auto& { return p.saved; });
    } else {
      visit("du", [](auto& p) -> auto& { return p.du; });
      visit("ddt", [](auto& p) -> auto& { return p.ddt; });
      visit("dz", [](auto& p) -> auto& { return p.dz; });
      visit("dB", [](auto& p) -> auto& { return p.dB; });
      visit("dC", [](auto& p) -> auto& { return p.dC; });
      visit("dA", [](auto& p) -> auto& { return p.dA; });
      visit("dD", [](auto& p) -> auto& { return p.dD; });
      visit("ddt_bias", [](auto& p) -> auto& { return p.ddt_bias; });
      visit("dh0", [](auto& p) -> auto& { return p.dh0; });
    }
  }

  Case given;
  int64_t row_gap = batch_gap();
  Guarded<T> u, dt, z, y, gy, du, ddt, dz, B, C, dB, dC;
  Guarded<Acc> A, D, dt_bias, dA, dD, ddt_bias, h0, hT, ghT, dh0, saved;
  Guarded<int32_t> cu, index, order;
};

template <class T>
void run_reference(Problem<T>& problem, Direction direction, bool absolute, std::string_view) {
  if (direction == Direction::forward) {
    ref::s6_forward(problem.given.shape, problem.forward(), absolute);
  } else {
    ref::s6_backward(problem.given.shape, problem.backward(), absolute);
  }
}

template <class T>
void run_door(Problem<T>& problem, Direction direction, Context& context, std::string_view line) {
  if (direction == Direction::forward) {
    s6_forward(context, problem.given.shape, problem.forward(), {.name = line});
  } else {
    s6_backward(context, problem.given.shape, problem.backward(), {.name = line});
  }
}

template <class T>
void prepare_backward(Problem<T>& problem, int threads, std::string_view line, InputWatch* inputs) {
  run_planned(threads, [&](Context& context) {
    S6Forward<T> args = problem.forward();
    args.in = problem.inputs();
    args.hT = nullptr;
    args.saved = problem.saved.data();
    s6_forward(context, problem.given.shape, args, {.name = line});
  });
  if (inputs != nullptr) inputs->watch("saved", problem.saved);
}

template <class T>
void add_variants(std::vector<Variant>& variants, const Case& given) {
  for (const auto& line : s6_lines<T>()) {
    // Real and complex shapes have lines of their own: not worth a list of skips.
    if (given.shape.complex != (std::string_view(line.info.name) == "complex")) continue;
    append_variants<Problem<T>>(variants, "s6", std::span(&line, 1), given);
  }
}

S6Shape shape(int64_t batch, int64_t len, int64_t dim, int64_t state, int64_t groups = 1,
              bool gated = true, bool softplus = true) {
  return {.batch = batch,
          .len = len,
          .dim = dim,
          .state = state,
          .groups = groups,
          .softplus = softplus,
          .gated = gated};
}

Case packed(std::vector<int32_t> cu, int64_t dim, int64_t state, int64_t groups, bool gated) {
  Case given;
  given.shape = shape(1, cu.back(), dim, state, groups, gated);
  given.shape.sequences = static_cast<int64_t>(cu.size()) - 1;
  given.cu = std::move(cu);
  return given;
}

std::vector<Case> packed_cases() {
  std::vector<int32_t> each;  // a boundary everywhere
  for (int32_t i = 0; i <= 40; ++i) each.push_back(i);
  std::vector<Case> cases = {packed(each, 11, 4, 1, true),
                             packed({0, 0, 1, 3, 3, 63, 128, 129, 200, 200}, 21, 16, 1, true),
                             packed({0, 31, 32, 64, 97}, 6, 5, 3, false),
                             packed({0, 600, 601, 1201}, 3, 2, 1, true)};
  cases[0].indexed = true;
  cases[1].in_place = true;
  cases[1].gap = 6;
  cases[2].reversed = true;
  cases[2].channel_stride = 2;
  cases[3].state = false;
  return cases;
}

Case complex(Case given) {
  given.shape.complex = true;
  return given;
}

std::vector<Case> complex_cases() {
  return {
      complex({.shape = shape(2, 0, 5, 4)}),
      complex({.shape = shape(3, 1, 37, 8), .in_place = true, .saves = false, .indexed = true}),
      complex({.shape = shape(2, 33, 8, 1, 2, false), .indexed = true, .reversed = true}),
      complex({.shape = shape(1, 64, 18, 17), .sparse = true}),
      complex({.shape = shape(2, 40, 7, 3, 7), .constant = true}),
      complex({.shape = shape(2, 65, 13, 4), .channel_stride = 3, .gap = 2}),
      complex({.shape = shape(1, 127, 270, 3, 2, true, false), .dt_min = 0, .gap = 1}),
      complex({.shape = shape(1, 200, 21, 5), .skip = false, .dt_min = 0.01, .dt_max = 0.5}),
      complex({.shape = shape(1, 131, 21, 16), .values = Values::extreme}),
      complex({.shape = shape(1, 67, 9, 4, 1, false, false),
               .bias = false,
               .values = Values::unbounded}),
      complex(packed({0, 0, 1, 3, 3, 63, 128, 129, 200, 200}, 21, 4, 3, true)),
  };
}

std::vector<Case> test_cases() {
  std::vector<Case> cases = {
      {.shape = shape(2, 0, 5, 4)},
      {.shape = shape(1, 0, 3, 16), .in_place = true},
      {.shape = shape(3, 1, 37, 16), .in_place = true, .saves = false, .indexed = true},
      {.shape = shape(2, 2, 16, 16, 1, false), .state = false},
      {.shape = shape(1, 2, 17, 7), .in_place = true, .gap = 5},
      {.shape = shape(2, 31, 19, 16), .skip = false, .gap = 11},
      {.shape = shape(1, 32, 33, 16), .bias = false, .state = false, .final_state = false},
      {.shape = shape(2, 33, 8, 1, 2, false), .indexed = true, .reversed = true},
      {.shape = shape(1, 63, 12, 3, 12), .gap = 4},
      {.shape = shape(1, 64, 18, 33, 1, true), .sparse = true},
      {.shape = shape(2, 65, 13, 16), .indexed = true, .channel_stride = 3, .gap = 2},
      {.shape = shape(1, 127, 24, 17, 2, true, false), .dt_min = 0, .gap = 1},
      {.shape = shape(1, 200, 37, 16), .dt_min = 0.01, .dt_max = 0.5},
      {.shape = shape(2, 35, 270, 4, 2, false), .skip = false, .bias = false, .reversed = true},
      {.shape = shape(1, 37, 530, 5)},  // two wide tiles and a narrow one
      {.shape = shape(33, 5, 4, 2)},
      {.shape = shape(2, 70, 19, 5, 19), .constant = true},
      {.shape = shape(1, 1025, 21, 16), .constant = true},
      {.shape = shape(1, 1103, 3, 7), .reversed = true},
      {.shape = shape(2, 513, 3, 5, 1, false), .state = false},
      {.shape = shape(1, 131, 21, 16), .values = Values::extreme},
      {.shape = shape(1, 1025, 5, 3), .values = Values::extreme},
      {.shape = shape(1, 67, 21, 16, 1, true, false), .bias = false, .values = Values::unbounded},
  };
  for (const Case& given : packed_cases()) cases.push_back(given);
  for (const Case& given : complex_cases()) cases.push_back(given);
  return cases;
}

std::vector<Case> bench_cases() {
  return {{.shape = shape(8, 256, 512, 16), .state = false},
          {.shape = shape(1, 2048, 1536, 16), .state = false},
          {.shape = shape(1, 1, 1536, 16), .in_place = true, .saves = false},
          {.shape = shape(64, 1, 1536, 16), .in_place = true, .saves = false},
          complex({.shape = shape(8, 256, 512, 8), .state = false})};
}

}  // namespace

std::vector<Variant> s6_variants(Purpose purpose) {
  std::vector<Variant> variants;
  for (const Case& given : purpose == Purpose::test ? test_cases() : bench_cases()) {
    if (purpose == Purpose::test) add_variants<double>(variants, given);
    add_variants<float>(variants, given);
    add_variants<Bf16>(variants, given);
  }
  return variants;
}

}  // namespace adder::measure
