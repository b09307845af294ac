#include <cmath>
#include <string>
#include <utility>

#include "kernels/ref/ssd_ref.h"
#include "kernels/ssd/ssd.h"
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
  SsdShape shape;
  std::vector<int32_t> cu = {};  // packed: the boundaries
  bool skip = true;              // D
  bool bias = true;              // dt_bias
  bool state = true;             // h0, ghT, dh0
  bool final_state = true;       // hT
  bool in_place = false;         // hT is h0
  bool saves = true;             // forward keeps what backward needs
  bool indexed = false;          // state_index: rows in reverse, one slot apart
  bool reversed = false;         // order: last token first
  bool sparse = false;           // only some gradients are asked for
  double dt_min = -INFINITY;
  double dt_max = INFINITY;
  int64_t gap = 0;  // elements between the rows of a wider tensor
  Values values = Values::trained;

  int64_t slots() const { return shape.state_rows() * (indexed ? 2 : 1); }
  int64_t shared() const { return shape.groups * shape.state; }
  // Elements of a view with `channels` a token.
  int64_t elements(int64_t channels) const {
    return shape.batch * (shape.len * (channels + gap) + batch_gap());
  }
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
    option(sparse, "sparse");
    option(std::isfinite(dt_min) || std::isfinite(dt_max), "limits");
    option(values == Values::extreme, "extreme");
    option(values == Values::unbounded, "unbounded");
    if (gap != 0) text += " gap " + std::to_string(gap);
    return text;
  }
};

template <class T>
struct Problem {
  using Acc = accumulate_t<T>;
  using Case = measure::Case;
  explicit Problem(const Case& c) : given(c) {
    const SsdShape& shape = c.shape;
    for (auto* array : {&x, &z, &y, &gy, &dx, &dz}) *array = Guarded<T>(c.elements(shape.inner()));
    for (auto* array : {&dt, &ddt}) *array = Guarded<T>(c.elements(shape.heads));
    for (auto* array : {&B, &C, &dB, &dC}) *array = Guarded<T>(c.elements(c.shared()));
    for (auto* array : {&A, &dA, &dt_bias, &ddt_bias}) *array = Guarded<Acc>(shape.heads);
    for (auto* array : {&D, &dD}) *array = Guarded<Acc>(shape.d_elements());
    const int64_t states = shape.state_elements();
    for (auto* array : {&h0, &hT}) *array = Guarded<Acc>(c.slots() * states);
    for (auto* array : {&ghT, &dh0}) *array = Guarded<Acc>(shape.state_rows() * states);
    saved = Guarded<Acc>(shape.saved_elements());
    cu = Guarded<int32_t>(static_cast<int64_t>(c.cu.size()));
    index = Guarded<int32_t>(shape.state_rows());
    order = Guarded<int32_t>(shape.len);
  }

  Problem(const Case& c, uint64_t seed) : Problem(c) {
    fill_normal(x, seed, "ssd.x");
    fill_normal(z, seed, "ssd.z");
    fill_normal(gy, seed, "ssd.gy");
    fill_normal(B, seed, "ssd.B");
    fill_normal(C, seed, "ssd.C");
    fill_uniform(D, seed, "ssd.D", -1, 1);
    fill_uniform(dt_bias, seed, "ssd.dt_bias", -2, 0.5);
    fill_normal(h0, seed, "ssd.h0");
    fill_normal(ghT, seed, "ssd.ghT");
    fill_uniform(dt, seed, "ssd.dt", -4, 2);
    fill_uniform(A, seed, "ssd.A", -3, 2.8);
    for (int64_t i = 0; i < A.count(); ++i) A[i] = -std::exp(A[i]);
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
    const uint64_t stream = stream_of("ssd.extreme");
    for (int64_t i = 0; i < dt.count(); ++i) {
      const auto draw = uniform_below(seed, stream, static_cast<uint64_t>(i), 5);
      const double unbounded[] = {0, 1e4, 1e-4, 0.3, 0};
      const double raw[] = {100, -106, -20, 0.5, 25};
      dt[i] = from_double<T>((given.values == Values::unbounded ? unbounded : raw)[draw]);
    }
    for (int64_t i = 0; i < A.count(); ++i) {
      const double rates[] = {-0.0, -1e4, -1e-6, -1, -200, -0.01};
      A[i] = from_double<Acc>(rates[i % 6]);
    }
  }

  Problem<double> wide() const {
    Problem<double> out(given);
    const auto copy = [](auto& to, const auto& from) { to = from.template converted<double>(); };
    copy(out.x, x), copy(out.dt, dt), copy(out.z, z), copy(out.gy, gy);
    copy(out.B, B), copy(out.C, C), copy(out.A, A), copy(out.D, D);
    copy(out.dt_bias, dt_bias), copy(out.h0, h0), copy(out.ghT, ghT);
    if (given.in_place) out.hT = out.h0;
    out.cu = cu;
    out.index = index;
    out.order = order;
    return out;
  }

  template <class U>
  TokenView<U> view(U* data, int64_t channels) const {
    const int64_t stride = channels + given.gap;
    return {data, given.shape.len * stride + row_gap, stride, 1};
  }
  template <class U>
  TokenView<U> wide(U* data) const {
    return view(data, given.shape.inner());
  }
  template <class U>
  TokenView<U> shared(U* data) const {
    return view(data, given.shared());
  }
  SsdInputs<T> inputs() const {
    SsdInputs<T> in;
    in.x = wide(x.data());
    in.dt = view(dt.data(), given.shape.heads);
    in.B = shared(B.data());
    in.C = shared(C.data());
    if (given.shape.gated) in.z = wide(z.data());
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
  SsdForward<T> forward() {
    SsdForward<T> args{inputs(), wide(y.data()), given.final_state ? hT.data() : nullptr,
                       given.saves ? saved.data() : nullptr};
    if (given.in_place) args.in.h0 = hT.data();
    return args;
  }
  SsdBackward<T> backward() {
    SsdBackward<T> args;
    args.in = inputs();
    args.saved = saved.data();
    args.gy = wide(gy.data());
    args.ghT = given.state ? ghT.data() : nullptr;
    args.dx = wide(dx.data());
    args.dB = shared(dB.data());
    args.dA = dA.data();
    if (given.sparse) return args;
    args.ddt = view(ddt.data(), given.shape.heads);
    args.dC = shared(dC.data());
    if (given.shape.gated) args.dz = wide(dz.data());
    args.dD = dD.data();
    args.ddt_bias = ddt_bias.data();
    args.dh0 = given.state ? dh0.data() : nullptr;
    return args;
  }
  void watch(InputWatch& inputs) const {
    inputs.watch("x", x);
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
      visit("dx", [](auto& p) -> auto& { return p.dx; });
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
  Guarded<T> x, dt, z, y, gy, dx, ddt, dz, B, C, dB, dC;
  Guarded<Acc> A, D, dt_bias, dA, dD, ddt_bias, h0, hT, ghT, dh0, saved;
  Guarded<int32_t> cu, index, order;
};

// What the named line rounds besides the recurrence.
ref::SsdForm form_of(std::string_view line) {
  if (line.starts_with("chunked")) return ref::SsdForm::chunked;
  return line == "quadratic" ? ref::SsdForm::quadratic : ref::SsdForm::recurrent;
}

template <class T>
void run_reference(Problem<T>& problem, Direction direction, bool absolute, std::string_view line) {
  const ref::SsdForm form = form_of(line);
  if (direction == Direction::forward) {
    ref::ssd_forward(problem.given.shape, problem.forward(), absolute, form);
  } else {
    ref::ssd_backward(problem.given.shape, problem.backward(), absolute, form);
  }
}

template <class T>
void run_door(Problem<T>& problem, Direction direction, Context& context, std::string_view line) {
  if (direction == Direction::forward) {
    ssd_forward(context, problem.given.shape, problem.forward(), {.name = line});
  } else {
    ssd_backward(context, problem.given.shape, problem.backward(), {.name = line});
  }
}

template <class T>
void prepare_backward(Problem<T>& problem, int threads, std::string_view line, InputWatch* inputs) {
  run_planned(threads, [&](Context& context) {
    SsdForward<T> args = problem.forward();
    args.in = problem.inputs();
    args.hT = nullptr;
    args.saved = problem.saved.data();
    ssd_forward(context, problem.given.shape, args, {.name = line});
  });
  if (inputs != nullptr) inputs->watch("saved", problem.saved);
}

template <class T>
Dtype product_type(const Problem<T>&, std::string_view name) {
  for (const auto& line : ssd_lines<T>()) {
    if (name == line.info.name && line.info.rounds_operands) return dtype_of<T>;
  }
  return dtype_of<accumulate_t<T>>;
}

template <class T>
void add_variants(std::vector<Variant>& variants, const Case& given) {
  append_variants<Problem<T>>(variants, "ssd", ssd_lines<T>(), given);
}

struct Sizes {
  int64_t heads = 1;
  int64_t head_dim = 1;
  int64_t state = 1;
  int64_t groups = 1;
  int64_t chunk = 64;
};

SsdShape shape(int64_t batch, int64_t len, const Sizes& sizes, bool gated = false) {
  SsdShape out;
  out.batch = batch;
  out.len = len;
  out.heads = sizes.heads;
  out.head_dim = sizes.head_dim;
  out.state = sizes.state;
  out.groups = sizes.groups;
  out.chunk = sizes.chunk;
  out.gated = gated;
  return out;
}

SsdShape plain(SsdShape given) {
  given.softplus = false;
  return given;
}

SsdShape per_channel(SsdShape given) {
  given.d_per_channel = true;
  return given;
}

Case packed(std::vector<int32_t> cu, const Sizes& sizes, bool gated) {
  Case given;
  given.shape = shape(1, cu.back(), sizes, gated);
  given.shape.sequences = static_cast<int64_t>(cu.size()) - 1;
  given.cu = std::move(cu);
  return given;
}

std::vector<Case> packed_cases() {
  std::vector<int32_t> each;  // a boundary everywhere
  for (int32_t i = 0; i <= 40; ++i) each.push_back(i);
  std::vector<Case> cases = {packed(each, {2, 5, 4, 1, 16}, true),
                             packed({0, 0, 1, 3, 3, 63, 128, 129, 200, 200}, {2, 16, 16}, true),
                             packed({0, 31, 32, 64, 97}, {3, 6, 5, 3, 32}, false),
                             packed({0, 150, 151, 301}, {2, 33, 17, 1, 64}, false)};
  cases[0].indexed = true;
  cases[1].in_place = true;
  cases[1].gap = 6;
  cases[2].reversed = true;
  cases[3].state = false;
  return cases;
}

std::vector<Case> extreme_cases() {
  return {{.shape = shape(1, 131, {6, 9, 16, 2, 64}, true), .values = Values::extreme},
          {.shape = shape(2, 70, {6, 16, 8, 1, 32}), .values = Values::extreme},
          {.shape = plain(shape(1, 67, {6, 12, 16, 3, 64}, true)),
           .bias = false,
           .values = Values::unbounded}};
}

std::vector<Case> test_cases() {
  std::vector<Case> cases = {
      {.shape = shape(2, 0, {2, 5, 4}, true)},
      {.shape = shape(1, 0, {3, 4, 16}), .in_place = true},
      {.shape = shape(3, 1, {5, 17, 33}, true), .in_place = true, .saves = false, .indexed = true},
      {.shape = shape(1, 1, {2, 64, 128}), .in_place = true, .saves = false},
      {.shape = shape(2, 2, {4, 16, 16, 2}), .state = false},
      {.shape = shape(1, 5, {2, 1, 1}, true), .in_place = true, .gap = 5},
      {.shape = shape(2, 31, {3, 19, 16, 3, 32}), .skip = false, .gap = 11},
      {.shape = shape(1, 32, {2, 33, 16, 1, 32}),
       .bias = false,
       .state = false,
       .final_state = false},
      {.shape = shape(2, 33, {8, 8, 1, 2, 32}), .indexed = true, .reversed = true},
      {.shape = per_channel(shape(1, 63, {4, 3, 3, 4}, true)), .gap = 4},
      {.shape = shape(1, 64, {2, 18, 33}, true), .sparse = true},
      {.shape = per_channel(shape(2, 65, {2, 64, 16}, true)), .indexed = true, .gap = 2},
      {.shape = plain(shape(1, 127, {4, 17, 17, 2, 64}, true)), .dt_min = 0, .gap = 1},
      {.shape = shape(1, 193, {2, 37, 16}), .dt_min = 0.01, .dt_max = 0.5},
      {.shape = shape(1, 96, {2, 32, 64, 2, 48}, true),
       .skip = false,
       .bias = false,
       .reversed = true},
      {.shape = shape(33, 5, {2, 4, 2})},
      {.shape = shape(1, 300, {1, 7, 3, 1, 256})},
      {.shape = shape(1, 129, {2, 64, 128, 1, 128}), .state = false},
      {.shape = shape(1, 20, {1, 3, 256, 1, 16}, true)},
      {.shape = shape(2, 17, {2, 128, 24, 1, 1})},
  };
  for (const Case& given : packed_cases()) cases.push_back(given);
  for (const Case& given : extreme_cases()) cases.push_back(given);
  return cases;
}

std::vector<Case> bench_cases() {
  return {{.shape = shape(8, 256, {8, 64, 64}), .state = false},
          {.shape = shape(8, 256, {8, 64, 64, 1, ssd_chunk_for(64, 64)}), .state = false},
          {.shape = shape(1, 2048, {24, 64, 128, 1, 128}), .state = false},
          {.shape = shape(1, 1, {24, 64, 128}), .in_place = true, .saves = false},
          {.shape = shape(64, 1, {24, 64, 128}), .in_place = true, .saves = false}};
}

}  // namespace

std::vector<Variant> ssd_variants(Purpose purpose) {
  std::vector<Variant> variants;
  for (const Case& given : purpose == Purpose::test ? test_cases() : bench_cases()) {
    if (purpose == Purpose::test) add_variants<double>(variants, given);
    add_variants<float>(variants, given);
    add_variants<Bf16>(variants, given);
  }
  return variants;
}

}  // namespace adder::measure
