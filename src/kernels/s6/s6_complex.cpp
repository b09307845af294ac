// Line "complex": A, B, C and the states are complex (math.md 3.5). A complex state is two numbers
// of the layout, so the cut, the partial sums and their order are those of a real scan with twice
// the states; only the recurrence differs. Chunks in order, states one after the other.
#include "kernels/s6/s6_lines.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/s6/s6_complex.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

#include "kernels/s6/s6_backward-inl.h"
#include "kernels/s6/s6_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {
namespace complex {

/// The layout as pairs of real numbers.
inline S6Shape flat(S6Shape shape) {
  shape.state *= 2;
  shape.complex = false;
  return shape;
}

template <class D>
struct Pair {
  V<D> re;
  V<D> im;
};
template <class C>
HWY_INLINE Pair<Words<C>> load_pair(const C* from) {
  const Words<C> d;
  return {hn::Load(d, from), hn::Load(d, from + kLanes<C>)};
}
template <class D>
HWY_INLINE void store_pair(D d, const Pair<D>& value, hn::TFromD<D>* to) {
  hn::Store(value.re, d, to);
  hn::Store(value.im, d, to + kLanes<hn::TFromD<D>>);
}
template <class D>
HWY_INLINE Pair<D> product(D, const Pair<D>& a, const Pair<D>& b) {
  return {hn::NegMulAdd(a.im, b.im, hn::Mul(a.re, b.re)),
          hn::MulAdd(a.im, b.re, hn::Mul(a.re, b.im))};
}
/// a conj(b).
template <class D>
HWY_INLINE Pair<D> product_conj(D, const Pair<D>& a, const Pair<D>& b) {
  return {hn::MulAdd(a.im, b.im, hn::Mul(a.re, b.re)),
          hn::NegMulAdd(a.re, b.im, hn::Mul(a.im, b.re))};
}

/// The angle minus whole turns, in [-4, 4] whatever it was, so that Highway's sine and cosine stay
/// within their range. 2 pi in three parts.
template <class D>
HWY_INLINE V<D> less_turns(D d, V<D> angle) {
  using C = hn::TFromD<D>;
  const auto part = [&](double narrow, double wide) {
    return hn::Set(d, static_cast<C>(sizeof(C) == 4 ? narrow : wide));
  };
  const auto turns = hn::Round(hn::Mul(angle, hn::Set(d, static_cast<C>(0.15915494309189535))));
  angle = hn::NegMulAdd(turns, part(0x1.92p2, 0x1.921fb544p2), angle);
  angle = hn::NegMulAdd(turns, part(0x1.fbp-10, 0x1.0b4611a6p-32), angle);
  angle = hn::NegMulAdd(turns, part(0x1.5110b4p-20, 0x1.3198a2e037073p-67), angle);
  const auto limit = hn::Set(d, static_cast<C>(4));
  // The value second: NaN stays NaN.
  return hn::Min(limit, hn::Max(hn::Neg(limit), angle));
}

/// e^(delta A) from A = (re log2(e), im).
template <class D>
HWY_INLINE Pair<D> decay(D d, V<D> delta, const Pair<D>& A) {
  const auto size = decay_word(d, delta, A.re);
  const auto angle = less_turns(d, hn::Mul(delta, A.im));
  return {hn::Mul(size, hn::Cos(d, angle)), hn::Mul(size, hn::Sin(d, angle))};
}

/// The pair n of B or C at a step, in every lane.
template <class C, class T>
HWY_INLINE Pair<Words<C>> broadcast_pair(const S6Inputs<T>& in, const TokenView<const T>& view,
                                         int64_t batch, int64_t step, int64_t offset) {
  const Words<C> d;
  const T* at = view.row(batch, token_at(in, step)) + offset;
  return {hn::Set(d, static_cast<C>(at[0])), hn::Set(d, static_cast<C>(at[1]))};
}

/// One pair of states over the tokens of a run; y is added to. `entering` (count + 1, 2, kLanes)
/// and `decays` (count, 2, kLanes), where given, keep what backward needs.
template <class T, class C>
HWY_NOINLINE void scan_pair(const S6Inputs<T>& in, const Run& run, int64_t offset, const C* rates,
                            C* state, ScanRow<C>* tokens, C* entering, C* decays) {
  const Words<C> d;
  const auto A = load_pair(rates);
  auto h = load_pair(state);
  const auto two = hn::Set(d, C{2});
  for (int64_t t = 0; t < run.count; ++t) {
    const auto a = decay(d, hn::Load(d, tokens[t].delta), A);
    const auto du = hn::Load(d, tokens[t].du);
    const auto B = broadcast_pair<C>(in, in.B, run.batch, run.begin + t, offset);
    const auto weight = broadcast_pair<C>(in, in.C, run.batch, run.begin + t, offset);
    if (entering != nullptr) {
      store_pair(d, h, entering + t * 2 * kLanes<C>);
      store_pair(d, a, decays + t * 2 * kLanes<C>);
    }
    const auto kept = product(d, a, h);
    h = {hn::MulAdd(du, B.re, kept.re), hn::MulAdd(du, B.im, kept.im)};
    const auto real = hn::NegMulAdd(weight.im, h.im, hn::Mul(weight.re, h.re));
    hn::Store(hn::MulAdd(two, real, hn::Load(d, tokens[t].y)), d, tokens[t].y);
  }
  store_pair(d, h, state);
  if (entering != nullptr) store_pair(d, h, entering + run.count * 2 * kLanes<C>);
}

template <class T>
void complex_forward_segment(const ForwardJob<T>& job, const s6::Segment& segment,
                             const s6::Tile& tile, accumulate_t<T>* state) {
  using C = accumulate_t<T>;
  const S6Inputs<T>& in = job.args->in;
  ScanRow<C> tokens[kS6Chunk];
  C* none = nullptr;
  for (int64_t step = segment.begin; step < segment.end; step += kS6Chunk) {
    const Run run{segment.batch, step, HWY_MIN(kS6Chunk, segment.end - step)};
    for (int64_t w = 0; w < tile.words; ++w) {
      const Lane lane = lane_of<T>(tile, w);
      C* h = state + w * job.word_size();
      prepare_forward<false>(job.shape->softplus, in, run, lane, tokens);
      if (job.args->saved != nullptr) save_state(job, segment, step, lane, h);
      const C* rates = job.a2 + (tile.word + w) * job.word_size();
      for (int64_t n = 0; n < job.shape->state; n += 2) {
        scan_pair(in, run, tile.group * job.shape->state + n, rates + n * kLanes<C>,
                  h + n * kLanes<C>, tokens, none, none);
      }
      finish_forward<false>(*job.args, run, lane, tokens);
    }
  }
}

template <class T>
void forward(const S6Shape& shape, const S6Forward<T>& args, Exec exec) {
  using C = accumulate_t<T>;
  const auto scan = [](const ForwardJob<T>& job, const s6::Segment& segment, const s6::Tile& tile,
                       C* state) { complex_forward_segment(job, segment, tile, state); };
  forward_whole_sequences(flat(shape), args, exec, 2, scan);
}

/// What backward keeps of one token of one word, beside its ScanRow.
template <class C>
struct GradientRow {
  HWY_ALIGN C gy[kLanes<C>];  // of y before the gate
  C s1[kLanes<C>];            // sum over n of Re(lam conj(B))
  C ddelta[kLanes<C>];        // sum over n of Re(conj(A) q)
};

template <class C>
struct RunBuffers {
  ScanRow<C> tokens[kS6Chunk];
  GradientRow<C> gradients[kS6Chunk];
  HWY_ALIGN C entering[(kS6Chunk + 1) * 2 * kLanes<C>];
  HWY_ALIGN C decays[kS6Chunk * 2 * kLanes<C>];
};

/// gy of the ungated y; clears the sums.
template <class T, class C>
void prepare_gradients(const S6Backward<T>& args, const Run& run, const Lane& lane,
                       RunBuffers<C>& buffers) {
  const Words<C> d;
  const Rows<false, const T> z(args.in.z, args.in.order, run, lane);
  const Rows<false, const T> gout(args.gy, args.in.order, run, lane);
  for (int64_t t = 0; t < run.count; ++t) {
    auto gy = gout.get(d, t);
    if (z) gy = hn::Mul(gy, silu_word(d, z.get(d, t)));
    hn::Store(gy, d, buffers.gradients[t].gy);
    hn::Store(hn::Zero(d), d, buffers.gradients[t].s1);
    hn::Store(hn::Zero(d), d, buffers.gradients[t].ddelta);
  }
}

template <class C>
struct PairSums {
  C* dB;  // of the tile's partial rows, at this pair
  C* dC;
  C* dA;       // (2, kLanes), added to
  C* mu;       // (2, kLanes), in and out
  bool first;  // of the tile's words: dB and dC are written, not added to
};

template <class C>
HWY_INLINE void add_lanes(const Pair<Words<C>>& value, bool first, C* to) {
  const Words<C> d;
  const C re = hn::GetLane(hn::SumOfLanes(d, value.re));
  const C im = hn::GetLane(hn::SumOfLanes(d, value.im));
  to[0] = first ? re : to[0] + re;
  to[1] = first ? im : to[1] + im;
}

/// Math.md 3.5 for one pair of states, last token first.
/// q = mu conj(h_{t-1}) = lam conj(a h_{t-1}).
template <class T, class C>
HWY_NOINLINE void backward_pair(const BackwardJob<T>& job, const Run& run, int64_t offset,
                                const C* rates, RunBuffers<C>& buffers, const PairSums<C>& sums) {
  const Words<C> d;
  const S6Inputs<T>& in = job.args->in;
  const int64_t width = job.shape->groups * job.shape->state;
  auto A = load_pair(rates);
  A.re = hn::Mul(A.re, hn::Set(d, static_cast<C>(kLn2)));
  auto mu = load_pair(sums.mu);
  auto dA = load_pair(sums.dA);
  for (int64_t t = run.count - 1; t >= 0; --t) {
    GradientRow<C>& row = buffers.gradients[t];
    const auto delta = hn::Load(d, buffers.tokens[t].delta);
    const auto du = hn::Load(d, buffers.tokens[t].du);
    const auto gy = hn::Load(d, row.gy);
    const auto gy2 = hn::Add(gy, gy);
    const auto B = broadcast_pair<C>(in, in.B, run.batch, run.begin + t, offset);
    const auto weight = broadcast_pair<C>(in, in.C, run.batch, run.begin + t, offset);
    const auto h = load_pair(buffers.entering + (t + 1) * 2 * kLanes<C>);
    const Pair<Words<C>> lam{hn::MulAdd(gy2, weight.re, mu.re),
                             hn::NegMulAdd(gy2, weight.im, mu.im)};
    const int64_t token = run.batch * job.shape->len + token_at(in, run.begin + t);
    add_lanes<C>({hn::Mul(gy2, h.re), hn::Neg(hn::Mul(gy2, h.im))}, sums.first,
                 sums.dC + token * width);
    add_lanes<C>({hn::Mul(lam.re, du), hn::Mul(lam.im, du)}, sums.first, sums.dB + token * width);
    auto s1 = hn::MulAdd(lam.re, B.re, hn::Load(d, row.s1));
    hn::Store(hn::MulAdd(lam.im, B.im, s1), d, row.s1);
    mu = product_conj(d, lam, load_pair(buffers.decays + t * 2 * kLanes<C>));
    const auto q = product_conj(d, mu, load_pair(buffers.entering + t * 2 * kLanes<C>));
    auto ddelta = hn::MulAdd(A.re, q.re, hn::Load(d, row.ddelta));
    hn::Store(hn::MulAdd(A.im, q.im, ddelta), d, row.ddelta);
    dA = {hn::MulAdd(delta, q.re, dA.re), hn::MulAdd(delta, q.im, dA.im)};
  }
  store_pair(d, mu, sums.mu);
  store_pair(d, dA, sums.dA);
}

/// du, ddt and dz of a run, and its shares of dD and ddt_bias.
template <class T, class C>
void finish_gradients(const S6Shape& shape, const S6Backward<T>& args, const Run& run,
                      const Lane& lane, RunBuffers<C>& buffers, C* dD_sum, C* ddt_bias_sum) {
  const Words<C> d;
  const S6Inputs<T>& in = args.in;
  const Rows<false, const T> u(in.u, in.order, run, lane), dt(in.dt, in.order, run, lane);
  const Rows<false, const T> z(in.z, in.order, run, lane), gout(args.gy, in.order, run, lane);
  const Rows<false, T> du(args.du, in.order, run, lane), ddt(args.ddt, in.order, run, lane);
  const Rows<false, T> dz(args.dz, in.order, run, lane);
  const auto bias = load_channel_values(d, in.dt_bias, lane);
  const auto skip = load_channel_values(d, in.D, lane);
  const auto one = hn::Set(d, C{1});
  for (int64_t t = run.count - 1; t >= 0; --t) {
    const auto delta = hn::Load(d, buffers.tokens[t].delta);
    const GradientRow<C>& row = buffers.gradients[t];
    const auto gy = hn::Load(d, row.gy);
    const auto s1 = hn::Load(d, row.s1);
    const auto input = u.get(d, t);
    if (du) du.put(hn::MulAdd(delta, s1, hn::Mul(skip, gy)), d, t);
    const auto pre = hn::Add(dt.get(d, t), bias);
    const auto sp = shape.softplus ? softplus_of(d, pre, exp_minus_abs(d, pre)) : pre;
    auto slope = one;
    if (shape.softplus) {
      slope = hn::IfThenElse(hn::Gt(pre, hn::Set(d, C{20})), one, sigmoid_word(d, pre));
    }
    const auto outside =
        hn::Or(hn::Lt(sp, hn::Set(d, in.dt_min)), hn::Gt(sp, hn::Set(d, in.dt_max)));
    slope = hn::IfThenZeroElse(outside, slope);
    const auto raw = hn::Mul(hn::MulAdd(input, s1, hn::Load(d, row.ddelta)), slope);
    if (ddt) ddt.put(raw, d, t);
    if (dz) {
      const auto gate = z.get(d, t);
      const auto y = hn::MulAdd(skip, input, hn::Load(d, buffers.tokens[t].y));
      dz.put(hn::Mul(hn::Mul(gout.get(d, t), silu_slope_word(d, gate)), y), d, t);
    }
    hn::Store(hn::MulAdd(gy, input, hn::Load(d, dD_sum)), d, dD_sum);
    hn::Store(hn::Add(raw, hn::Load(d, ddt_bias_sum)), d, ddt_bias_sum);
  }
}

template <class T, class C>
void complex_backward_segment(const BackwardJob<T>& job, const s6::Segment& segment,
                              const s6::Tile& tile, C* mu, const PartialSums<C>& sums) {
  const S6Shape& shape = *job.shape;
  const S6Inputs<T>& in = job.args->in;
  RunBuffers<C> buffers;
  const int64_t chunks = s6::ceil_div(segment.end - segment.begin, kS6Chunk);
  for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
    const int64_t begin = segment.begin + chunk * kS6Chunk;
    const Run run{segment.batch, begin, HWY_MIN(kS6Chunk, segment.end - begin)};
    const int64_t saved = segment.batch * shape.saved_chunks() + segment.saved + chunk;
    for (int64_t w = 0; w < tile.words; ++w) {
      const Lane lane = lane_of<T>(tile, w);
      const int64_t word = tile.word + w;
      prepare_forward<false>(shape.softplus, in, run, lane, buffers.tokens);
      prepare_gradients(*job.args, run, lane, buffers);
      for (int64_t n = 0; n < shape.state; n += 2) {
        HWY_ALIGN C h[2 * kLanes<C>];
        words_from_rows(state_row(job.args->saved, shape, saved, lane.channel) + n, shape.state,
                        lane.count, 2, 2, h);
        const int64_t offset = tile.group * shape.state + n;
        const int64_t at = word * job.word_size() + n * kLanes<C>;
        scan_pair(in, run, offset, job.a2 + at, h, buffers.tokens, buffers.entering,
                  buffers.decays);
        const int64_t rows = tile.index_in_group * job.rows_size() + offset;
        const PairSums<C> pair{job.dB + rows, job.dC + rows, sums.dA + at,
                               mu + w * job.word_size() + n * kLanes<C>, w == 0};
        backward_pair(job, run, offset, job.a2 + at, buffers, pair);
      }
      finish_gradients(shape, *job.args, run, lane, buffers, sums.dD + word * kLanes<C>,
                       sums.ddt_bias + word * kLanes<C>);
    }
  }
}

template <class T>
void backward(const S6Shape& shape, const S6Backward<T>& args, Exec exec) {
  using C = accumulate_t<T>;
  const auto segment_back = [](const BackwardJob<T>& job, const s6::Segment& segment,
                               const s6::Tile& tile, C* mu, const PartialSums<C>& sums) {
    complex_backward_segment(job, segment, tile, mu, sums);
  };
  backward_whole_sequences(flat(shape), args, exec, 2, segment_back);
}

}  // namespace complex

ADDER_SIMD_FUNCTIONS(complex_forward, S6Shape, S6Forward, complex::forward)
ADDER_SIMD_FUNCTIONS(complex_backward, S6Shape, S6Backward, complex::backward)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

ADDER_SIMD_DISPATCH(complex_forward, S6Shape, S6Forward, s6::complex_forward)
ADDER_SIMD_DISPATCH(complex_backward, S6Shape, S6Backward, s6::complex_backward)

}  // namespace adder
#endif
