// The calls that `adder bench duality` times: SSD in one of its forms, and the S6 scan, on random
// dense arrays as a model would hand them over. A state enters and leaves, with gradients for both.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/context.h"
#include "core/rng.h"
#include "kernels/s6/s6.h"
#include "kernels/ssd/ssd.h"

namespace adder::apps {

/// `count` values in [low, high).
inline std::vector<float> random_values(int64_t count, std::string_view name, float low,
                                        float high) {
  std::vector<float> values(static_cast<size_t>(count));
  const uint64_t stream = stream_of(std::string(name).c_str());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = low + (high - low) * static_cast<float>(uniform01(1, stream, i));
  }
  return values;
}

/// A context over an arena that holds what `call` needs, threads included.
template <class Call>
class PlannedContext {
 public:
  PlannedContext(int threads, const Call& call) {
    Arena plan;
    context_.threads = threads;
    context_.arena = &plan;
    call(context_);
    arena_ = std::make_unique<Arena>(std::max<int64_t>(plan.peak_bytes(), kAlignment), Memory{});
    context_.arena = arena_.get();
  }
  Context& context() { return context_; }

 private:
  Context context_;
  std::unique_ptr<Arena> arena_;
};

class SsdCall {
 public:
  explicit SsdCall(const SsdShape& given) : shape(given) {
    const int64_t tokens = shape.batch * shape.len, shared = shape.groups * shape.state;
    x_ = random_values(tokens * shape.inner(), "duality.x", -1, 1);
    gy_ = random_values(tokens * shape.inner(), "duality.gy", -1, 1);
    B_ = random_values(tokens * shared, "duality.B", -1, 1);
    C_ = random_values(tokens * shared, "duality.C", -1, 1);
    dt_ = random_values(tokens * shape.heads, "duality.dt", -4, 1);
    A_ = random_values(shape.heads, "duality.A", -1.5F, -0.1F);
    D_ = random_values(shape.heads, "duality.D", 0.5F, 1);
    y_.resize(x_.size());
    dx_.resize(x_.size());
    ddt_.resize(dt_.size());
    dB_.resize(B_.size());
    dC_.resize(C_.size());
    dA_.resize(A_.size());
    dD_.resize(D_.size());
    saved_.resize(static_cast<size_t>(shape.saved_elements()));
    h0_ = random_values(shape.state_rows() * shape.state_elements(), "duality.h0", -1, 1);
    hT_ = ghT_ = dh0_ = h0_;
  }
  void forward(Context& context, std::string_view line) {
    SsdForward<float> args{inputs(), view(y_, shape.inner()), hT_.data(), saved_.data()};
    ssd_forward(context, shape, args, {.name = line});
  }
  void backward(Context& context, std::string_view line) {
    SsdBackward<float> args;
    args.in = inputs();
    args.saved = saved_.data();
    args.gy = view(gy_, shape.inner());
    args.dx = view(dx_, shape.inner());
    args.ddt = view(ddt_, shape.heads);
    args.dB = view(dB_, shape.groups * shape.state);
    args.dC = view(dC_, shape.groups * shape.state);
    args.dA = dA_.data();
    args.dD = dD_.data();
    args.ghT = ghT_.data();
    args.dh0 = dh0_.data();
    ssd_backward(context, shape, args, {.name = line});
  }

  SsdShape shape;

 private:
  TokenView<float> view(std::vector<float>& values, int64_t channels) const {
    return dense_view(values.data(), shape.len, channels);
  }
  SsdInputs<float> inputs() {
    SsdInputs<float> in;
    in.x = view(x_, shape.inner());
    in.dt = view(dt_, shape.heads);
    in.B = view(B_, shape.groups * shape.state);
    in.C = view(C_, shape.groups * shape.state);
    in.A = A_.data();
    in.D = D_.data();
    in.h0 = h0_.data();
    return in;
  }
  std::vector<float> x_, gy_, B_, C_, dt_, A_, D_, y_, dx_, ddt_, dB_, dC_, dA_, dD_, saved_;
  std::vector<float> h0_, hT_, ghT_, dh0_;
};

class S6Call {
 public:
  explicit S6Call(const S6Shape& given) : shape(given) {
    const int64_t tokens = shape.batch * shape.len, shared = shape.groups * shape.state;
    u_ = random_values(tokens * shape.dim, "duality.x", -1, 1);
    gy_ = random_values(tokens * shape.dim, "duality.gy", -1, 1);
    dt_ = random_values(tokens * shape.dim, "duality.dt", -4, 1);
    B_ = random_values(tokens * shared, "duality.B", -1, 1);
    C_ = random_values(tokens * shared, "duality.C", -1, 1);
    A_ = random_values(shape.dim * shape.state, "duality.A", -1.5F, -0.1F);
    D_ = random_values(shape.dim, "duality.D", 0.5F, 1);
    for (auto* values : {&y_, &du_, &ddt_}) values->resize(u_.size());
    for (auto* values : {&dB_, &dC_}) values->resize(B_.size());
    dA_.resize(A_.size());
    dD_.resize(D_.size());
    saved_.resize(static_cast<size_t>(shape.saved_elements()));
    h0_ = random_values(shape.state_rows() * shape.dim * shape.state, "duality.h0", -1, 1);
    hT_ = ghT_ = dh0_ = h0_;
  }
  void forward(Context& context, std::string_view line) {
    S6Forward<float> args{inputs(), view(y_, shape.dim), hT_.data(), saved_.data()};
    s6_forward(context, shape, args, {.name = line});
  }
  void backward(Context& context, std::string_view line) {
    S6Backward<float> args;
    args.in = inputs();
    args.saved = saved_.data();
    args.gy = view(gy_, shape.dim);
    args.du = view(du_, shape.dim);
    args.ddt = view(ddt_, shape.dim);
    args.dB = view(dB_, shape.groups * shape.state);
    args.dC = view(dC_, shape.groups * shape.state);
    args.dA = dA_.data();
    args.dD = dD_.data();
    args.ghT = ghT_.data();
    args.dh0 = dh0_.data();
    s6_backward(context, shape, args, {.name = line});
  }

  S6Shape shape;

 private:
  TokenView<float> view(std::vector<float>& values, int64_t channels) const {
    return dense_view(values.data(), shape.len, channels);
  }
  S6Inputs<float> inputs() {
    S6Inputs<float> in;
    in.u = view(u_, shape.dim);
    in.dt = view(dt_, shape.dim);
    in.B = view(B_, shape.groups * shape.state);
    in.C = view(C_, shape.groups * shape.state);
    in.A = A_.data();
    in.D = D_.data();
    in.h0 = h0_.data();
    return in;
  }
  std::vector<float> u_, gy_, dt_, B_, C_, A_, D_, y_, du_, ddt_, dB_, dC_, dA_, dD_, saved_;
  std::vector<float> h0_, hT_, ghT_, dh0_;
};

}  // namespace adder::apps
