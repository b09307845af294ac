#include "kernels/ref/ssd_ref.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/ref/dt_chain.h"

namespace adder::ref {
namespace {

// A sum over tokens: `size` is |value|, or the sum of the terms' absolute values where the form
// rounds them one by one.
template <class Acc>
struct Sum {
  Acc value = 0;
  Acc size = 0;
  Acc bound = 0;
};

// delta, its slope d delta / d dt (math.md 0.4) and the decay, of one token and head.
template <class Acc>
struct Step : DtStep<Acc> {
  Bounded<Acc> decay;
};

// One head of one sequence: `count` tokens from step `begin` of batch row b.
template <class T>
struct Head {
  using Acc = accumulate_t<T>;
  const SsdShape& shape;
  const SsdInputs<T>& in;
  SsdForm form;
  bool absolute;
  int64_t row, b, begin, count, slot, saved, head, group;
  std::vector<Step<Acc>> steps = {};

  int64_t token(int64_t t) const { return in.order ? in.order[begin + t] : begin + t; }
  Acc B(int64_t t, int64_t n) const {
    return static_cast<Acc>(in.B.at(b, token(t), group * shape.state + n));
  }
  Acc C(int64_t t, int64_t n) const {
    return static_cast<Acc>(in.C.at(b, token(t), group * shape.state + n));
  }
  Acc A() const { return in.A[head]; }
  // As the operand of a product in T.
  Acc operand(Acc x) const {
    if constexpr (std::is_same_v<T, Bf16>) {
      if (form == SsdForm::chunked) return static_cast<Acc>(Bf16(static_cast<float>(x)));
    }
    return x;
  }
  Acc size(Acc value, Acc terms) const {
    return form == SsdForm::recurrent ? std::abs(value) : terms;
  }
  /// Offset of (slot or row, head, p) in h0, hT, ghT, dh0, saved.
  int64_t state_row(int64_t first, int64_t p) const {
    return ((first * shape.heads + head) * shape.head_dim + p) * shape.state;
  }

  void find_steps() {
    Acc prefix = 0;  // of delta A, within the chunk
    for (int64_t t = 0; t < count; ++t) {
      Step<Acc> step = delta_of(t);
      if (t % shape.chunk == 0) prefix = 0;
      prefix += step.delta.value * A();
      const Acc a = std::exp(step.delta.value * A());
      const Acc summed = form == SsdForm::chunked ? std::abs(prefix) : Acc(0);
      // Where a is 0 its error is, too, whatever the exponent's.
      step.decay = {a, a == 0 ? Acc(0) : a * (1 + std::abs(A()) * step.delta.bound + summed)};
      steps.push_back(step);
    }
  }

 private:
  Step<Acc> delta_of(int64_t t) const {
    const Acc raw = static_cast<Acc>(in.dt.at(b, token(t), head));
    const Acc bias = in.dt_bias ? in.dt_bias[head] : Acc(0);
    return {dt_step(in, shape.softplus, raw, bias), {}};
  }
};

template <class T>
std::vector<Head<T>> heads_of(const SsdShape& shape, const SsdInputs<T>& in, bool absolute,
                              SsdForm form) {
  std::vector<Head<T>> list;
  for (int64_t row = 0; row < shape.state_rows(); ++row) {
    const int64_t begin = shape.packed() ? in.cu_seqlens[row] : 0;
    const int64_t end = shape.packed() ? in.cu_seqlens[row + 1] : shape.len;
    const int64_t slot = in.state_index ? in.state_index[row] : row;
    const int64_t saved = shape.packed() ? begin / shape.chunk + row : row * shape.saved_chunks();
    for (int64_t head = 0; head < shape.heads; ++head) {
      list.push_back({shape, in, form, absolute, row, shape.packed() ? 0 : row, begin, end - begin,
                      slot, saved, head, head / (shape.heads / shape.groups)});
      list.back().find_steps();
    }
  }
  return list;
}

// One channel p of a head with all its states: at(t, n) enters token t, 0 <= t <= count.
template <class T>
class Channel {
 public:
  using Acc = accumulate_t<T>;
  Channel(const Head<T>& head, int64_t p)
      : head_(head),
        p_(p),
        state_(head.shape.state),
        h_(static_cast<size_t>((head.count + 1) * state_)) {
    for (int64_t n = 0; n < state_; ++n) {
      const Acc h0 = head.in.h0 ? head.in.h0[head.state_row(head.slot, p) + n] : Acc(0);
      at(0, n) = {h0, std::abs(h0), std::abs(h0)};
    }
    for (int64_t t = 0; t < head.count; ++t) enter_token(t);
  }
  Sum<Acc>& at(int64_t t, int64_t n) { return h_[static_cast<size_t>(t * state_ + n)]; }
  int64_t index() const { return head_.head * head_.shape.head_dim + p_; }
  Acc token_value(const TokenView<const T>& view, int64_t t) const {
    return static_cast<Acc>(view.at(head_.b, head_.token(t), index()));
  }
  Acc x(int64_t t) const { return token_value(head_.in.x, t); }
  Acc z(int64_t t) const { return token_value(head_.in.z, t); }
  Acc D() const {
    return head_.in.D ? head_.in.D[head_.shape.d_per_channel ? index() : head_.head] : Acc(0);
  }

  // y before the gate.
  Bounded<Acc> output(int64_t t) {
    Bounded<Acc> y;
    for (int64_t n = 0; n < state_; ++n) {
      const Acc C = head_.C(t, n);
      y.value += C * head_.operand(at(t + 1, n).value);
      y.bound += std::abs(C) * at(t + 1, n).bound;
    }
    const Acc skip = D() * x(t);
    return {y.value + skip, y.bound + std::abs(skip)};
  }

  void put(const TokenView<T>& view, int64_t t, const Bounded<Acc>& out) const {
    if (!view) return;
    view.at(head_.b, head_.token(t), index()) =
        static_cast<T>(head_.absolute ? out.bound : out.value);
  }

 private:
  void enter_token(int64_t t) {
    const Bounded<Acc>& delta = head_.steps[static_cast<size_t>(t)].delta;
    const Bounded<Acc>& a = head_.steps[static_cast<size_t>(t)].decay;
    const Acc input = head_.operand(delta.value * x(t));
    for (int64_t n = 0; n < state_; ++n) {
      const Sum<Acc>& h = at(t, n);
      const Acc B = head_.B(t, n);
      const Acc value = a.value * h.value + input * B;
      at(t + 1, n) = {
          value, head_.size(value, a.value * h.size + std::abs(input * B)),
          a.bound * h.size + a.value * h.bound + (delta.bound + delta.value) * std::abs(x(t) * B)};
    }
  }

  const Head<T>& head_;
  int64_t p_, state_;
  std::vector<Sum<Acc>> h_;
};

// Sums over channels, tokens and rows, as values or as bounds.
template <class T>
struct Sums {
  using Acc = accumulate_t<T>;
  explicit Sums(const SsdShape& shape)
      : width(shape.groups * shape.state),
        dB(static_cast<size_t>(shape.batch * shape.len * width)),
        dC(dB.size()),
        dA(static_cast<size_t>(shape.heads)),
        dD(static_cast<size_t>(shape.d_elements())),
        ddt_bias(dA.size()) {}
  int64_t width;
  std::vector<Acc> dB, dC;  // (batch, len, groups, state)
  std::vector<Acc> dA, dD, ddt_bias;
};

// The gate of one token.
template <class T>
Gate<accumulate_t<T>> gate(const Channel<T>& channel, const SsdBackward<T>& args, int64_t t) {
  const accumulate_t<T> gout = channel.token_value(args.gy, t);
  return args.in.z ? silu_gate(gout, channel.z(t)) : no_gate(gout);
}

// Of one head and token, summed over its channels.
template <class Acc>
struct StepGradient {
  Bounded<Acc> direct;  // of delta, through the input term
  Bounded<Acc> decay;   // of the log-decay
};

template <class T>
class BackwardPass {
 public:
  using Acc = accumulate_t<T>;
  BackwardPass(const Head<T>& head, const SsdBackward<T>& args, Sums<T>& sums)
      : head_(head), args_(args), sums_(sums), steps_(static_cast<size_t>(head.count)) {}

  void run() {
    for (int64_t p = 0; p < head_.shape.head_dim; ++p) run_channel(p);
    for (int64_t t = 0; t < head_.count; ++t) finish_step(t);
  }

 private:
  void run_channel(int64_t p) {
    Channel<T> channel(head_, p);
    const int64_t row = head_.state_row(head_.row, p);
    std::vector<Sum<Acc>> mu(static_cast<size_t>(head_.shape.state));
    for (int64_t n = 0; n < head_.shape.state; ++n) {
      const Acc g = args_.ghT ? args_.ghT[row + n] : Acc(0);
      mu[static_cast<size_t>(n)] = {g, std::abs(g), std::abs(g)};
    }
    for (int64_t t = head_.count - 1; t >= 0; --t) run_token(channel, t, mu);
    for (int64_t n = 0; args_.dh0 != nullptr && n < head_.shape.state; ++n) {
      const Sum<Acc>& m = mu[static_cast<size_t>(n)];
      args_.dh0[row + n] = head_.absolute ? m.bound : m.value;
    }
  }

  // Token t of math.md 3.2 with one decay for all states; mu in, mu out.
  void run_token(Channel<T>& channel, int64_t t, std::vector<Sum<Acc>>& mu) {
    const Step<Acc>& step = head_.steps[static_cast<size_t>(t)];
    const Bounded<Acc>&delta = step.delta, &a = step.decay;
    const Gate<Acc> gates = gate(channel, args_, t);
    const Acc x = channel.x(t);
    const Acc gy = head_.operand(gates.gy.value);
    const Acc input = head_.operand(delta.value * x);
    Bounded<Acc> v;  // lam B
    StepGradient<Acc>& out = steps_[static_cast<size_t>(t)];
    const int64_t token = head_.b * head_.shape.len + head_.token(t);
    for (int64_t n = 0; n < head_.shape.state; ++n) {
      const Acc B = head_.B(t, n), C = head_.C(t, n);
      const auto at =
          static_cast<size_t>(token * sums_.width + head_.group * head_.shape.state + n);
      const Sum<Acc>& entering = channel.at(t, n);
      const Sum<Acc>& h = channel.at(t + 1, n);
      Sum<Acc>& m = mu[static_cast<size_t>(n)];
      const Acc value = m.value + C * gy;
      const Sum<Acc> lam{value, head_.size(value, m.size + std::abs(C * gy)),
                         m.bound + std::abs(C) * gates.gy.bound};
      sums_.dC[at] += head_.absolute ? std::abs(gy) * h.bound : gy * head_.operand(h.value);
      sums_.dB[at] += head_.absolute
                          ? (lam.bound * delta.value + lam.size * delta.bound) * std::abs(x)
                          : head_.operand(lam.value) * input;
      v.value += head_.operand(lam.value) * B;
      v.bound += lam.bound * std::abs(B);
      m = {a.value * lam.value, a.value * lam.size, a.value * lam.bound + a.bound * lam.size};
      out.decay.value += m.value * entering.value;
      out.decay.bound += m.bound * entering.size + m.size * entering.bound;
    }
    out.direct.value += x * v.value;
    out.direct.bound += std::abs(x) * v.bound;
    const Acc skip = channel.D() * gates.gy.value;
    channel.put(args_.dx, t,
                {skip + delta.value * v.value,
                 std::abs(skip) + delta.value * v.bound + delta.bound * std::abs(v.value)});
    if (args_.in.z) {
      const Bounded<Acc> y = channel.output(t);
      channel.put(args_.dz, t, {gates.dz_over_y.value * y.value, gates.dz_over_y.bound * y.bound});
    }
    sums_.dD[static_cast<size_t>(head_.shape.d_per_channel ? channel.index() : head_.head)] +=
        head_.absolute ? gates.gy.bound * std::abs(x) : gates.gy.value * x;
  }

  void finish_step(int64_t t) {
    const Step<Acc>& step = head_.steps[static_cast<size_t>(t)];
    const StepGradient<Acc>& sum = steps_[static_cast<size_t>(t)];
    const auto head = static_cast<size_t>(head_.head);
    const Bounded<Acc> ddelta{sum.direct.value + head_.A() * sum.decay.value,
                              sum.direct.bound + std::abs(head_.A()) * sum.decay.bound};
    const Bounded<Acc> ddt{
        ddelta.value * step.slope.value,
        ddelta.bound * step.slope.value + std::abs(ddelta.value) * step.slope.bound};
    const Acc out = head_.absolute ? ddt.bound : ddt.value;
    if (args_.ddt) args_.ddt.at(head_.b, head_.token(t), head_.head) = static_cast<T>(out);
    sums_.ddt_bias[head] += out;
    sums_.dA[head] += head_.absolute ? step.delta.value * sum.decay.bound +
                                           step.delta.bound * std::abs(sum.decay.value)
                                     : step.delta.value * sum.decay.value;
  }

  const Head<T>& head_;
  const SsdBackward<T>& args_;
  Sums<T>& sums_;
  std::vector<StepGradient<Acc>> steps_;
};

template <class T>
void write_sums(const SsdShape& shape, const SsdBackward<T>& args, bool absolute,
                const Sums<T>& sums) {
  for (int64_t i = 0; i < shape.batch * shape.len; ++i) {
    for (int64_t n = 0; n < sums.width; ++n) {
      const auto from = static_cast<size_t>(i * sums.width + n);
      if (args.dB) args.dB.at(i / shape.len, i % shape.len, n) = static_cast<T>(sums.dB[from]);
      if (args.dC) args.dC.at(i / shape.len, i % shape.len, n) = static_cast<T>(sums.dC[from]);
    }
  }
  put_sums(sums.dA, args.accumulate, absolute, args.dA);
  put_sums(sums.dD, args.accumulate, absolute, args.dD);
  put_sums(sums.ddt_bias, args.accumulate, absolute, args.ddt_bias);
}

template <class T>
void forward_channel(const Head<T>& head, const SsdForward<T>& args, int64_t p) {
  using Acc = accumulate_t<T>;
  Channel<T> channel(head, p);
  const auto put_state = [&](Acc* to, int64_t first, int64_t t) {
    for (int64_t n = 0; to != nullptr && n < head.shape.state; ++n) {
      const Sum<Acc>& h = channel.at(t, n);
      to[head.state_row(first, p) + n] = head.absolute ? h.bound : h.value;
    }
  };
  for (int64_t t = 0; t < head.count; ++t) {
    Bounded<Acc> y = channel.output(t);
    if (args.in.z) {
      const Acc silu = channel.z(t) * sigmoid(channel.z(t));
      y = {y.value * silu, y.bound * std::abs(silu)};
    }
    channel.put(args.y, t, y);
    if (t % head.shape.chunk == 0) put_state(args.saved, head.saved + t / head.shape.chunk, t);
  }
  put_state(args.hT, head.slot, head.count);
}

}  // namespace

template <class T>
void ssd_forward(const SsdShape& shape, const SsdForward<T>& args, bool absolute, SsdForm form) {
  for (const auto& head : heads_of(shape, args.in, absolute, form)) {
    for (int64_t p = 0; p < shape.head_dim; ++p) forward_channel(head, args, p);
  }
}

template <class T>
void ssd_backward(const SsdShape& shape, const SsdBackward<T>& args, bool absolute, SsdForm form) {
  Sums<T> sums(shape);
  for (const auto& head : heads_of(shape, args.in, absolute, form)) {
    BackwardPass<T>(head, args, sums).run();
  }
  write_sums(shape, args, absolute, sums);
}

#define ADDER_SSD_REF(T)                                                              \
  template void ssd_forward<T>(const SsdShape&, const SsdForward<T>&, bool, SsdForm); \
  template void ssd_backward<T>(const SsdShape&, const SsdBackward<T>&, bool, SsdForm);
ADDER_SSD_REF(double)
ADDER_SSD_REF(float)
ADDER_SSD_REF(Bf16)
#undef ADDER_SSD_REF

}  // namespace adder::ref
