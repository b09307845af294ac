// Line "recurrent": the linear form (math.md 4.1), one token after the other. Backward recomputes
// the states of one chunk from its saved entering state, then walks the chunk from its last token.
#include <algorithm>
#include <cmath>

#include "kernels/ssd/ssd_lines.h"
#include "kernels/ssd/ssd_plan.h"

namespace adder::ssd {
namespace {

template <class C>
C sigmoid(C x) {
  const C e = std::exp(-std::abs(x));
  return (x < 0 ? e : C(1)) / (1 + e);
}

template <class C>
struct Step {
  C delta;
  C slope;  // d delta / d dt
  C decay;
};

template <class T>
Step<accumulate_t<T>> step_of(const SsdShape& shape, const SsdInputs<T>& in, int64_t batch,
                              int64_t token, int64_t head) {
  using C = accumulate_t<T>;
  const C pre = static_cast<C>(in.dt.at(batch, token, head)) + (in.dt_bias ? in.dt_bias[head] : 0);
  C sp = pre, slope = 1;
  if (shape.softplus && pre <= 20) {
    sp = std::max(pre, C(0)) + std::log1p(std::exp(-std::abs(pre)));
    slope = sigmoid(pre);
  }
  if (sp < in.dt_min || sp > in.dt_max) slope = 0;
  const C delta = std::min(std::max(sp, in.dt_min), in.dt_max);
  return {delta, slope, std::exp(delta * in.A[head])};
}

template <class T>
int64_t token_of(const SsdInputs<T>& in, int64_t step) {
  return in.order ? in.order[step] : step;
}

// One head of one chunk.
template <class T>
struct Place {
  using C = accumulate_t<T>;
  const SsdShape& shape;
  const SsdInputs<T>& in;
  const Chunk& chunk;
  int64_t head;

  int64_t token(int64_t t) const { return token_of(in, chunk.begin + t); }
  int64_t group() const { return head / (shape.heads / shape.groups); }
  int64_t channel(int64_t p) const { return head * shape.head_dim + p; }
  int64_t plane() const { return shape.head_dim * shape.state; }
  int64_t slot() const { return in.state_index ? in.state_index[chunk.row] : chunk.row; }
  C D(int64_t p) const { return in.D ? in.D[shape.d_per_channel ? channel(p) : head] : C(0); }
  C x(int64_t t, int64_t p) const {
    return static_cast<C>(in.x.at(chunk.batch, token(t), channel(p)));
  }
  const T* B(int64_t t) const { return in.B.row(chunk.batch, token(t)) + group() * shape.state; }
  const T* C_row(int64_t t) const {
    return in.C.row(chunk.batch, token(t)) + group() * shape.state;
  }
  Step<C> step(int64_t t) const { return step_of(shape, in, chunk.batch, token(t), head); }
};

// to = decay * from + delta x B^T; may be in place.
template <class T, class C>
void advance(const Place<T>& at, int64_t t, const Step<C>& step, const C* from, C* to) {
  const T* B = at.B(t);
  for (int64_t p = 0; p < at.shape.head_dim; ++p) {
    const C input = step.delta * at.x(t, p);
    for (int64_t n = 0; n < at.shape.state; ++n) {
      const int64_t i = p * at.shape.state + n;
      to[i] = step.decay * from[i] + input * static_cast<C>(B[n]);
    }
  }
}

// y of channel p before the gate, h the state after token t.
template <class T, class C>
C output(const Place<T>& at, int64_t t, int64_t p, const C* h) {
  const T* weights = at.C_row(t);
  C y = 0;
  for (int64_t n = 0; n < at.shape.state; ++n) {
    y += static_cast<C>(weights[n]) * h[p * at.shape.state + n];
  }
  return y + at.D(p) * at.x(t, p);
}

template <class T, class C>
void forward_chunk(const Place<T>& at, const SsdForward<T>& args, C* h) {
  if (args.saved != nullptr && at.chunk.count() > 0) {
    std::copy_n(h, at.plane(),
                args.saved + (at.chunk.saved * at.shape.heads + at.head) * at.plane());
  }
  for (int64_t t = 0; t < at.chunk.count(); ++t) {
    advance(at, t, at.step(t), h, h);
    for (int64_t p = 0; p < at.shape.head_dim; ++p) {
      C y = output(at, t, p, h);
      if (at.in.z) {
        const C z = static_cast<C>(at.in.z.at(at.chunk.batch, at.token(t), at.channel(p)));
        y *= z * sigmoid(z);
      }
      args.y.at(at.chunk.batch, at.token(t), at.channel(p)) = static_cast<T>(y);
    }
  }
}

template <class C>
struct Work {
  C* states;  // (chunk + 1, head_dim, state): entering each token, and after the last
  C* mu;      // (head_dim, state): gradient of the state after the token
  C* dB;      // (batch, len, groups, state)
  C* dC;
};

// Token t; returns the gradients of delta through the input and of the log-decay.
template <class T, class C>
Step<C> backward_token(const Place<T>& at, const SsdBackward<T>& args, int64_t t,
                       const Step<C>& step, const Work<C>& work) {
  const int64_t token = at.token(t), state = at.shape.state;
  const T* B = at.B(t);
  const T* weights = at.C_row(t);
  const int64_t row = ((at.chunk.batch * at.shape.len + token) * at.shape.groups + at.group());
  C direct = 0, through = 0;
  for (int64_t p = 0; p < at.shape.head_dim; ++p) {
    const C* entering = work.states + t * at.plane() + p * state;
    const C* h = entering + at.plane();
    C* mu = work.mu + p * state;
    const C x = at.x(t, p);
    C gy = static_cast<C>(args.gy.at(at.chunk.batch, token, at.channel(p)));
    if (at.in.z) {
      const C z = static_cast<C>(at.in.z.at(at.chunk.batch, token, at.channel(p)));
      const C s = sigmoid(z);
      const C y = output(at, t, p, work.states + (t + 1) * at.plane());
      if (args.dz) {
        args.dz.at(at.chunk.batch, token, at.channel(p)) =
            static_cast<T>(gy * y * (s * (1 + z * (1 - s))));
      }
      gy *= z * s;
    }
    C v = 0;
    for (int64_t n = 0; n < state; ++n) {
      const C lam = mu[n] + static_cast<C>(weights[n]) * gy;
      work.dC[row * state + n] += gy * h[n];
      work.dB[row * state + n] += lam * (step.delta * x);
      v += lam * static_cast<C>(B[n]);
      mu[n] = step.decay * lam;
      through += mu[n] * entering[n];
    }
    direct += x * v;
    if (args.dx) {
      args.dx.at(at.chunk.batch, token, at.channel(p)) =
          static_cast<T>(at.D(p) * gy + step.delta * v);
    }
    if (args.dD) args.dD[at.shape.d_per_channel ? at.channel(p) : at.head] += gy * x;
  }
  return {direct, 0, through};
}

template <class T, class C>
void backward_chunk(const Place<T>& at, const SsdBackward<T>& args, const Work<C>& work) {
  if (at.chunk.count() == 0) return;
  std::copy_n(args.saved + (at.chunk.saved * at.shape.heads + at.head) * at.plane(), at.plane(),
              work.states);
  for (int64_t t = 0; t < at.chunk.count(); ++t) {
    C* entering = work.states + t * at.plane();
    advance(at, t, at.step(t), entering, entering + at.plane());
  }
  for (int64_t t = at.chunk.count() - 1; t >= 0; --t) {
    const Step<C> step = at.step(t);
    const Step<C> grad = backward_token(at, args, t, step, work);
    const C ddt = (grad.delta + at.in.A[at.head] * grad.decay) * step.slope;
    if (args.ddt) args.ddt.at(at.chunk.batch, at.token(t), at.head) = static_cast<T>(ddt);
    if (args.ddt_bias) args.ddt_bias[at.head] += ddt;
    if (args.dA) args.dA[at.head] += step.delta * grad.decay;
  }
}

template <class C>
int64_t block_bytes(int64_t count) {
  return align_up(count * static_cast<int64_t>(sizeof(C)));
}

template <class T, class C>
void write_shared(const SsdShape& shape, const TokenView<T>& view, const C* sums) {
  const int64_t width = shape.groups * shape.state;
  for (int64_t i = 0; view && i < shape.batch * shape.len; ++i) {
    for (int64_t n = 0; n < width; ++n) {
      view.at(i / shape.len, i % shape.len, n) = static_cast<T>(sums[i * width + n]);
    }
  }
}

}  // namespace

template <class T>
void recurrent_forward(const SsdShape& shape, const SsdForward<T>& args, Exec exec) {
  using C = accumulate_t<T>;
  auto* chunks = exec.carve<Chunk>(max_chunks(shape));
  const int64_t count = list_chunks(shape, args.in.cu_seqlens, chunks);
  C* h = exec.carve<C>(shape.state_elements());
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t head = 0; head < shape.heads; ++head) {
      const Place<T> at{shape, args.in, chunks[i], head};
      C* own = h + head * at.plane();
      const int64_t offset = (at.slot() * shape.heads + head) * at.plane();
      if (chunks[i].first) {
        args.in.h0 ? std::copy_n(args.in.h0 + offset, at.plane(), own)
                   : std::fill_n(own, at.plane(), C(0));
      }
      forward_chunk(at, args, own);
      if (chunks[i].last && args.hT != nullptr) std::copy_n(own, at.plane(), args.hT + offset);
    }
  }
}

template <class T>
void recurrent_backward(const SsdShape& shape, const SsdBackward<T>& args, Exec exec) {
  using C = accumulate_t<T>;
  auto* chunks = exec.carve<Chunk>(max_chunks(shape));
  const int64_t count = list_chunks(shape, args.in.cu_seqlens, chunks);
  const int64_t plane = shape.head_dim * shape.state;
  const int64_t rows = shape.batch * shape.len * shape.groups * shape.state;
  const Work<C> work{exec.carve<C>((shape.chunk + 1) * plane), exec.carve<C>(plane),
                     exec.carve<C>(rows), exec.carve<C>(rows)};
  std::fill_n(work.dB, rows, C(0));
  std::fill_n(work.dC, rows, C(0));
  if (args.dA) std::fill_n(args.dA, shape.heads, C(0));
  if (args.ddt_bias) std::fill_n(args.ddt_bias, shape.heads, C(0));
  if (args.dD) std::fill_n(args.dD, shape.d_elements(), C(0));
  for (int64_t head = 0; head < shape.heads; ++head) {
    for (int64_t i = count - 1; i >= 0; --i) {
      const Place<T> at{shape, args.in, chunks[i], head};
      const int64_t offset = (chunks[i].row * shape.heads + head) * plane;
      if (chunks[i].last) {
        args.ghT ? std::copy_n(args.ghT + offset, plane, work.mu)
                 : std::fill_n(work.mu, plane, C(0));
      }
      backward_chunk(at, args, work);
      if (chunks[i].first && args.dh0 != nullptr) std::copy_n(work.mu, plane, args.dh0 + offset);
    }
  }
  write_shared(shape, args.dB, work.dB);
  write_shared(shape, args.dC, work.dC);
}

template <class T>
int64_t recurrent_scratch(const SsdShape& shape, Direction direction) {
  using C = accumulate_t<T>;
  const int64_t plane = shape.head_dim * shape.state;
  int64_t bytes = block_bytes<Chunk>(max_chunks(shape));
  if (direction != Direction::backward) return bytes + block_bytes<C>(shape.state_elements());
  bytes += block_bytes<C>((shape.chunk + 1) * plane) + block_bytes<C>(plane);
  return bytes + 2 * block_bytes<C>(shape.batch * shape.len * shape.groups * shape.state);
}

template <class T>
double recurrent_us(const Caps&, const SsdShape& shape, Direction direction) {
  const Cost cost = shape.cost(direction, dtype_of<T>);
  return 1.0 + cost.flops * 1e-3;  // one operation a nanosecond
}

#define ADDER_SSD_RECURRENT(T)                                                       \
  template void recurrent_forward<T>(const SsdShape&, const SsdForward<T>&, Exec);   \
  template void recurrent_backward<T>(const SsdShape&, const SsdBackward<T>&, Exec); \
  template int64_t recurrent_scratch<T>(const SsdShape&, Direction);                 \
  template double recurrent_us<T>(const Caps&, const SsdShape&, Direction);
ADDER_SSD_RECURRENT(double)
ADDER_SSD_RECURRENT(float)
ADDER_SSD_RECURRENT(Bf16)
#undef ADDER_SSD_RECURRENT

}  // namespace adder::ssd
