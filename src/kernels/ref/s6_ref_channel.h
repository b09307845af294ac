// What the real and the complex reference of s6 share: one channel's inputs, the sums over
// channels, and the running error bound. `shape` is flat here: a complex state counts as two
// numbers, the real part first.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/ref/dt_chain.h"
#include "kernels/s6/s6.h"

namespace adder::ref::s6 {

template <class Acc>
using Step = DtStep<Acc>;

// One channel of one sequence: `count` tokens from step `begin` of batch row b.
template <class T>
struct Channel {
  using Acc = accumulate_t<T>;
  const S6Shape& shape;
  const S6Inputs<T>& in;
  int64_t row, b, begin, count, slot, saved, d, group;

  int64_t token(int64_t t) const { return in.order ? in.order[begin + t] : begin + t; }
  Acc u(int64_t t) const { return static_cast<Acc>(in.u.at(b, token(t), d)); }
  Acc z(int64_t t) const { return static_cast<Acc>(in.z.at(b, token(t), d)); }
  Acc B(int64_t t, int64_t n) const {
    return static_cast<Acc>(in.B.at(b, token(t), group * shape.state + n));
  }
  Acc C(int64_t t, int64_t n) const {
    return static_cast<Acc>(in.C.at(b, token(t), group * shape.state + n));
  }
  Acc A(int64_t n) const { return in.A[d * shape.state + n]; }
  Acc D() const { return in.D ? in.D[d] : Acc(0); }
  Acc h0(int64_t n) const {
    return in.h0 ? in.h0[(slot * shape.dim + d) * shape.state + n] : Acc(0);
  }

  Step<Acc> step(int64_t t) const {
    const Acc raw = static_cast<Acc>(in.dt.at(b, token(t), d));
    return dt_step(in, shape.softplus, raw, in.dt_bias ? in.dt_bias[d] : Acc(0));
  }
  Bounded<Acc> decay(const Bounded<Acc>& delta, int64_t n) const {
    const Acc a = std::exp(delta.value * A(n));
    // Where a is 0 its error is, too, whatever the exponent's.
    return {a, a == 0 ? Acc(0) : a * (1 + std::abs(A(n)) * delta.bound)};
  }
};

template <class T>
std::vector<Channel<T>> channels_of(const S6Shape& shape, const S6Inputs<T>& in) {
  std::vector<Channel<T>> list;
  for (int64_t row = 0; row < shape.state_rows(); ++row) {
    const int64_t begin = shape.packed() ? in.cu_seqlens[row] : 0;
    const int64_t end = shape.packed() ? in.cu_seqlens[row + 1] : shape.len;
    const int64_t slot = in.state_index ? in.state_index[row] : row;
    const int64_t saved = shape.packed() ? begin / kS6Chunk + row : row * shape.saved_chunks();
    for (int64_t d = 0; d < shape.dim; ++d) {
      list.push_back({shape, in, row, shape.packed() ? 0 : row, begin, end - begin, slot, saved, d,
                      d / (shape.dim / shape.groups)});
    }
  }
  return list;
}

// Writes value or bound.
template <class Acc>
Acc pick(const Bounded<Acc>& x, bool absolute) {
  return absolute ? x.bound : x.value;
}
template <class T, class Acc>
void put(const TokenView<T>& view, const Channel<T>& channel, int64_t t, const Bounded<Acc>& x,
         bool absolute) {
  if (view) view.at(channel.b, channel.token(t), channel.d) = static_cast<T>(pick(x, absolute));
}

// Sums over channels, tokens and rows, as values or as bounds.
template <class T>
struct Sums {
  using Acc = accumulate_t<T>;
  explicit Sums(const S6Shape& shape)
      : width(shape.groups * shape.state),
        dB(static_cast<size_t>(shape.batch * shape.len * width)),
        dC(dB.size()),
        dA(static_cast<size_t>(shape.dim * shape.state)),
        dD(static_cast<size_t>(shape.dim)),
        ddt_bias(dD.size()) {}
  int64_t width;
  std::vector<Acc> dB, dC;  // (batch, len, groups, state)
  std::vector<Acc> dA, dD, ddt_bias;
};

// The gate of one token.
template <class T>
Gate<accumulate_t<T>> gate(const Channel<T>& channel, const S6Backward<T>& args, int64_t t) {
  using Acc = accumulate_t<T>;
  const Acc gout = static_cast<Acc>(args.gy.at(channel.b, channel.token(t), channel.d));
  return channel.in.z ? silu_gate(gout, channel.z(t)) : no_gate(gout);
}

/// y, gated where z is given.
template <class T>
void put_output(const Channel<T>& channel, const S6Forward<T>& args, int64_t t,
                Bounded<accumulate_t<T>> y, bool absolute) {
  if (args.in.z) {
    const auto silu = channel.z(t) * sigmoid(channel.z(t));
    y = {y.value * silu, y.bound * std::abs(silu)};
  }
  put(args.y, channel, t, y, absolute);
}

/// What a token's sums over states leave for its own gradients.
template <class Acc>
struct TokenSums {
  Step<Acc> step;
  Gate<Acc> gates;
  Bounded<Acc> s1;      // sum over n of lam B
  Bounded<Acc> ddelta;  // of delta
  Bounded<Acc> y;       // before the gate
};

/// The gradients of u, dt and z at a token, and its share of those of D and dt_bias.
template <class T>
void put_token(const Channel<T>& channel, const S6Backward<T>& args, int64_t t, bool absolute,
               const TokenSums<accumulate_t<T>>& token, Sums<T>& sums) {
  using Acc = accumulate_t<T>;
  const auto& [step, gates, s1, ddelta, y] = token;
  const Bounded<Acc>& delta = step.delta;
  const Bounded<Acc> ddt{
      ddelta.value * step.slope.value,
      ddelta.bound * step.slope.value + std::abs(ddelta.value) * step.slope.bound};
  const Acc skip = channel.D() * gates.gy.value;
  put(args.du, channel, t,
      Bounded<Acc>{skip + delta.value * s1.value,
                   std::abs(skip) + delta.value * s1.bound + delta.bound * std::abs(s1.value)},
      absolute);
  put(args.ddt, channel, t, ddt, absolute);
  if (channel.in.z) {
    put(args.dz, channel, t,
        Bounded<Acc>{gates.dz_over_y.value * y.value, gates.dz_over_y.bound * y.bound}, absolute);
  }
  const auto d = static_cast<size_t>(channel.d);
  sums.dD[d] += absolute ? gates.gy.bound * std::abs(channel.u(t)) : gates.gy.value * channel.u(t);
  sums.ddt_bias[d] += pick(ddt, absolute);
}

/// One row of B or C for all tokens: the sum of its gradients.
template <class T>
void write_constant(const TokenView<T>& view, int64_t tokens, int64_t width,
                    const std::vector<accumulate_t<T>>& rows) {
  for (int64_t n = 0; view && n < width; ++n) {
    accumulate_t<T> sum = 0;
    for (int64_t i = 0; i < tokens; ++i) sum += rows[static_cast<size_t>(i * width + n)];
    view.data[n] = static_cast<T>(sum);
  }
}

template <class T>
void write_sums(const S6Shape& shape, const S6Backward<T>& args, bool absolute,
                const Sums<T>& sums) {
  const bool constant_B = is_constant(args.dB), constant_C = is_constant(args.dC);
  if (constant_B) write_constant(args.dB, shape.batch * shape.len, sums.width, sums.dB);
  if (constant_C) write_constant(args.dC, shape.batch * shape.len, sums.width, sums.dC);
  for (int64_t i = 0; i < shape.batch * shape.len; ++i) {
    for (int64_t n = 0; n < sums.width; ++n) {
      const auto from = static_cast<size_t>(i * sums.width + n);
      if (args.dB && !constant_B)
        args.dB.at(i / shape.len, i % shape.len, n) = static_cast<T>(sums.dB[from]);
      if (args.dC && !constant_C)
        args.dC.at(i / shape.len, i % shape.len, n) = static_cast<T>(sums.dC[from]);
    }
  }
  put_sums(sums.dA, args.accumulate, absolute, args.dA);
  put_sums(sums.dD, args.accumulate, absolute, args.dD);
  put_sums(sums.ddt_bias, args.accumulate, absolute, args.ddt_bias);
}

}  // namespace adder::ref::s6
