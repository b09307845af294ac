#include <type_traits>

#include "kernels/norm/norm.h"
#include "kernels/ref/norm_ref.h"
#include "measure/problem_variants.h"

namespace adder::measure {
namespace {

std::string numbered(const char* name, double value) {
  return std::string(" ") + name + " " + std::to_string(value);
}

// RMSNorm and LayerNorm with the residual add.

struct NormCase {
  NormShape shape;
  bool x = true;         // absent: r = residual_in, and dx is not asked for
  bool residual = true;  // residual_in, g_later
  bool w = true;         // w, dw
  bool b = false;        // b, db
  bool residual_out = true;
  bool in_place = false;  // residual_out is residual_in, dr is g_later
  int64_t gap = 0;        // elements between the rows of x
  double scale = 1.0;
  double offset = 0.0;
  bool accumulate = false;

  // Without rows forward writes nothing (norm_test runs it).
  bool writes(Direction direction) const {
    return direction == Direction::backward || shape.rows > 0;
  }
  std::string describe() const {
    std::string text = shape.describe();
    if (x) text += " x";
    if (residual) text += " residual";
    if (w) text += " w";
    if (b) text += " b";
    if (residual_out) text += " residual_out";
    if (in_place) text += " in_place";
    if (gap != 0) text += " gap " + std::to_string(gap);
    if (scale != 1.0) text += numbered("scale", scale);
    if (offset != 0.0) text += numbered("offset", offset);
    if (accumulate) text += " accumulate";
    return text;
  }
};

template <class T, class R>
struct NormProblem {
  using Acc = accumulate_t<T>;
  using Case = NormCase;
  explicit NormProblem(const NormCase& c)
      : given(c),
        x(c.shape.rows * (c.shape.width + c.gap)),
        y(count()),
        gy(count()),
        dx(count()),
        residual_in(count()),
        residual_out(count()),
        r(count()),
        g_later(count()),
        dr(count()),
        w(c.shape.width),
        b(c.shape.width),
        dw(c.shape.width),
        db(c.shape.width),
        rstd(c.shape.rows),
        mean(c.shape.rows),
        given_rstd(c.shape.rows),
        given_mean(c.shape.rows) {}

  NormProblem(const NormCase& c, uint64_t seed) : NormProblem(c) {
    fill_normal(x, seed, "norm.x", c.scale);
    fill_normal(residual_in, seed, "norm.residual_in", c.scale);
    fill_normal(r, seed, "norm.r", c.scale);
    for (int64_t i = 0; i < count(); ++i) {
      if (c.offset == 0) break;
      residual_in[i] = from_double<R>(to_double(residual_in[i]) + c.offset);
      r[i] = from_double<R>(to_double(r[i]) + c.offset);
    }
    fill_normal(gy, seed, "norm.gy");
    fill_normal(g_later, seed, "norm.g_later");
    fill_uniform(w, seed, "norm.w", -1.5, 1.5);
    fill_uniform(b, seed, "norm.b", -1.0, 1.0);
    take_statistics_of_r();
    if (c.accumulate) {
      fill_normal(dw, seed, "norm.dw");
      fill_normal(db, seed, "norm.db");
    }
    if (c.in_place) {
      residual_out = residual_in;
      dr = g_later;
    }
  }

  // What forward would have kept for backward: here in double, rounded once.
  void take_statistics_of_r() {
    NormShape shape = given.shape;
    auto r64 = r.template converted<double>();
    Guarded<double> y64(count()), rstd64(shape.rows), mean64(shape.rows);
    NormForward<double, double> args;
    args.residual_in = r64.data();
    args.y = y64.data();
    args.rstd = rstd64.data();
    args.mean = mean64.data();
    ref::norm_forward(shape, args, false);
    given_rstd = rstd64.template converted<Acc>();
    given_mean = mean64.template converted<Acc>();
  }

  NormProblem<double, double> wide() const {
    NormProblem<double, double> out(given);
    out.x = x.template converted<double>();
    out.gy = gy.template converted<double>();
    out.residual_in = residual_in.template converted<double>();
    out.r = r.template converted<double>();
    out.g_later = g_later.template converted<double>();
    out.w = w.template converted<double>();
    out.b = b.template converted<double>();
    if (given.accumulate) {
      out.dw = dw.template converted<double>();
      out.db = db.template converted<double>();
    }
    out.given_rstd = given_rstd.template converted<double>();
    out.given_mean = given_mean.template converted<double>();
    if constexpr (std::is_same_v<R, Bf16>) {
      if (given.x && given.residual) round_residual(out);
    }
    if (given.in_place) {
      out.residual_out = out.residual_in;
      out.dr = out.g_later;
    }
    return out;
  }

  // The sum is what the bf16 residual stores, by definition: the double reference starts from it,
  // or its distance from the unrounded sum would pass for an error of the statistics.
  void round_residual(NormProblem<double, double>& out) const {
    const int64_t width = given.shape.width;
    for (int64_t i = 0; i < count(); ++i) {
      const int64_t at = i / width * (width + given.gap) + i % width;
      const double sum = to_double(residual_in[i]) + to_double(x[at]);
      out.residual_in[i] = to_double(from_double<Bf16>(sum));
      out.x[at] = 0;
    }
  }

  int64_t count() const { return given.shape.rows * given.shape.width; }
  bool layer() const { return given.shape.kind == NormKind::layer; }
  NormForward<T, R> forward() {
    NormForward<T, R> args;
    if (given.x) args.x = x.data();
    args.x_stride = given.shape.width + given.gap;
    if (given.residual)
      args.residual_in = given.in_place ? residual_out.data() : residual_in.data();
    if (given.w) args.w = w.data();
    if (given.b) args.b = b.data();
    args.y = y.data();
    if (given.residual_out) args.residual_out = residual_out.data();
    args.rstd = rstd.data();
    if (layer()) args.mean = mean.data();
    return args;
  }
  NormBackward<T, R> backward() {
    NormBackward<T, R> args;
    args.r = r.data();
    args.rstd = given_rstd.data();
    if (layer()) args.mean = given_mean.data();
    if (given.w) args.w = w.data();
    args.gy = gy.data();
    if (given.residual) args.g_later = given.in_place ? dr.data() : g_later.data();
    args.dr = dr.data();
    if (given.x) args.dx = dx.data();
    if (given.w) args.dw = dw.data();
    if (given.b) args.db = db.data();
    args.accumulate = given.accumulate;
    return args;
  }
  void watch(InputWatch& inputs) const {
    inputs.watch("x", x);
    inputs.watch("residual_in", residual_in);
    inputs.watch("r", r);
    inputs.watch("w", w);
    inputs.watch("b", b);
    inputs.watch("gy", gy);
    inputs.watch("g_later", g_later);
    inputs.watch("given_rstd", given_rstd);
    inputs.watch("given_mean", given_mean);
  }
  template <class Visit>
  static void outputs(Direction direction, const Visit& visit) {
    if (direction == Direction::forward) {
      visit("y", [](auto& p) -> auto& { return p.y; });
      visit("residual_out", [](auto& p) -> auto& { return p.residual_out; });
      visit("rstd", [](auto& p) -> auto& { return p.rstd; });
      visit("mean", [](auto& p) -> auto& { return p.mean; });
    } else {
      visit("dr", [](auto& p) -> auto& { return p.dr; });
      visit("dx", [](auto& p) -> auto& { return p.dx; });
      visit("dw", [](auto& p) -> auto& { return p.dw; });
      visit("db", [](auto& p) -> auto& { return p.db; });
    }
  }

  NormCase given;
  Guarded<T> x, y, gy, dx;
  Guarded<R> residual_in, residual_out, r, g_later, dr;
  Guarded<Acc> w, b, dw, db, rstd, mean, given_rstd, given_mean;
};

template <class T, class R>
void run_reference(NormProblem<T, R>& problem, Direction direction, bool absolute,
                   std::string_view) {
  if (direction == Direction::forward) {
    ref::norm_forward(problem.given.shape, problem.forward(), absolute);
  } else {
    ref::norm_backward(problem.given.shape, problem.backward(), absolute);
  }
}

template <class T, class R>
void run_door(NormProblem<T, R>& problem, Direction direction, Context& context,
              std::string_view line) {
  if (direction == Direction::forward) {
    norm_forward(context, problem.given.shape, problem.forward(), {.name = line});
  } else {
    norm_backward(context, problem.given.shape, problem.backward(), {.name = line});
  }
}

// Gated RMSNorm.

struct GatedCase {
  GatedNormShape shape;
  int64_t gap = 0;  // elements between rows: different for every array
  bool dw = true;
  double scale = 1.0;
  bool accumulate = false;

  // Without rows forward writes nothing (norm_test runs it).
  bool writes(Direction direction) const {
    return direction == Direction::backward || shape.rows > 0;
  }
  std::string describe() const {
    std::string text = shape.describe();
    if (gap != 0) text += " gap " + std::to_string(gap);
    if (dw) text += " dw";
    if (accumulate) text += " accumulate";
    if (scale != 1.0) text += numbered("scale", scale);
    return text;
  }
};

template <class T>
struct GatedProblem {
  using Acc = accumulate_t<T>;
  using Case = GatedCase;
  explicit GatedProblem(const GatedCase& c)
      : given(c),
        y(count(1)),
        z(count(2)),
        out(count(3)),
        gout(count(0)),
        dy(count(2)),
        dz(count(1)),
        w(c.shape.width),
        dw(c.shape.width),
        rstd(c.shape.rows * (c.shape.width / c.shape.group_width())),
        given_rstd(rstd.count()) {}

  GatedProblem(const GatedCase& c, uint64_t seed) : GatedProblem(c) {
    fill_normal(y, seed, "gated.y", c.scale);
    fill_normal(z, seed, "gated.z", 2.0);
    fill_normal(gout, seed, "gated.gout");
    fill_uniform(w, seed, "gated.w", -1.5, 1.5);
    if (c.accumulate) fill_normal(dw, seed, "gated.dw");
    // What forward would have kept for backward: here in double, rounded once.
    auto in_double = wide();
    ref::gated_norm_forward(given.shape, in_double.forward(), false);
    given_rstd = in_double.rstd.template converted<Acc>();
  }

  GatedProblem<double> wide() const {
    GatedProblem<double> to(given);
    to.y = y.template converted<double>();
    to.z = z.template converted<double>();
    to.gout = gout.template converted<double>();
    to.w = w.template converted<double>();
    if (given.accumulate) to.dw = dw.template converted<double>();
    to.given_rstd = given_rstd.template converted<double>();
    return to;
  }

  int64_t stride(int64_t times) const { return given.shape.width + times * given.gap; }
  int64_t count(int64_t times) const { return given.shape.rows * stride(times); }
  GatedNormForward<T> forward() {
    return {y.data(), stride(1), z.data(), stride(2), w.data(), out.data(), stride(3), rstd.data()};
  }
  GatedNormBackward<T> backward() {
    GatedNormBackward<T> args;
    args.y = y.data();
    args.y_stride = stride(1);
    args.z = z.data();
    args.z_stride = stride(2);
    args.w = w.data();
    args.rstd = given_rstd.data();
    args.gout = gout.data();
    args.gout_stride = stride(0);
    args.dy = dy.data();
    args.dy_stride = stride(2);
    args.dz = dz.data();
    args.dz_stride = stride(1);
    if (given.dw) args.dw = dw.data();
    args.accumulate = given.accumulate;
    return args;
  }
  void watch(InputWatch& inputs) const {
    inputs.watch("y", y);
    inputs.watch("z", z);
    inputs.watch("w", w);
    inputs.watch("gout", gout);
    inputs.watch("given_rstd", given_rstd);
  }
  template <class Visit>
  static void outputs(Direction direction, const Visit& visit) {
    if (direction == Direction::forward) {
      visit("out", [](auto& p) -> auto& { return p.out; });
      visit("rstd", [](auto& p) -> auto& { return p.rstd; });
    } else {
      visit("dy", [](auto& p) -> auto& { return p.dy; });
      visit("dz", [](auto& p) -> auto& { return p.dz; });
      visit("dw", [](auto& p) -> auto& { return p.dw; });
    }
  }

  GatedCase given;
  Guarded<T> y, z, out, gout, dy, dz;
  Guarded<Acc> w, dw, rstd, given_rstd;
};

template <class T>
void run_reference(GatedProblem<T>& problem, Direction direction, bool absolute, std::string_view) {
  if (direction == Direction::forward) {
    ref::gated_norm_forward(problem.given.shape, problem.forward(), absolute);
  } else {
    ref::gated_norm_backward(problem.given.shape, problem.backward(), absolute);
  }
}

template <class T>
void run_door(GatedProblem<T>& problem, Direction direction, Context& context,
              std::string_view line) {
  if (direction == Direction::forward) {
    gated_norm_forward(context, problem.given.shape, problem.forward(), {.name = line});
  } else {
    gated_norm_backward(context, problem.given.shape, problem.backward(), {.name = line});
  }
}

template <class T, class R>
void add_norm(std::vector<Variant>& variants, const NormCase& given) {
  append_variants<NormProblem<T, R>>(variants, "norm", norm_lines<T, R>(), given,
                                     " residual " + std::string(dtype_name(dtype_of<R>)));
}

template <class T>
void add_gated(std::vector<Variant>& variants, const GatedCase& given) {
  append_variants<GatedProblem<T>>(variants, "norm", gated_norm_lines<T>(), given);
}

std::vector<NormCase> norm_test_cases() {
  const auto rms = [](int64_t rows, int64_t width) { return NormShape{rows, width}; };
  const auto layer = [](int64_t rows, int64_t width) {
    return NormShape{rows, width, NormKind::layer};
  };
  return {
      {.shape = rms(0, 7)},
      {.shape = layer(1, 1), .b = true},
      {.shape = rms(1, 1)},
      {.shape = rms(2, 2), .residual = false},
      {.shape = layer(63, 5), .w = false, .gap = 3},
      {.shape = rms(64, 17), .b = true, .in_place = true},
      {.shape = layer(65, 37), .b = true, .in_place = true, .gap = 1},
      {.shape = rms(127, 64), .x = false, .residual_out = false},
      {.shape = layer(11, 127), .x = false, .b = true, .residual_out = false},
      {.shape = rms(200, 65), .w = false, .gap = 7},
      {.shape = rms(149, 131), .residual = false, .b = true, .residual_out = false, .gap = 2},
      {.shape = layer(131, 200), .residual = false},
      {.shape = rms(5, 1031), .in_place = true},
      {.shape = layer(3, 2053), .b = true},
      {.shape = rms(300, 41), .b = true},
      {.shape = rms(4, 63), .in_place = true, .scale = 0.0},  // rms of zeros: eps alone
      {.shape = layer(4, 63), .b = true, .scale = 0.0},
      {.shape = rms(3, 1000), .scale = 1e18},  // squares beyond float
      {.shape = layer(3, 1000), .b = true, .scale = 1e18},
      {.shape = rms(3, 100), .scale = 1e-18},
      {.shape = layer(5, 300), .b = true, .scale = 0.3, .offset = 100.0},
      {.shape = {3, 33, NormKind::rms, 0.0}},
      {.shape = rms(0, 7), .b = true, .accumulate = true},
      {.shape = rms(300, 41), .accumulate = true},
      {.shape = layer(65, 37), .b = true, .accumulate = true},
  };
}

std::vector<GatedCase> gated_test_cases() {
  return {
      {.shape = {0, 8, 0, false}},
      {.shape = {1, 1, 0, false}, .gap = 1},
      {.shape = {1, 1, 1, true}},
      {.shape = {2, 34, 17, false}, .gap = 5},
      {.shape = {63, 35, 7, true}, .gap = 3},
      {.shape = {64, 64, 16, false}},
      {.shape = {65, 127, 0, true}, .gap = 1},
      {.shape = {127, 130, 65, false}, .dw = false},
      {.shape = {200, 66, 1, true}},
      {.shape = {131, 96, 96, false}, .gap = 32},
      {.shape = {5, 1031, 0, false}},
      {.shape = {7, 1036, 518, true}, .gap = 9},
      {.shape = {3, 48, 24, false}, .scale = 0.0},
      {.shape = {3, 48, 24, true}, .scale = 0.0},
      {.shape = {2, 1000, 0, false}, .scale = 1e18},
      {.shape = {2, 1000, 500, true}, .scale = 1e18},
      {.shape = {0, 8, 0, false}, .accumulate = true},
      {.shape = {65, 127, 0, true}, .accumulate = true},
      {.shape = {131, 96, 32, false}, .accumulate = true},
  };
}

}  // namespace

std::vector<Variant> norm_variants(Purpose purpose) {
  const bool test = purpose == Purpose::test;
  std::vector<Variant> variants;
  const std::vector<NormCase> norm_bench = {
      {.shape = {2048, 256}}, {.shape = {2048, 768}}, {.shape = {1, 768}}, {.shape = {64, 768}}};
  for (const NormCase& given : test ? norm_test_cases() : norm_bench) {
    if (test) add_norm<double, double>(variants, given);
    add_norm<float, float>(variants, given);
    add_norm<Bf16, float>(variants, given);
    add_norm<Bf16, Bf16>(variants, given);
  }
  const std::vector<GatedCase> gated_bench = {{.shape = {2048, 512, 0, false}, .gap = 512},
                                              {.shape = {2048, 1536, 0, false}, .gap = 1536},
                                              {.shape = {1, 1536, 0, false}}};
  for (const GatedCase& given : test ? gated_test_cases() : gated_bench) {
    if (test) add_gated<double>(variants, given);
    add_gated<float>(variants, given);
    add_gated<Bf16>(variants, given);
  }
  return variants;
}

}  // namespace adder::measure
