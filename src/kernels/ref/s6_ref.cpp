#include "kernels/ref/s6_ref.h"

#include <vector>

#include "kernels/ref/s6_complex_ref.h"
#include "kernels/ref/s6_ref_channel.h"

namespace adder::ref {
namespace {

using namespace s6;

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
  put_token(channel, args, t, absolute, {step, gates, s1, ddelta, states.output(channel, t)}, sums);
}

}  // namespace

template <class T>
void s6_forward(const S6Shape& shape, const S6Forward<T>& args, bool absolute) {
  if (shape.complex) return s6_complex_forward(shape, args, absolute);
  for (const auto& channel : channels_of(shape, args.in)) {
    States<T> states(channel);
    for (int64_t t = 0; t < channel.count; ++t) {
      put_output(channel, args, t, states.output(channel, t), absolute);
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
  if (shape.complex) return s6_complex_backward(shape, args, absolute);
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
  write_sums(shape, args, absolute, sums);
}

#define ADDER_S6_REF(T)                                                   \
  template void s6_forward<T>(const S6Shape&, const S6Forward<T>&, bool); \
  template void s6_backward<T>(const S6Shape&, const S6Backward<T>&, bool);
ADDER_S6_REF(double)
ADDER_S6_REF(float)
ADDER_S6_REF(Bf16)
#undef ADDER_S6_REF

}  // namespace adder::ref
