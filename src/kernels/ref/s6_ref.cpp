#include "kernels/ref/s6_ref.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace adder::ref {
namespace {

template <class Acc>
Acc sigmoid(Acc x) {
  const Acc e = std::exp(-std::abs(x));
  return (x < 0 ? e : Acc(1)) / (1 + e);
}

// A value and S, the bound of its error in units of roundoff.
template <class Acc>
struct Bounded {
  Acc value = 0;
  Acc bound = 0;
};

// delta and its slope d delta / d dt (math.md 0.4).
template <class Acc>
struct Step {
  Bounded<Acc> delta;
  Bounded<Acc> slope;
};

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
    const Acc bias = in.dt_bias ? in.dt_bias[d] : Acc(0);
    const Acc pre = raw + bias;
    const Acc pre_bound = std::abs(raw) + std::abs(bias);
    Bounded<Acc> sp{pre, pre_bound};
    Bounded<Acc> slope{1, 0};
    if (shape.softplus && pre <= 20) {
      const Acc s = sigmoid(pre);
      sp.value = std::max(pre, Acc(0)) + std::log1p(std::exp(-std::abs(pre)));
      sp.bound = s * pre_bound + sp.value;
      slope = {s, s + s * sigmoid(-pre) * pre_bound};
    }
    if (sp.value < in.dt_min) return {{in.dt_min, std::abs(in.dt_min)}, {0, 0}};
    if (sp.value > in.dt_max) return {{in.dt_max, std::abs(in.dt_max)}, {0, 0}};
    return {sp, slope};
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
  int64_t packed_chunks = 0;
  for (int64_t row = 0; row < shape.state_rows(); ++row) {
    const int64_t begin = shape.packed() ? in.cu_seqlens[row] : 0;
    const int64_t end = shape.packed() ? in.cu_seqlens[row + 1] : shape.len;
    const int64_t slot = in.state_index ? in.state_index[row] : row;
    const int64_t saved = shape.packed() ? packed_chunks : row * shape.saved_chunks();
    for (int64_t d = 0; d < shape.dim; ++d) {
      list.push_back({shape, in, row, shape.packed() ? 0 : row, begin, end - begin, slot, saved, d,
                      d / (shape.dim / shape.groups)});
    }
    packed_chunks += (end - begin + kS6Chunk - 1) / kS6Chunk;
  }
  return list;
}

// All states of one channel: h(t, n) is the state that enters token t, 0 <= t <= count.
template <class T>
class States {
 public:
  using Acc = accumulate_t<T>;
  explicit States(const Channel<T>& channel)
      : state_(channel.shape.state),
        h_(static_cast<size_t>((channel.count + 1) * channel.shape.state)) {
    for (int64_t n = 0; n < state_; ++n) at(0, n) = {channel.h0(n), std::abs(channel.h0(n))};
    for (int64_t t = 0; t < channel.count; ++t) {
      const Bounded<Acc> delta = channel.step(t).delta;
      const Acc u = channel.u(t);
      for (int64_t n = 0; n < state_; ++n) {
        const Bounded<Acc> a = channel.decay(delta, n);
        const Bounded<Acc>& h = at(t, n);
        const Acc B = channel.B(t, n);
        at(t + 1, n) = {
            a.value * h.value + delta.value * u * B,
            a.bound * std::abs(h.value) + a.value * h.bound + delta.bound * std::abs(u * B)};
      }
    }
  }
  Bounded<Acc>& at(int64_t t, int64_t n) { return h_[static_cast<size_t>(t * state_ + n)]; }

  // y before the gate.
  Bounded<Acc> output(const Channel<T>& channel, int64_t t) {
    Bounded<Acc> y;
    for (int64_t n = 0; n < state_; ++n) {
      const Acc C = channel.C(t, n);
      y.value += C * at(t + 1, n).value;
      y.bound += std::abs(C) * at(t + 1, n).bound;
    }
    const Acc skip = channel.D() * channel.u(t);
    return {y.value + skip, y.bound + std::abs(skip)};
  }

 private:
  int64_t state_;
  std::vector<Bounded<Acc>> h_;
};

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

// gout and z at one token: the gradient of the ungated y, and dz / y.
template <class Acc>
struct Gate {
  Bounded<Acc> gy;
  Bounded<Acc> dz_over_y;
};
template <class T>
Gate<accumulate_t<T>> gate(const Channel<T>& channel, const S6Backward<T>& args, int64_t t) {
  using Acc = accumulate_t<T>;
  const Acc gout = static_cast<Acc>(args.gy.at(channel.b, channel.token(t), channel.d));
  if (!channel.in.z) return {{gout, std::abs(gout)}, {}};
  const Acc z = channel.z(t);
  const Acc s = sigmoid(z);
  const Acc gy = gout * (z * s);
  return {{gy, std::abs(gy)},
          {gout * (s * (1 + z * (1 - s))), std::abs(gout) * s * (1 + std::abs(z))}};
}

// Token t of math.md 3.2; mu in, mu out.
template <class T>
void backward_token(const Channel<T>& channel, const S6Backward<T>& args, int64_t t, bool absolute,
                    States<T>& states, std::vector<Bounded<accumulate_t<T>>>& mu, Sums<T>& sums) {
  using Acc = accumulate_t<T>;
  const int64_t state = channel.shape.state;
  const Step<Acc> step = channel.step(t);
  const Bounded<Acc>& delta = step.delta;
  const Gate<Acc> gates = gate(channel, args, t);
  const Bounded<Acc>& gy = gates.gy;
  const Acc u = channel.u(t);
  Bounded<Acc> s1, ddelta;
  const int64_t token = channel.b * channel.shape.len + channel.token(t);
  for (int64_t n = 0; n < state; ++n) {
    const Acc B = channel.B(t, n), C = channel.C(t, n);
    const auto at = static_cast<size_t>(token * sums.width + channel.group * state + n);
    const Bounded<Acc> a = channel.decay(delta, n);
    const Bounded<Acc>& entering = states.at(t, n);
    const Bounded<Acc>& h = states.at(t + 1, n);
    Bounded<Acc>& m = mu[static_cast<size_t>(n)];
    const Bounded<Acc> lam{m.value + C * gy.value, m.bound + std::abs(C) * gy.bound};
    sums.dC[at] += absolute ? gy.bound * h.bound : gy.value * h.value;
    sums.dB[at] += absolute
                       ? (lam.bound * delta.value + std::abs(lam.value) * delta.bound) * std::abs(u)
                       : lam.value * (delta.value * u);
    s1.value += lam.value * B;
    s1.bound += lam.bound * std::abs(B);
    m = {a.value * lam.value, a.value * lam.bound + a.bound * std::abs(lam.value)};
    const Bounded<Acc> through{m.value * entering.value, m.bound * std::abs(entering.value) +
                                                             std::abs(m.value) * entering.bound};
    ddelta.value += channel.A(n) * through.value;
    ddelta.bound += std::abs(channel.A(n)) * through.bound;
    sums.dA[static_cast<size_t>(channel.d * state + n)] +=
        absolute ? delta.value * through.bound + delta.bound * std::abs(through.value)
                 : delta.value * through.value;
  }
  ddelta.value += u * s1.value;
  ddelta.bound += std::abs(u) * s1.bound;
  const Bounded<Acc> ddt{
      ddelta.value * step.slope.value,
      ddelta.bound * step.slope.value + std::abs(ddelta.value) * step.slope.bound};
  const Acc skip = channel.D() * gy.value;
  put(args.du, channel, t,
      Bounded<Acc>{skip + delta.value * s1.value,
                   std::abs(skip) + delta.value * s1.bound + delta.bound * std::abs(s1.value)},
      absolute);
  put(args.ddt, channel, t, ddt, absolute);
  if (channel.in.z) {
    const Bounded<Acc> y = states.output(channel, t);
    put(args.dz, channel, t,
        Bounded<Acc>{gates.dz_over_y.value * y.value, gates.dz_over_y.bound * y.bound}, absolute);
  }
  sums.dD[static_cast<size_t>(channel.d)] += absolute ? gy.bound * std::abs(u) : gy.value * u;
  sums.ddt_bias[static_cast<size_t>(channel.d)] += pick(ddt, absolute);
}

template <class T>
void write_sums(const S6Shape& shape, const S6Backward<T>& args, const Sums<T>& sums) {
  for (int64_t i = 0; i < shape.batch * shape.len; ++i) {
    for (int64_t n = 0; n < sums.width; ++n) {
      const auto from = static_cast<size_t>(i * sums.width + n);
      if (args.dB) args.dB.at(i / shape.len, i % shape.len, n) = static_cast<T>(sums.dB[from]);
      if (args.dC) args.dC.at(i / shape.len, i % shape.len, n) = static_cast<T>(sums.dC[from]);
    }
  }
  if (args.dA) std::copy(sums.dA.begin(), sums.dA.end(), args.dA);
  if (args.dD) std::copy(sums.dD.begin(), sums.dD.end(), args.dD);
  if (args.ddt_bias) std::copy(sums.ddt_bias.begin(), sums.ddt_bias.end(), args.ddt_bias);
}

}  // namespace

template <class T>
void s6_forward(const S6Shape& shape, const S6Forward<T>& args, bool absolute) {
  using Acc = accumulate_t<T>;
  for (const auto& channel : channels_of(shape, args.in)) {
    States<T> states(channel);
    for (int64_t t = 0; t < channel.count; ++t) {
      Bounded<Acc> y = states.output(channel, t);
      if (args.in.z) {
        const Acc silu = channel.z(t) * sigmoid(channel.z(t));
        y = {y.value * silu, y.bound * std::abs(silu)};
      }
      put(args.y, channel, t, y, absolute);
      const int64_t chunk = channel.saved + t / kS6Chunk;
      for (int64_t n = 0; args.saved != nullptr && t % kS6Chunk == 0 && n < shape.state; ++n) {
        args.saved[(chunk * shape.dim + channel.d) * shape.state + n] =
            pick(states.at(t, n), absolute);
      }
    }
    for (int64_t n = 0; args.hT != nullptr && n < shape.state; ++n) {
      args.hT[(channel.slot * shape.dim + channel.d) * shape.state + n] =
          pick(states.at(channel.count, n), absolute);
    }
  }
}

template <class T>
void s6_backward(const S6Shape& shape, const S6Backward<T>& args, bool absolute) {
  using Acc = accumulate_t<T>;
  Sums<T> sums(shape);
  for (const auto& channel : channels_of(shape, args.in)) {
    States<T> states(channel);
    const int64_t row = (channel.row * shape.dim + channel.d) * shape.state;
    std::vector<Bounded<Acc>> mu(static_cast<size_t>(shape.state));
    for (int64_t n = 0; n < shape.state; ++n) {
      const Acc g = args.ghT ? args.ghT[row + n] : Acc(0);
      mu[static_cast<size_t>(n)] = {g, std::abs(g)};
    }
    for (int64_t t = channel.count - 1; t >= 0; --t) {
      backward_token(channel, args, t, absolute, states, mu, sums);
    }
    for (int64_t n = 0; args.dh0 != nullptr && n < shape.state; ++n) {
      args.dh0[row + n] = pick(mu[static_cast<size_t>(n)], absolute);
    }
  }
  write_sums(shape, args, sums);
}

#define ADDER_S6_REF(T)                                                   \
  template void s6_forward<T>(const S6Shape&, const S6Forward<T>&, bool); \
  template void s6_backward<T>(const S6Shape&, const S6Backward<T>&, bool);
ADDER_S6_REF(double)
ADDER_S6_REF(float)
ADDER_S6_REF(Bf16)
#undef ADDER_S6_REF

}  // namespace adder::ref
