#include "kernels/ref/s6_complex_ref.h"

#include <complex>
#include <vector>

#include "kernels/ref/s6_ref_channel.h"

namespace adder::ref {
namespace {

using namespace s6;

template <class Acc>
struct BoundedComplex {
  std::complex<Acc> value = 0;
  Acc bound = 0;
};

/// The layout of complex numbers as pairs of real ones.
S6Shape flat(S6Shape shape) {
  shape.state *= 2;
  shape.complex = false;
  return shape;
}

template <class T>
struct ComplexChannel {
  using Acc = accumulate_t<T>;
  using Complex = std::complex<Acc>;
  const Channel<T>& real;

  Complex A(int64_t n) const { return {real.A(2 * n), real.A(2 * n + 1)}; }
  Complex B(int64_t t, int64_t n) const { return {real.B(t, 2 * n), real.B(t, 2 * n + 1)}; }
  Complex C(int64_t t, int64_t n) const { return {real.C(t, 2 * n), real.C(t, 2 * n + 1)}; }
  Complex h0(int64_t n) const { return {real.h0(2 * n), real.h0(2 * n + 1)}; }
  BoundedComplex<Acc> decay(const Bounded<Acc>& delta, int64_t n) const {
    const Acc size = std::exp(delta.value * A(n).real());
    const Acc angle = delta.value * A(n).imag();
    return {{size * std::cos(angle), size * std::sin(angle)},
            size == 0 ? Acc(0) : size * (1 + std::abs(A(n)) * delta.bound)};
  }
};

// All states of one channel: at(t, n) is the state that enters token t, 0 <= t <= count.
template <class T>
class ComplexStates {
 public:
  using Acc = accumulate_t<T>;
  explicit ComplexStates(const Channel<T>& channel)
      : state_(channel.shape.state / 2),
        h_(static_cast<size_t>((channel.count + 1) * (channel.shape.state / 2))) {
    const ComplexChannel<T> of{channel};
    for (int64_t n = 0; n < state_; ++n) at(0, n) = {of.h0(n), std::abs(of.h0(n))};
    for (int64_t t = 0; t < channel.count; ++t) {
      const Bounded<Acc> delta = channel.step(t).delta;
      const Acc u = channel.u(t);
      for (int64_t n = 0; n < state_; ++n) {
        const auto a = of.decay(delta, n);
        const auto& h = at(t, n);
        const auto B = of.B(t, n);
        at(t + 1, n) = {a.value * h.value + delta.value * u * B,
                        a.bound * std::abs(h.value) + std::abs(a.value) * h.bound +
                            delta.bound * std::abs(u) * std::abs(B)};
      }
    }
  }
  BoundedComplex<Acc>& at(int64_t t, int64_t n) { return h_[static_cast<size_t>(t * state_ + n)]; }

  // y before the gate.
  Bounded<Acc> output(const Channel<T>& channel, int64_t t) {
    const ComplexChannel<T> of{channel};
    Bounded<Acc> y;
    for (int64_t n = 0; n < state_; ++n) {
      y.value += 2 * (of.C(t, n) * at(t + 1, n).value).real();
      y.bound += 2 * std::abs(of.C(t, n)) * at(t + 1, n).bound;
    }
    const Acc skip = channel.D() * channel.u(t);
    return {y.value + skip, y.bound + std::abs(skip)};
  }

  void write(int64_t t, bool absolute, Acc* to) {
    for (int64_t n = 0; to != nullptr && n < state_; ++n) put_pair(at(t, n), absolute, to + 2 * n);
  }
  static void put_pair(const BoundedComplex<Acc>& x, bool absolute, Acc* to) {
    to[0] = absolute ? x.bound : x.value.real();
    to[1] = absolute ? x.bound : x.value.imag();
  }

 private:
  int64_t state_;
  std::vector<BoundedComplex<Acc>> h_;
};

template <class Acc>
void add_pair(const BoundedComplex<Acc>& x, bool absolute, Acc* to) {
  to[0] += absolute ? x.bound : x.value.real();
  to[1] += absolute ? x.bound : x.value.imag();
}

// Token t of math.md 3.5; mu in, mu out.
template <class T>
void backward_token(const Channel<T>& channel, const S6Backward<T>& args, int64_t t, bool absolute,
                    ComplexStates<T>& states, std::vector<BoundedComplex<accumulate_t<T>>>& mu,
                    Sums<T>& sums) {
  using Acc = accumulate_t<T>;
  const ComplexChannel<T> of{channel};
  const int64_t state = channel.shape.state / 2;
  const Step<Acc> step = channel.step(t);
  const Bounded<Acc>& delta = step.delta;
  const Gate<Acc> gates = gate(channel, args, t);
  const Bounded<Acc>& gy = gates.gy;
  const Acc u = channel.u(t);
  Bounded<Acc> s1, ddelta;
  const int64_t token = channel.b * channel.shape.len + channel.token(t);
  for (int64_t n = 0; n < state; ++n) {
    const auto A = of.A(n), B = of.B(t, n), C = of.C(t, n);
    const auto at = static_cast<size_t>(token * sums.width + channel.group * 2 * state + 2 * n);
    const auto a = of.decay(delta, n);
    const auto& entering = states.at(t, n);
    const auto& h = states.at(t + 1, n);
    auto& m = mu[static_cast<size_t>(n)];
    const BoundedComplex<Acc> lam{m.value + Acc(2) * std::conj(C) * gy.value,
                                  m.bound + 2 * std::abs(C) * gy.bound};
    add_pair<Acc>({Acc(2) * gy.value * std::conj(h.value), 2 * gy.bound * h.bound}, absolute,
                  &sums.dC[at]);
    add_pair<Acc>({lam.value * (delta.value * u),
                   (lam.bound * delta.value + std::abs(lam.value) * delta.bound) * std::abs(u)},
                  absolute, &sums.dB[at]);
    s1.value += (lam.value * std::conj(B)).real();
    s1.bound += lam.bound * std::abs(B);
    m = {std::conj(a.value) * lam.value,
         std::abs(a.value) * lam.bound + a.bound * std::abs(lam.value)};
    const BoundedComplex<Acc> through{
        m.value * std::conj(entering.value),
        m.bound * std::abs(entering.value) + std::abs(m.value) * entering.bound};
    ddelta.value += (std::conj(A) * through.value).real();
    ddelta.bound += std::abs(A) * through.bound;
    add_pair<Acc>({delta.value * through.value,
                   delta.value * through.bound + delta.bound * std::abs(through.value)},
                  absolute, &sums.dA[static_cast<size_t>(channel.d * 2 * state + 2 * n)]);
  }
  ddelta.value += u * s1.value;
  ddelta.bound += std::abs(u) * s1.bound;
  put_token(channel, args, t, absolute, {step, gates, s1, ddelta, states.output(channel, t)}, sums);
}

}  // namespace

template <class T>
void s6_complex_forward(const S6Shape& given, const S6Forward<T>& args, bool absolute) {
  const S6Shape shape = flat(given);
  const auto row = [&](accumulate_t<T>* base, int64_t index, int64_t d) {
    return base == nullptr ? nullptr : base + (index * shape.dim + d) * shape.state;
  };
  for (const auto& channel : channels_of(shape, args.in)) {
    ComplexStates<T> states(channel);
    for (int64_t t = 0; t < channel.count; ++t) {
      put_output(channel, args, t, states.output(channel, t), absolute);
      if (t % kS6Chunk != 0) continue;
      states.write(t, absolute, row(args.saved, channel.saved + t / kS6Chunk, channel.d));
    }
    states.write(channel.count, absolute, row(args.hT, channel.slot, channel.d));
  }
}

template <class T>
void s6_complex_backward(const S6Shape& given, const S6Backward<T>& args, bool absolute) {
  using Acc = accumulate_t<T>;
  const S6Shape shape = flat(given);
  Sums<T> sums(shape);
  for (const auto& channel : channels_of(shape, args.in)) {
    ComplexStates<T> states(channel);
    const int64_t row = (channel.row * shape.dim + channel.d) * shape.state;
    std::vector<BoundedComplex<Acc>> mu(static_cast<size_t>(given.state));
    for (int64_t n = 0; args.ghT != nullptr && n < given.state; ++n) {
      const std::complex<Acc> g(args.ghT[row + 2 * n], args.ghT[row + 2 * n + 1]);
      mu[static_cast<size_t>(n)] = {g, std::abs(g)};
    }
    for (int64_t t = channel.count - 1; t >= 0; --t) {
      backward_token(channel, args, t, absolute, states, mu, sums);
    }
    for (int64_t n = 0; args.dh0 != nullptr && n < given.state; ++n) {
      ComplexStates<T>::put_pair(mu[static_cast<size_t>(n)], absolute, args.dh0 + row + 2 * n);
    }
  }
  write_sums(shape, args, absolute, sums);
}

#define ADDER_S6_REF(T)                                                           \
  template void s6_complex_forward<T>(const S6Shape&, const S6Forward<T>&, bool); \
  template void s6_complex_backward<T>(const S6Shape&, const S6Backward<T>&, bool);
ADDER_S6_REF(double)
ADDER_S6_REF(float)
ADDER_S6_REF(Bf16)
#undef ADDER_S6_REF

}  // namespace adder::ref
