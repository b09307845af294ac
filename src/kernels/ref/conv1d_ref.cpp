#include "kernels/ref/conv1d_ref.h"

#include <cmath>
#include <vector>

namespace adder::ref {
namespace {

template <class Acc>
Acc sigmoid(Acc x) {
  const Acc e = std::exp(-std::abs(x));
  return (x < 0 ? e : Acc(1)) / (1 + e);
}

// One sequence: `count` tokens from step `begin` of batch row b, states in rows `slot` and `r`.
template <class T>
struct Sequence {
  using Acc = accumulate_t<T>;
  const Conv1dShape& shape;
  const Conv1dInputs<T>& in;
  int64_t r, b, begin, count, slot;

  int64_t halo() const { return shape.width - 1; }
  int64_t token(int64_t t) const { return in.order ? in.order[begin + t] : begin + t; }
  // Row i of concat(s0, x), 0 <= i < width - 1 + count.
  Acc input(int64_t i, int64_t c) const {
    if (i >= halo()) return static_cast<Acc>(in.x.at(b, token(i - halo()), c));
    if (in.s0 == nullptr) return 0;
    return static_cast<Acc>(in.s0[(slot * halo() + i) * shape.channels + c]);
  }
  Acc sum(int64_t t, int64_t c, bool absolute) const {
    Acc a = in.bias ? in.bias[c] : Acc(0);
    if (absolute) a = std::abs(a);
    for (int64_t k = 0; k < shape.width; ++k) {
      const Acc product = in.w[c * shape.width + k] * input(t + k, c);
      a += absolute ? std::abs(product) : product;
    }
    return a;
  }
};

template <class T>
std::vector<Sequence<T>> sequences_of(const Conv1dShape& shape, const Conv1dInputs<T>& in) {
  std::vector<Sequence<T>> list;
  for (int64_t r = 0; r < shape.state_rows(); ++r) {
    const int64_t slot = in.state_index ? in.state_index[r] : r;
    const int64_t begin = shape.packed() ? in.cu_seqlens[r] : 0;
    const int64_t end = shape.packed() ? in.cu_seqlens[r + 1] : shape.len;
    list.push_back({shape, in, r, shape.packed() ? 0 : r, begin, end - begin, slot});
  }
  return list;
}

template <class T>
void final_state(const Sequence<T>& seq, T* sT, bool absolute) {
  using Acc = accumulate_t<T>;
  // Through a copy, because sT may be the s0 that is read here.
  std::vector<Acc> rows;
  for (int64_t j = 0; j < seq.halo(); ++j) {
    for (int64_t c = 0; c < seq.shape.channels; ++c) {
      const Acc value = seq.input(seq.count + j, c);
      rows.push_back(absolute ? std::abs(value) : value);
    }
  }
  T* to = sT + seq.slot * seq.halo() * seq.shape.channels;
  for (size_t i = 0; i < rows.size(); ++i) to[i] = static_cast<T>(rows[i]);
}

// gy act'(a). Absolute: |gy| (|slope| on absolute values + |act''| times the error of a).
template <class T>
accumulate_t<T> activation_gradient(const Sequence<T>& seq, const Conv1dBackward<T>& args,
                                    int64_t t, int64_t c, bool absolute) {
  using Acc = accumulate_t<T>;
  const Acc gy = static_cast<Acc>(args.gy.at(seq.b, seq.token(t), c));
  if (!seq.shape.silu) return absolute ? std::abs(gy) : gy;
  const Acc a = seq.sum(t, c, false);
  const Acc s = sigmoid(a);
  if (!absolute) return gy * (s * (1 + a * (1 - s)));
  const Acc size = std::abs(a);
  const Acc slope = s * (1 + size * (1 + s));
  const Acc curvature = s * (1 - s) * (2 + size);
  return std::abs(gy) * (slope + curvature * seq.sum(t, c, true));
}

template <class T>
void backward_channel(const Sequence<T>& seq, const Conv1dBackward<T>& args, int64_t c,
                      bool absolute, std::vector<accumulate_t<T>>& dw, accumulate_t<T>& dbias) {
  using Acc = accumulate_t<T>;
  const int64_t width = seq.shape.width;
  std::vector<Acc> d_concat(static_cast<size_t>(seq.halo() + seq.count), Acc(0));
  for (int64_t t = 0; t < seq.count; ++t) {
    const Acc ga = activation_gradient(seq, args, t, c, absolute);
    dbias += ga;
    for (int64_t k = 0; k < width; ++k) {
      const Acc w = seq.in.w[c * width + k];
      const Acc x = seq.input(t + k, c);
      d_concat[static_cast<size_t>(t + k)] += (absolute ? std::abs(w) : w) * ga;
      dw[static_cast<size_t>(k)] += ga * (absolute ? std::abs(x) : x);
    }
  }
  for (int64_t j = 0; args.gsT != nullptr && j < seq.halo(); ++j) {
    const Acc g = static_cast<Acc>(args.gsT[(seq.r * seq.halo() + j) * seq.shape.channels + c]);
    d_concat[static_cast<size_t>(seq.count + j)] += absolute ? std::abs(g) : g;
  }
  for (int64_t i = 0; i < seq.halo() + seq.count; ++i) {
    const T value = static_cast<T>(d_concat[static_cast<size_t>(i)]);
    if (i >= seq.halo()) {
      args.dx.at(seq.b, seq.token(i - seq.halo()), c) = value;
    } else if (args.ds0 != nullptr) {
      args.ds0[(seq.r * seq.halo() + i) * seq.shape.channels + c] = value;
    }
  }
}

}  // namespace

template <class T>
void conv1d_forward(const Conv1dShape& shape, const Conv1dForward<T>& args, bool absolute) {
  using Acc = accumulate_t<T>;
  for (const auto& seq : sequences_of(shape, args.in)) {
    for (int64_t t = 0; t < seq.count; ++t) {
      for (int64_t c = 0; c < shape.channels; ++c) {
        const Acc a = seq.sum(t, c, false);
        const Acc s = shape.silu ? sigmoid(a) : Acc(1);
        Acc y = shape.silu ? a * s : a;
        // |silu'(a)| on absolute values carries the error of a into y.
        if (absolute) y = s * (1 + std::abs(a) * (1 - s)) * seq.sum(t, c, true);
        args.y.at(seq.b, seq.token(t), c) = static_cast<T>(y);
      }
    }
    if (args.sT != nullptr) final_state(seq, args.sT, absolute);
  }
}

template <class T>
void conv1d_backward(const Conv1dShape& shape, const Conv1dBackward<T>& args, bool absolute) {
  using Acc = accumulate_t<T>;
  const auto sequences = sequences_of(shape, args.in);
  for (int64_t c = 0; c < shape.channels; ++c) {
    std::vector<Acc> dw(static_cast<size_t>(shape.width), Acc(0));
    Acc dbias = 0;
    for (const auto& seq : sequences) backward_channel(seq, args, c, absolute, dw, dbias);
    const auto write = [&](Acc& to, Acc sum) {
      const Acc before = args.accumulate ? to : Acc(0);
      to = (absolute ? std::abs(before) : before) + sum;
    };
    for (int64_t k = 0; args.dw != nullptr && k < shape.width; ++k) {
      write(args.dw[c * shape.width + k], dw[static_cast<size_t>(k)]);
    }
    if (args.dbias != nullptr) write(args.dbias[c], dbias);
  }
}

#define ADDER_CONV1D_REF(T)                                                           \
  template void conv1d_forward<T>(const Conv1dShape&, const Conv1dForward<T>&, bool); \
  template void conv1d_backward<T>(const Conv1dShape&, const Conv1dBackward<T>&, bool);
ADDER_CONV1D_REF(double)
ADDER_CONV1D_REF(float)
ADDER_CONV1D_REF(Bf16)
#undef ADDER_CONV1D_REF

}  // namespace adder::ref
