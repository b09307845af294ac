// One call of `norm`: RMSNorm or LayerNorm with the residual add, and the gated RMSNorm.
#pragma once

#include <string>
#include <type_traits>

#include "kernels/norm/norm.h"
#include "kernels/ref/norm_ref.h"
#include "measure/call_options.h"

namespace adder::measure {

struct NormCase {
  NormShape shape;
  bool x = true;         // absent: r = residual_in, and dx is not asked for
  bool residual = true;  // residual_in, g_later
  bool w = true;         // w, dw
  bool b = false;        // b, db
  bool residual_out = true;
  bool in_place = false;    // residual_out is residual_in, dr is g_later
  bool accumulate = false;  // dw and db are added to
  bool chained = false;     // backward reads what forward wrote, not arrays of its own
  int64_t gap = 0;          // elements between the rows of x
  double scale = 1.0;
  double offset = 0.0;

  /// Sums of gradients differ, forward does not.
  bool only_backward() const { return accumulate; }
  std::string describe() const {
    return OptionText(shape.describe())
        .on(x, "x")
        .on(residual, "residual")
        .on(w, "w")
        .on(b, "b")
        .on(residual_out, "residual_out")
        .on(in_place, "in_place")
        .on(accumulate, "accumulate")
        .number<int64_t>(gap, 0, "gap")
        .number(scale, 1.0, "scale")
        .number(offset, 0.0, "offset")
        .text();
  }
};

template <class T, class R>
class NormCall : public FamilyCall<NormCall<T, R>> {
 public:
  using Acc = accumulate_t<T>;
  using Given = NormCase;
  using Wide = NormCall<double, double>;
  static constexpr Doors<NormShape, NormForward<T, R>, NormBackward<T, R>> kDoors = {
      norm_forward<T, R>, norm_backward<T, R>, ref::norm_forward<T, R>, ref::norm_backward<T, R>};

  explicit NormCall(const Given& c) : given(c) {
    const NormShape& shape = c.shape;
    const bool layer = shape.kind == NormKind::layer;
    make_arrays(c.x, shape.rows * (shape.width + c.gap), x);
    make_arrays(c.x, count(), dx);
    make_arrays(true, count(), y, gy);
    make_arrays(c.residual, count(), residual_in, g_later);
    make_arrays(c.residual_out, count(), residual_out);
    make_arrays(true, count(), dr);
    make_arrays(c.w, shape.width, w, dw);
    make_arrays(c.b, shape.width, b, db);
    make_arrays(true, shape.rows, rstd);
    make_arrays(layer, shape.rows, mean);
    if (c.chained) return;
    make_arrays(true, count(), r);
    make_arrays(true, shape.rows, given_rstd);
    make_arrays(layer, shape.rows, given_mean);
  }
  NormCall(const Given& c, uint64_t seed) : NormCall(c) {
    fill_normal(x, seed, "norm.x", c.scale);
    for (auto* each : {&residual_in, &r}) {
      fill_normal(*each, seed, each == &r ? "norm.r" : "norm.residual_in", c.scale);
      for (int64_t i = 0; i < each->count(); ++i) each->set(i, each->value(i) + c.offset);
    }
    fill_normal(gy, seed, "norm.gy");
    fill_normal(g_later, seed, "norm.g_later");
    fill_uniform(w, seed, "norm.w", -1.5, 1.5);
    fill_uniform(b, seed, "norm.b", -1.0, 1.0);
    if (!c.chained) take_statistics_of_r();
    if (c.in_place) {
      residual_out = residual_in;
      dr = g_later;
    }
    if (!c.accumulate) return;
    for (auto* sum : {&dw, &db}) fill_normal(*sum, seed, "norm.sums");
  }

  std::unique_ptr<Call> wide() override {
    auto out = FamilyCall<NormCall>::wide();
    if (std::is_same_v<R, Bf16> && given.x && given.residual) {
      round_residual(static_cast<Wide&>(*out));
    }
    return out;
  }

  NormForward<T, R> forward(Side side) {
    return {.x = x.at(side),
            .x_stride = given.shape.width + given.gap,
            .residual_in = (given.in_place ? residual_out : residual_in).at(side),
            .w = w.at(side),
            .b = b.at(side),
            .y = y.at(side),
            .residual_out = residual_out.at(side),
            .rstd = rstd.at(side),
            .mean = mean.at(side)};
  }
  NormBackward<T, R> backward(Side side) {
    return {.r = (given.chained ? residual_out : r).at(side),
            .rstd = (given.chained ? rstd : given_rstd).at(side),
            .mean = (given.chained ? mean : given_mean).at(side),
            .w = w.at(side),
            .gy = gy.at(side),
            .g_later = (given.in_place ? dr : g_later).at(side),
            .dr = dr.at(side),
            .dx = dx.at(side),
            .dw = dw.at(side),
            .db = db.at(side),
            .accumulate = given.accumulate};
  }
  void list(ArrayList& arrays) override {
    arrays.input("x", x);
    arrays.input("residual_in", residual_in);
    arrays.input("w", w);
    arrays.input("b", b);
    arrays.input("r", r);
    arrays.input("given_rstd", given_rstd);
    arrays.input("given_mean", given_mean);
    arrays.output("y", y);
    arrays.output("residual_out", residual_out);
    arrays.output("rstd", rstd);
    arrays.output("mean", mean);
    arrays.upstream("gy", gy, y);
    arrays.upstream("g_later", g_later, residual_out);
    arrays.gradient("dr", dr, residual_in);
    arrays.gradient("dx", dx, x);
    arrays.gradient("dw", dw, w);
    arrays.gradient("db", db, b);
  }
  static Cost cost(const Given& given, Direction direction) {
    return given.shape.cost(direction, dtype_of<T>);
  }

  Given given;
  Guarded<T> x, y, gy, dx;
  Guarded<R> residual_in, residual_out, r, g_later, dr;
  Guarded<Acc> w, b, dw, db, rstd, mean, given_rstd, given_mean;

 private:
  int64_t count() const { return given.shape.rows * given.shape.width; }
  // The statistics that forward would have kept: here in double, rounded once.
  void take_statistics_of_r() {
    NormCall<double, double> of_r({.shape = given.shape, .x = false, .w = false});
    of_r.residual_in.assign(r);
    of_r.reference(Direction::forward, false, nullptr);
    given_rstd.assign(of_r.rstd);
    given_mean.assign(of_r.mean);
  }
  // The sum is what the bf16 residual stores, by definition: the double reference starts from it,
  // or its distance from the unrounded sum would pass for an error of the statistics.
  void round_residual(Wide& out) const {
    const int64_t width = given.shape.width;
    for (int64_t i = 0; i < count(); ++i) {
      const int64_t at = i / width * (width + given.gap) + i % width;
      const double sum = to_double(residual_in[i]) + to_double(x[at]);
      out.residual_in[i] = to_double(from_double<Bf16>(sum));
      out.x[at] = 0;
    }
    if (given.in_place) out.residual_out.assign(out.residual_in);
  }
};

struct GatedNormCase {
  GatedNormShape shape;
  int64_t gap = 0;  // elements between rows: different for every array
  bool dw = true;
  bool accumulate = false;  // dw is added to
  bool chained = false;     // backward reads the rstd that forward wrote
  double scale = 1.0;

  /// Sums of gradients differ, forward does not.
  bool only_backward() const { return accumulate; }
  std::string describe() const {
    return OptionText(shape.describe())
        .number<int64_t>(gap, 0, "gap")
        .on(dw, "dw")
        .on(accumulate, "accumulate")
        .number(scale, 1.0, "scale")
        .text();
  }
};

template <class T>
class GatedNormCall : public FamilyCall<GatedNormCall<T>> {
 public:
  using Acc = accumulate_t<T>;
  using Given = GatedNormCase;
  using Wide = GatedNormCall<double>;
  static constexpr Doors<GatedNormShape, GatedNormForward<T>, GatedNormBackward<T>> kDoors = {
      gated_norm_forward<T>, gated_norm_backward<T>, ref::gated_norm_forward<T>,
      ref::gated_norm_backward<T>};

  explicit GatedNormCall(const Given& c) : given(c) {
    const GatedNormShape& shape = c.shape;
    const int64_t groups = shape.rows * (shape.width / shape.group_width());
    make_arrays(true, shape.rows * stride(1), y, dz);
    make_arrays(true, shape.rows * stride(2), z, dy);
    make_arrays(true, shape.rows * stride(3), out);
    make_arrays(true, shape.rows * stride(0), gout);
    make_arrays(true, shape.width, w);
    make_arrays(c.dw, shape.width, dw);
    make_arrays(true, groups, rstd);
    make_arrays(!c.chained, groups, given_rstd);
  }
  GatedNormCall(const Given& c, uint64_t seed) : GatedNormCall(c) {
    fill_normal(y, seed, "gated.y", c.scale);
    fill_normal(z, seed, "gated.z", 2.0);
    fill_normal(gout, seed, "gated.gout");
    fill_uniform(w, seed, "gated.w", -1.5, 1.5);
    if (c.accumulate) fill_normal(dw, seed, "gated.sums");
    if (c.chained) return;
    // The statistics that forward would have kept: here in double, rounded once.
    const auto in_double = this->wide();
    in_double->reference(Direction::forward, false, nullptr);
    given_rstd.assign(static_cast<Wide&>(*in_double).rstd);
  }

  GatedNormForward<T> forward(Side side) {
    return {y.at(side), stride(1),    z.at(side), stride(2),
            w.at(side), out.at(side), stride(3),  rstd.at(side)};
  }
  GatedNormBackward<T> backward(Side side) {
    return {.y = y.at(side),
            .y_stride = stride(1),
            .z = z.at(side),
            .z_stride = stride(2),
            .w = w.at(side),
            .rstd = (given.chained ? rstd : given_rstd).at(side),
            .gout = gout.at(side),
            .gout_stride = stride(0),
            .dy = dy.at(side),
            .dy_stride = stride(2),
            .dz = dz.at(side),
            .dz_stride = stride(1),
            .dw = dw.at(side),
            .accumulate = given.accumulate};
  }
  void list(ArrayList& arrays) override {
    arrays.input("y", y);
    arrays.input("z", z);
    arrays.input("w", w);
    arrays.input("given_rstd", given_rstd);
    arrays.output("out", out);
    arrays.output("rstd", rstd);
    arrays.upstream("gout", gout, out);
    arrays.gradient("dy", dy, y);
    arrays.gradient("dz", dz, z);
    arrays.gradient("dw", dw, w);
  }
  static Cost cost(const Given& given, Direction direction) {
    return given.shape.cost(direction, dtype_of<T>);
  }

  Given given;
  Guarded<T> y, z, out, gout, dy, dz;
  Guarded<Acc> w, dw, rstd, given_rstd;

 private:
  int64_t stride(int64_t times) const { return given.shape.width + times * given.gap; }
};

}  // namespace adder::measure
