// One call of `s6` or `ssd`, whose arguments have the same names: a scan with a state in and out
// and a dt chain (math.md 0.4).
#pragma once

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "core/view.h"
#include "measure/sequence_call.h"

namespace adder::measure {

/// The source of the values of dt and A.
enum class ScanValues : uint8_t {
  trained,   // as a trained model has them
  mild,      // without the steepest decays: central differences resolve their gradients
  extreme,   // dt raw from -106 to 100, A from -0.0 to -1e4
  unbounded  // softplus off: dt from 0 to 1e4
};

/// The shape and the options around it.
template <class Shape>
struct ScanCase {
  Shape shape = {};
  std::vector<int32_t> cu = {};             // packed: the boundaries
  bool skip = true;                         // D
  bool bias = true;                         // dt_bias
  bool state = true;                        // h0, dh0
  std::optional<bool> upstream_state = {};  // ghT; unset: as `state`
  bool final_state = true;                  // hT
  bool in_place = false;                    // hT is h0
  bool saves = true;                        // forward keeps what backward needs
  bool indexed = false;                     // state_index
  bool reversed = false;                    // order
  bool constant_B = false;                  // one row for all tokens
  bool constant_C = false;
  bool sparse = false;      // only some gradients are asked for
  bool accumulate = false;  // gradients of parameters are added to
  double dt_min = -INFINITY;
  double dt_max = INFINITY;
  int64_t channel_stride = 1;  // of everything but B and C
  int64_t gap = 0;             // elements between the rows of a wider tensor
  int64_t row_gap = -1;        // elements after each batch row; -1: batch_gap()
  ScanValues values = ScanValues::trained;

  int64_t slots() const { return shape.state_rows() * (indexed ? 2 : 1); }
  /// Sums of gradients differ, forward does not.
  bool only_backward() const { return accumulate; }
  std::string describe() const {
    return OptionText(shape.describe())
        .on(skip, "D")
        .on(bias, "dt_bias")
        .on(state, "state")
        .on(in_place, "in_place")
        .on(!saves, "inference")
        .on(indexed, "indexed")
        .on(reversed, "reversed")
        .on(constant_B, "constant_B")
        .on(constant_C, "constant_C")
        .on(sparse, "sparse")
        .on(accumulate, "accumulate")
        .on(std::isfinite(dt_min) || std::isfinite(dt_max), "limits")
        .on(values == ScanValues::extreme, "extreme")
        .on(values == ScanValues::unbounded, "unbounded")
        .number<int64_t>(channel_stride, 1, "channel_stride")
        .number<int64_t>(gap, 0, "gap")
        .text();
  }
  /// Every option on, nothing between rows: what tests of laws index flatly.
  static ScanCase dense(const Shape& shape, std::vector<int32_t> cu = {}) {
    ScanCase given{.shape = shape, .cu = std::move(cu), .row_gap = 0};
    given.shape.gated = true;
    given.values = ScanValues::mild;
    return given;
  }
};

/// Numbers of one token (tokens, steps, shared), of one parameter, of the state of one row.
struct ScanSizes {
  int64_t tokens;  // of x (u in s6), z and y
  int64_t steps;   // of dt
  int64_t shared;  // of B and C
  int64_t rates;   // of A
  int64_t skip;    // of D
  int64_t bias;    // of dt_bias
  int64_t state;
};

/// Self has sizes_of(shape), kFamily, kTokens and kTokensGradient (the names of x and dx), and says
/// where these stand among the arguments: tokens_of(inputs), tokens_gradient_of(backward).
template <class Self, class T, class Shape, class Inputs, class Forward, class Backward>
class ScanCall : public FamilyCall<Self> {
 public:
  using Acc = accumulate_t<T>;
  using Given = ScanCase<Shape>;

  explicit ScanCall(const Given& c) : given(c), sizes(Self::sizes_of(c.shape)) {
    if (given.row_gap < 0) given.row_gap = batch_gap();
    const Shape& shape = c.shape;
    const bool full = !c.sparse;
    const int64_t tokens = elements(sizes.tokens * c.channel_stride),
                  steps = elements(sizes.steps * c.channel_stride), shared = elements(sizes.shared);
    make_arrays(true, tokens, x, y, gy, dx);
    make_arrays(shape.gated, tokens, z);
    make_arrays(shape.gated && full, tokens, dz);
    make_arrays(true, steps, dt);
    make_arrays(full, steps, ddt);
    make_arrays(true, c.constant_B ? sizes.shared : shared, B, dB);
    make_arrays(true, c.constant_C ? sizes.shared : shared, C);
    make_arrays(full, C.count(), dC);
    make_arrays(true, sizes.rates, A, dA);
    make_arrays(c.skip, sizes.skip, D);
    make_arrays(full, sizes.skip, dD);
    make_arrays(c.bias, sizes.bias, dt_bias);
    make_arrays(full, sizes.bias, ddt_bias);
    make_arrays(c.state, c.slots() * sizes.state, h0);
    make_arrays(c.final_state, c.slots() * sizes.state, hT);
    make_arrays(c.upstream_state.value_or(c.state), shape.state_rows() * sizes.state, ghT);
    make_arrays(c.state && full, shape.state_rows() * sizes.state, dh0);
    saved = Guarded<Acc>(shape.saved_elements());
    sequence.make(c);
  }

  ScanCall(const Given& c, uint64_t seed) : ScanCall(c) {
    const auto stream = [](const char* name) { return std::string(Self::kFamily) + "." + name; };
    fill_normal(x, seed, stream("x").c_str());
    fill_normal(z, seed, stream("z").c_str());
    fill_normal(gy, seed, stream("gy").c_str());
    fill_normal(B, seed, stream("B").c_str());
    fill_normal(C, seed, stream("C").c_str());
    fill_normal(h0, seed, stream("h0").c_str());
    fill_normal(ghT, seed, stream("ghT").c_str());
    fill_uniform(D, seed, stream("D").c_str(), -1, 1);
    const bool mild = c.values == ScanValues::mild;
    fill_uniform(dt_bias, seed, stream("dt_bias").c_str(), mild ? -1 : -2, 0.5);
    fill_uniform(dt, seed, stream("dt").c_str(), mild ? -3 : -4, mild ? 1.5 : 2);
    fill_uniform(A, seed, stream("A").c_str(), -3, mild ? 2 : 2.8);
    for (int64_t i = 0; i < A.count(); ++i) A[i] = -std::exp(A[i]);
    if (c.values > ScanValues::mild) exaggerate(seed, stream_of(stream("extreme").c_str()));
    if (c.in_place) hT = h0;
    if (!c.accumulate) return;
    for (auto* sum : {&dA, &dD, &ddt_bias}) fill_normal(*sum, seed, stream("sums").c_str());
  }

  template <class U>
  TokenView<U> view(U* data, int64_t channels) const {
    const int64_t stride = channels * given.channel_stride + given.gap;
    return {data, given.shape.len * stride + given.row_gap, stride, given.channel_stride};
  }
  template <class U>
  TokenView<U> shared_view(U* data, bool constant) const {
    if (constant) return {data, 0, 0, 1};
    const int64_t stride = sizes.shared + given.gap;
    return {data, given.shape.len * stride + given.row_gap, stride, 1};
  }

  Inputs inputs(Side side) const {
    Inputs in;
    Self::tokens_of(in) = view(x.at(side), sizes.tokens);
    in.dt = view(dt.at(side), sizes.steps);
    in.z = view(z.at(side), sizes.tokens);
    in.B = shared_view(B.at(side), given.constant_B);
    in.C = shared_view(C.at(side), given.constant_C);
    in.A = A.at(side);
    in.D = D.at(side);
    in.dt_bias = dt_bias.at(side);
    in.dt_min = static_cast<Acc>(given.dt_min);
    in.dt_max = static_cast<Acc>(given.dt_max);
    in.h0 = h0.at(side);
    sequence.give(side, in);
    return in;
  }
  Forward forward(Side side) {
    Forward args{inputs(side), view(y.at(side), sizes.tokens), hT.at(side), nullptr};
    if (given.saves) args.saved = saved.at(side);
    if (given.in_place) args.in.h0 = args.hT;
    return args;
  }
  /// The token at t of each batch row.
  Forward token(Side side, int64_t t) {
    Forward args = forward(side);
    for (auto* view :
         {&Self::tokens_of(args.in), &args.in.dt, &args.in.B, &args.in.C, &args.in.z}) {
      if (*view) view->data += t * view->token_stride;
    }
    args.y.data += t * args.y.token_stride;
    return args;
  }
  Backward backward(Side side) {
    Backward args;
    args.in = inputs(side);
    args.saved = saved.at(side);
    args.gy = view(gy.at(side), sizes.tokens);
    args.ghT = ghT.at(side);
    Self::tokens_gradient_of(args) = view(dx.at(side), sizes.tokens);
    args.ddt = view(ddt.at(side), sizes.steps);
    args.dz = view(dz.at(side), sizes.tokens);
    args.dB = shared_view(dB.at(side), given.constant_B);
    args.dC = shared_view(dC.at(side), given.constant_C);
    args.dA = dA.at(side);
    args.dD = dD.at(side);
    args.ddt_bias = ddt_bias.at(side);
    args.accumulate = given.accumulate;
    args.dh0 = dh0.at(side);
    return args;
  }

  void list(ArrayList& arrays) override {
    arrays.input(Self::kTokens, x).by_token(sizes.tokens);
    arrays.input("dt", dt).by_token(sizes.steps);
    arrays.input("B", B).by_token(given.constant_B ? 0 : sizes.shared);
    arrays.input("C", C).by_token(given.constant_C ? 0 : sizes.shared);
    arrays.input("z", z).by_token(sizes.tokens);
    arrays.input("A", A);
    arrays.input("D", D);
    arrays.input("dt_bias", dt_bias);
    arrays.input("h0", h0).by_row(sizes.state);
    sequence.list(arrays);
    arrays.output("y", y).by_token(sizes.tokens);
    arrays.output("hT", hT).by_row(sizes.state);
    arrays.output("saved", saved);
    arrays.upstream("gy", gy, y).by_token(sizes.tokens);
    arrays.upstream("ghT", ghT, hT).by_row(sizes.state);
    arrays.gradient(Self::kTokensGradient, dx, x).by_token(sizes.tokens);
    arrays.gradient("ddt", ddt, dt).by_token(sizes.steps);
    arrays.gradient("dB", dB, B).by_token(given.constant_B ? 0 : sizes.shared);
    arrays.gradient("dC", dC, C).by_token(given.constant_C ? 0 : sizes.shared);
    arrays.gradient("dz", dz, z).by_token(sizes.tokens);
    arrays.gradient("dA", dA, A);
    arrays.gradient("dD", dD, D);
    arrays.gradient("ddt_bias", ddt_bias, dt_bias);
    arrays.gradient("dh0", dh0, h0).by_row(sizes.state);
  }

  void prepare_backward(Workspace& workspace, const Choice& choice) override {
    this->upload(workspace.context());
    workspace.run([&](Context& context) {
      Forward args = forward(Side::device);
      args.in = inputs(Side::device);
      args.hT = nullptr;
      args.saved = saved.at(Side::device);
      Self::kDoors.forward(context, given.shape, args, choice);
    });
    saved.download();
  }

  static Cost cost(const Given& given, Direction direction) {
    return given.shape.cost(direction, dtype_of<T>);
  }

  Given given;
  ScanSizes sizes;
  Guarded<T> x, dt, z, B, C, y, gy, dx, ddt, dz, dB, dC;
  Guarded<Acc> A, D, dt_bias, dA, dD, ddt_bias, h0, hT, ghT, dh0, saved;
  SequenceArrays sequence;

 private:
  int64_t elements(int64_t row) const {
    return given.shape.batch * (given.shape.len * (row + given.gap) + given.row_gap);
  }
  void exaggerate(uint64_t seed, uint64_t stream) {
    for (int64_t i = 0; i < dt.count(); ++i) {
      const auto draw = uniform_below(seed, stream, static_cast<uint64_t>(i), 5);
      const double unbounded[] = {0, 1e4, 1e-4, 0.3, 0};
      const double raw[] = {100, -106, -20, 0.5, 25};
      dt.set(i, (given.values == ScanValues::unbounded ? unbounded : raw)[draw]);
    }
    for (int64_t i = 0; i < A.count(); ++i) {
      const double rates[] = {-0.0, -1e4, -1e-6, -1, -200, -0.01};
      const bool few = A.count() < 16;  // each must occur
      A.set(i, rates[few ? static_cast<uint64_t>(i) % 6
                         : uniform_below(seed, stream + 1, static_cast<uint64_t>(i), 6)]);
    }
  }
};

}  // namespace adder::measure
