// The linear and the quadratic form leave their sums token by token to these: the skip D x, the
// gate and their gradients. Once per SIMD target.

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_SSD_OUTPUTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_SSD_OUTPUTS_INL_H_
#undef ADDER_SSD_OUTPUTS_INL_H_
#else
#define ADDER_SSD_OUTPUTS_INL_H_
#endif

#include <hwy/highway.h>

#include "kernels/ssd/ssd_recurrent-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE::recurrent {

/// `n` entries of D from channel p of the head on; zeros where D is absent.
template <class T, class C = accumulate_t<T>>
HWY_INLINE V<Words<C>> skip_word(const SsdShape& shape, const SsdInputs<T>& in, int64_t head,
                                 int64_t p, size_t n) {
  const Words<C> d;
  if (in.D == nullptr) return hn::Zero(d);
  return shape.d_per_channel ? load_n(d, in.D + head * shape.head_dim + p, n)
                             : hn::Set(d, in.D[head]);
}

/// y = (sums + D x) silu(z) of channels [first, first + count) of a head; sums (tokens, row).
template <class T, class C = accumulate_t<T>>
void finish_outputs(const SsdShape& shape, const SsdForward<T>& args, const Run& run, int64_t first,
                    int64_t count, const C* sums, int64_t row) {
  const Words<C> d;
  const SsdInputs<T>& in = args.in;
  const int64_t channel = run.head * shape.head_dim + first;
  for (int64_t t = 0; t < run.count; ++t) {
    const int64_t token = token_at(in, run, t);
    for (int64_t p = 0; p < count; p += kLanes<C>) {
      const auto n = static_cast<size_t>(HWY_MIN(kLanes<C>, count - p));
      auto out = hn::Load(d, sums + t * row + p);
      if (in.D != nullptr) {
        const auto x = load_n(d, in.x.row(run.batch, token) + channel + p, n);
        out = hn::MulAdd(skip_word(shape, in, run.head, first + p, n), x, out);
      }
      if (in.z) {
        out = hn::Mul(out, silu_word(d, load_n(d, in.z.row(run.batch, token) + channel + p, n)));
      }
      store_n(out, d, args.y.row(run.batch, token) + channel + p, n);
    }
  }
}

/// The gradient of the ungated y of one head: gy silu(z). Rows of `row` elements, zeros to the end
/// of the last word.
template <class T, class C = accumulate_t<T>>
void ungated_gradients(const SsdShape& shape, const SsdBackward<T>& args, const Run& run,
                       int64_t row, C* to) {
  const Words<C> d;
  const int64_t channel = run.head * shape.head_dim;
  channel_rows(args.in, args.gy, run, channel, shape.head_dim, static_cast<const C*>(nullptr), row,
               to);
  for (int64_t t = 0; args.in.z && t < run.count; ++t) {
    const T* z = args.in.z.row(run.batch, token_at(args.in, run, t)) + channel;
    for (int64_t p = 0; p < shape.head_dim; p += kLanes<C>) {
      const auto n = static_cast<size_t>(HWY_MIN(kLanes<C>, shape.head_dim - p));
      C* gy = to + t * row + p;
      hn::Store(hn::Mul(hn::Load(d, gy), silu_word(d, load_n(d, z + p, n))), d, gy);
    }
  }
}

/// One token of one head, (head_dim) each.
template <class C>
struct TokenRows {
  const C* v;   // lam B: the gradient of delta x
  const C* gy;  // of the ungated y
  const C* y;   // C h; read where z is given
  C* dD;        // gy x is added
};

/// Writes dx = delta v + D gy and dz; returns x v, summed over the channels.
template <class T, class C = accumulate_t<T>>
C channel_gradients(const SsdShape& shape, const SsdBackward<T>& args, const Run& run, int64_t t,
                    C delta, const TokenRows<C>& rows) {
  const Words<C> d;
  const SsdInputs<T>& in = args.in;
  const int64_t token = token_at(in, run, t), channel = run.head * shape.head_dim;
  auto direct = hn::Zero(d);
  for (int64_t p = 0; p < shape.head_dim; p += kLanes<C>) {
    const auto n = static_cast<size_t>(HWY_MIN(kLanes<C>, shape.head_dim - p));
    const auto v = hn::Load(d, rows.v + p), gy = hn::Load(d, rows.gy + p);
    const auto x = load_n(d, in.x.row(run.batch, token) + channel + p, n);
    const auto skip = skip_word(shape, in, run.head, p, n);
    direct = hn::MulAdd(x, v, direct);
    hn::Store(hn::MulAdd(gy, x, hn::Load(d, rows.dD + p)), d, rows.dD + p);
    if (args.dx) {
      store_n(hn::MulAdd(hn::Set(d, delta), v, hn::Mul(skip, gy)), d,
              args.dx.row(run.batch, token) + channel + p, n);
    }
    if (args.dz) {
      const auto y = hn::MulAdd(skip, x, hn::Load(d, rows.y + p));
      const auto slope = silu_slope_word(d, load_n(d, in.z.row(run.batch, token) + channel + p, n));
      const auto gout = load_n(d, args.gy.row(run.batch, token) + channel + p, n);
      store_n(hn::Mul(hn::Mul(gout, y), slope), d, args.dz.row(run.batch, token) + channel + p, n);
    }
  }
  return hn::GetLane(hn::SumOfLanes(d, direct));
}

}  // namespace adder::HWY_NAMESPACE::recurrent
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
