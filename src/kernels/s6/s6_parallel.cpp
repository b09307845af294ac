// Line "parallel": the three phases of math.md 0.7 over segments of a sequence, for long sequences
// and few of them. The exponentials of phase 1 are paid twice.
//   1  each segment but the last from a zero state: its end state and its sum of delta
//   2  over the segments: the true entering states, by e^(A sum of delta)
//   3  each segment again, from its entering state
// Backward goes the same way from right to left, with mu in the place of h.
#include "kernels/s6/s6_lines.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/s6/s6_parallel.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/s6/s6_backward-inl.h"
#include "kernels/s6/s6_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

/// The state and the sum of delta of every segment.
template <class C>
struct SegmentEnds {
  C* state;          // (segments, words, states, kLanes)
  C* delta_sum;      // (segments, words, kLanes)
  int64_t channels;  // padded
  int64_t states;    // padded

  C* state_of(int64_t segment, const s6::Tile& tile) const {
    return state + (segment * channels + tile.word * kLanes<C>)*states;
  }
  C* delta_of(int64_t segment, const s6::Tile& tile) const {
    return delta_sum + segment * channels + tile.word * kLanes<C>;
  }
  void clear(int64_t segment, const s6::Tile& tile) const {
    std::fill_n(state_of(segment, tile), tile.words * kLanes<C> * states, C{0});
    std::fill_n(delta_of(segment, tile), tile.words * kLanes<C>, C{0});
  }
};

/// Phase 2 for one segment: `entering` holds the state from zero, `carried` the true state at the
/// near end; they become the true near state and that of the far end.
template <class C>
void carry_over(const SegmentEnds<C>& ends, int64_t segment, const s6::Tile& tile, const C* a2,
                C* carried) {
  const Words<C> d;
  C* local = ends.state_of(segment, tile);
  for (int64_t w = 0; w < tile.words; ++w) {
    const auto delta = hn::Load(d, ends.delta_of(segment, tile) + w * kLanes<C>);
    for (int64_t n = 0; n < ends.states; ++n) {
      const int64_t at = (w * ends.states + n) * kLanes<C>;
      const auto a = decay_word(d, delta, hn::Load(d, a2 + at));
      const auto near = hn::Load(d, carried + at);
      hn::Store(hn::MulAdd(a, near, hn::Load(d, local + at)), d, carried + at);
      hn::Store(near, d, local + at);
    }
  }
}

template <class C>
SegmentEnds<C> carve_ends(const S6Shape& shape, int64_t segments, Exec* exec) {
  const int64_t channels = s6::padded_channels<C>(shape);
  const int64_t states = s6::padded_states(shape.state);
  return {exec->carve<C>(segments * channels * states), exec->carve<C>(segments * channels),
          channels, states};
}

template <class T>
void forward_by_segments(const S6Shape& shape, const S6Forward<T>& args, Exec exec) {
  using C = accumulate_t<T>;
  const int64_t tokens = s6::parallel_segment_tokens(shape);
  const int64_t most = s6::max_segments(shape, tokens);
  auto* segments = exec.carve<s6::Segment>(most);
  const int64_t count = s6::list_segments(shape, args.in.cu_seqlens, tokens, segments);
  const s6::Cut cut(shape, kLanes<C>);
  const SegmentEnds<C> ends = carve_ends<C>(shape, most, &exec);
  const int64_t plane = ends.channels * ends.states;
  const ForwardJob<T> job{&shape, &args, cut, ends.states, exec.carve<C>(plane)};
  C* carried = exec.carve<C>(plane);
  scale_decay_rates(shape, cut, args.in.A, 1, exec.threads, job.a2);
  const auto each = [&](const auto& body) {
    parallel_for(exec.threads, count * cut.tiles(), [&](int64_t item) {
      const FlushSubnormals flush;
      body(item / cut.tiles(), cut.tile(item % cut.tiles()));
    });
  };
  each([&](int64_t i, const s6::Tile& tile) {
    ends.clear(i, tile);
    if (segments[i].last) return;
    scan_segment<TokenOrder, false>(job, segments[i], tile, ends.state_of(i, tile),
                                    ends.delta_of(i, tile));
  });
  parallel_for(exec.threads, cut.tiles(), [&](int64_t index) {
    const FlushSubnormals flush;
    const s6::Tile tile = cut.tile(index);
    C* own = carried + tile.word * job.word_size();
    for (int64_t i = 0; i < count; ++i) {
      if (segments[i].first) load_entering_state(shape, args.in, segments[i].row, tile, own);
      carry_over(ends, i, tile, job.a2 + tile.word * job.word_size(), own);
    }
  });
  each([&](int64_t i, const s6::Tile& tile) {
    C* state = ends.state_of(i, tile);
    scan_segment<TokenOrder, true>(job, segments[i], tile, state, static_cast<C*>(nullptr));
    if (segments[i].last) store_final_state(job, segments[i].row, tile, state);
  });
}

/// mu = a (mu + C gy) over a chunk, from its last token to its first.
template <class C>
HWY_NOINLINE void adjoint_block(const C* a2, C* mu, const TokenRow<C>* tokens, const C* C_rows,
                                int64_t count) {
  const Words<C> d;
  V<Words<C>> value[kBlock];
#pragma GCC unroll 4
  for (int64_t n = 0; n < kBlock; ++n) value[n] = hn::Load(d, mu + n * kLanes<C>);
  for (int64_t t = count - 1; t >= 0; --t) {
    const auto delta = hn::Load(d, tokens[t].delta);
    const auto gy = hn::Load(d, tokens[t].gy);
#pragma GCC unroll 4
    for (int64_t n = 0; n < kBlock; ++n) {
      const auto a = decay_word(d, delta, hn::Load(d, a2 + n * kLanes<C>));
      value[n] = hn::Mul(a, hn::MulAdd(hn::Set(d, C_rows[t * kBlock + n]), gy, value[n]));
    }
  }
#pragma GCC unroll 4
  for (int64_t n = 0; n < kBlock; ++n) hn::Store(value[n], d, mu + n * kLanes<C>);
}

/// Phase 1 of backward: mu from zero at the right end, and the sum of delta.
template <class T, class C>
void adjoint_segment(const BackwardJob<T>& job, const s6::Segment& segment, const s6::Tile& tile,
                     C* mu, C* delta_sum) {
  const Words<C> d;
  const S6Inputs<T>& in = job.args->in;
  WordRows<C> rows;
  const TokenRow<C>* tokens = rows.tokens;
  HWY_ALIGN C C_rows[kS6Chunk * kBlock];
  const int64_t chunks = s6::ceil_div(segment.end - segment.begin, kS6Chunk);
  for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
    const int64_t begin = segment.begin + chunk * kS6Chunk;
    const Run run{segment.batch, begin, HWY_MIN(kS6Chunk, segment.end - begin)};
    for (int64_t w = 0; w < tile.words; ++w) {
      prepare_rows(job.shape->softplus, *job.args, run, lane_of<T>(tile, w), &rows);
      auto sum = hn::Load(d, delta_sum + w * kLanes<C>);
      for (int64_t t = 0; t < run.count; ++t) sum = hn::Add(sum, hn::Load(d, tokens[t].delta));
      hn::Store(sum, d, delta_sum + w * kLanes<C>);
      for (int64_t state = 0; state < job.states; state += kBlock) {
        gather_states<kBlock>(in, in.C, run, tile.group * job.shape->state + state,
                              job.shape->state - state, C_rows);
        const int64_t row = w * job.word_size() + state * kLanes<C>;
        adjoint_block(job.a2 + tile.word * job.word_size() + row, mu + row, tokens, C_rows,
                      run.count);
      }
    }
  }
}

template <class T>
void backward_by_segments(const S6Shape& shape, const S6Backward<T>& args, Exec exec) {
  using C = accumulate_t<T>;
  const int64_t tokens = s6::parallel_segment_tokens(shape);
  const int64_t most = s6::max_segments(shape, tokens);
  auto* segments = exec.carve<s6::Segment>(most);
  const int64_t count = s6::list_segments(shape, args.in.cu_seqlens, tokens, segments);
  const SegmentEnds<C> ends = carve_ends<C>(shape, most, &exec);
  PartialSums<C> sums;
  const BackwardJob<T> job = carve_backward(shape, args, &exec, most, &sums);
  C* carried = exec.carve<C>(ends.channels * ends.states);
  const int64_t tiles = job.cut.tiles();
  scale_decay_rates(shape, job.cut, args.in.A, 1, exec.threads, job.a2);
  const auto each = [&](const auto& body) {
    parallel_for(exec.threads, count * tiles, [&](int64_t item) {
      const FlushSubnormals flush;
      body(item / tiles, job.cut.tile(item % tiles));
    });
  };
  each([&](int64_t i, const s6::Tile& tile) {
    ends.clear(i, tile);
    if (segments[i].first) return;
    adjoint_segment(job, segments[i], tile, ends.state_of(i, tile), ends.delta_of(i, tile));
  });
  parallel_for(exec.threads, tiles, [&](int64_t index) {
    const FlushSubnormals flush;
    const s6::Tile tile = job.cut.tile(index);
    C* own = carried + tile.word * job.word_size();
    for (int64_t i = count - 1; i >= 0; --i) {
      if (segments[i].last) load_final_gradient(job, segments[i].row, tile, own);
      carry_over(ends, i, tile, job.a2 + tile.word * job.word_size(), own);
    }
  });
  each([&](int64_t i, const s6::Tile& tile) {
    const PartialSums<C> own = clear_sums(job, tile, sums, i, ends.channels);
    C* mu = ends.state_of(i, tile);
    backward_segment(job, segments[i], tile, mu, own);
    if (segments[i].first) store_entering_gradient(job, segments[i].row, tile, mu);
  });
  sum_tiles(job, args.dB, job.dB, exec.threads);
  sum_tiles(job, args.dC, job.dC, exec.threads);
  sum_bundles(job, sums, count, ends.channels, exec.threads);
}

ADDER_SIMD_FUNCTIONS(parallel_forward, S6Shape, S6Forward, forward_by_segments)
ADDER_SIMD_FUNCTIONS(parallel_backward, S6Shape, S6Backward, backward_by_segments)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

ADDER_SIMD_DISPATCH(parallel_forward, S6Shape, S6Forward, s6::parallel_forward)
ADDER_SIMD_DISPATCH(parallel_backward, S6Shape, S6Backward, s6::parallel_backward)

}  // namespace adder
#endif
