// The backward scan over one segment of one tile, chunks from last to first, and the sums over
// channels, tokens and rows. dB and dC are sums over channels: lanes are added up over the words of
// a tile, then over lanes, then over tiles, each in index order. dA, dD and ddt_bias are added up
// over the tokens of a bundle, then over bundles.

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_KERNELS_S6_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_KERNELS_S6_BACKWARD_INL_H_
#undef ADDER_KERNELS_S6_BACKWARD_INL_H_
#else
#define ADDER_KERNELS_S6_BACKWARD_INL_H_
#endif

#include <hwy/highway.h>

#include "core/subnormals.h"
#include "kernels/s6/s6_backward_block-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

/// Sums of one bundle, to be added to those of the other bundles in index order.
template <class C>
struct PartialSums {
  C* dA;        // (words, states, kLanes)
  C* dD;        // (words, kLanes)
  C* ddt_bias;  // (words, kLanes)
};

template <class T>
struct BackwardJob {
  using C = accumulate_t<T>;
  const S6Shape* shape;
  const S6Backward<T>* args;
  s6::Cut cut;
  int64_t states;  // padded to whole blocks
  C* a2;           // (words, states, kLanes): A log2(e)
  C* dB;           // (tiles of a group, batch, len, groups, state): partial sums
  C* dC;

  int64_t word_size() const { return states * kLanes<C>; }
  int64_t rows_size() const { return shape->batch * shape->len * shape->groups * shape->state; }
};

/// Sums over lanes of a block's dB and dC into the tile's partial rows.
template <class T, class C>
HWY_NOINLINE void reduce_block(const BackwardJob<T>& job, const Run& run, const s6::Tile& tile,
                               int64_t state, const BlockBuffers<C>& block) {
  const S6Shape& shape = *job.shape;
  const int64_t count = HWY_MIN(kBlock, shape.state - state);
  const int64_t offset = tile.index_in_group * job.rows_size() + tile.group * shape.state + state;
  for (int64_t t = 0; t < run.count; ++t) {
    const int64_t token = run.batch * shape.len + token_at(job.args->in, run.begin + t);
    const int64_t to = offset + token * shape.groups * shape.state;
    C sums[2 * kBlock];
    sum_lanes(block.rows[t].dB, sums);
    sum_lanes(block.rows[t].dC, sums + kBlock);
    for (int64_t n = 0; n < count; ++n) {
      job.dB[to + n] = sums[n];
      job.dC[to + n] = sums[kBlock + n];
    }
  }
}

/// Index of the saved state that enters the run.
template <class T>
int64_t saved_index(const BackwardJob<T>& job, const s6::Segment& segment, const Run& run) {
  return segment.batch * job.shape->saved_chunks() + segment.saved +
         (run.begin - segment.begin) / kS6Chunk;
}

/// During the first two blocks the inputs of the chunk before this one, then the outputs of this
/// chunk and the saved state that enters the chunk before it; else `nothing`.
template <class T>
void aim_ahead(const BackwardJob<T>& job, const s6::Segment& segment, const Run& run,
               const Lane& lane, int64_t state, const void* nothing, Ahead* ahead) {
  const S6Backward<T>& args = *job.args;
  const int64_t block = state / kBlock;
  for (int i = 0; i < kBlockViews; ++i) ahead[i] = {static_cast<const char*>(nothing), 0};
  const bool before = run.begin > segment.begin;
  if (args.in.order != nullptr || block > 3 || (block < 2 && !before)) return;
  Run target = run;
  if (block < 2) target.begin -= kS6Chunk;
  const auto aim = [&](int i, const auto& view) {
    ahead[i] = Ahead::of(view, target, lane.channel, nothing);
  };
  if (block == 0) aim(0, args.in.u), aim(1, args.in.dt);
  if (block == 1) aim(0, args.in.z), aim(1, args.gy);
  if (block == 2) aim(0, args.du), aim(1, args.ddt);
  if (block == 3) {
    aim(0, args.dz);
    const int64_t index = saved_index(job, segment, run) - (before ? 1 : 0);
    ahead[1] = {
        reinterpret_cast<const char*>(state_row(args.saved, *job.shape, index, lane.channel)),
        lane.count * job.shape->state * static_cast<int64_t>(sizeof(accumulate_t<T>)) / kS6Chunk};
  }
}

/// The inputs of one word in the chunk that a segment begins with: nobody has fetched them.
template <class T>
void fetch_inputs(const S6Backward<T>& args, const Run& run, const Lane& lane,
                  const void* nothing) {
  if (args.in.order != nullptr) return;
  const Ahead views[] = {Ahead::of(args.in.u, run, lane.channel, nothing),
                         Ahead::of(args.in.dt, run, lane.channel, nothing),
                         Ahead::of(args.in.z, run, lane.channel, nothing),
                         Ahead::of(args.gy, run, lane.channel, nothing)};
  for (int64_t t = 0; t < run.count; ++t) {
    for (const Ahead& view : views) view.fetch(t);
  }
}

/// The block that starts at `state`, for all words of the tile; a word's rows are prepared before
/// its first block and used up after its last one, while they are in L1.
template <class T, class C>
void backward_block(const BackwardJob<T>& job, const s6::Segment& segment, const Run& run,
                    const s6::Tile& tile, int64_t state, C* mu, const PartialSums<C>& sums,
                    WordRows<C>* words, BlockBuffers<C>* block) {
  const S6Shape& shape = *job.shape;
  const int64_t saved = saved_index(job, segment, run);
  for (int64_t w = 0; w < tile.words; ++w) {
    const Lane lane = lane_of<T>(tile, w);
    if (state == 0 && run.begin + run.count == segment.end && w + 1 < tile.words) {
      fetch_inputs(*job.args, run, lane_of<T>(tile, w + 1), job.a2);
    }
    if (state == 0) prepare_rows(shape.softplus, *job.args, run, lane, &words[w]);
    HWY_ALIGN C h[StateRow<C>::kSize];
    words_from_rows(state_row(job.args->saved, shape, saved, lane.channel) + state, shape.state,
                    lane.count, HWY_MIN(kBlock, shape.state - state), kBlock, h);
    const int64_t row = w * job.word_size() + state * kLanes<C>;
    const int64_t plane_row = tile.word * job.word_size() + row;
    const BlockWord<C> word{job.a2 + plane_row, h,
                            mu + row,           sums.dA + plane_row,
                            words[w].tokens,    block->B_rows,
                            block->C_rows,      block->rows,
                            run.count};
    Ahead ahead[kBlockViews];
    aim_ahead(job, segment, run, lane, state, word.a2, ahead);
    state == 0 ? run_block<true>(word, ahead, w == 0) : run_block<false>(word, ahead, w == 0);
    if (state + kBlock < job.states) continue;
    const int64_t at = (tile.word + w) * kLanes<C>;
    finish_rows(*job.args, run, lane, &words[w], sums.dD + at, sums.ddt_bias + at);
  }
  reduce_block(job, run, tile, state, *block);
}

/// The gradients of the segment's tokens, from mu (tile.words, states, kLanes), the gradient of the
/// state that leaves it, which becomes that of the state that enters it. Adds to `sums`.
template <class T, class C>
void backward_segment(const BackwardJob<T>& job, const s6::Segment& segment, const s6::Tile& tile,
                      C* mu, const PartialSums<C>& sums) {
  const S6Inputs<T>& in = job.args->in;
  WordRows<C> words[kTileWords<C>];
  BlockBuffers<C> block;
  const int64_t chunks = s6::ceil_div(segment.end - segment.begin, kS6Chunk);
  for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
    const int64_t begin = segment.begin + chunk * kS6Chunk;
    const Run run{segment.batch, begin, HWY_MIN(kS6Chunk, segment.end - begin)};
    for (int64_t state = 0; state < job.states; state += kBlock) {
      const int64_t offset = tile.group * job.shape->state + state;
      const int64_t left = job.shape->state - state;
      gather_states<kBlock>(in, in.B, run, offset, left, block.B_rows);
      gather_states<kBlock>(in, in.C, run, offset, left, block.C_rows);
      backward_block(job, segment, run, tile, state, mu, sums, words, &block);
    }
  }
}

/// mu at the end of a sequence: ghT or zero.
template <class T, class C>
void load_final_gradient(const BackwardJob<T>& job, int64_t row, const s6::Tile& tile, C* mu) {
  for (int64_t w = 0; w < tile.words; ++w) {
    const Lane lane = lane_of<T>(tile, w);
    words_from_rows(state_row(job.args->ghT, *job.shape, row, lane.channel), job.shape->state,
                    lane.count, job.shape->state, job.states, mu + w * job.word_size());
  }
}
template <class T, class C>
void store_entering_gradient(const BackwardJob<T>& job, int64_t row, const s6::Tile& tile,
                             const C* mu) {
  if (job.args->dh0 == nullptr) return;
  for (int64_t w = 0; w < tile.words; ++w) {
    const Lane lane = lane_of<T>(tile, w);
    rows_from_words(mu + w * job.word_size(), job.shape->state, lane.count, job.shape->state,
                    state_row(job.args->dh0, *job.shape, row, lane.channel));
  }
}

/// dB or dC of a constant B or C (s6.h): the sum over all tokens and tiles, rounded once.
template <class T>
void sum_tokens(const BackwardJob<T>& job, const TokenView<T>& out, const accumulate_t<T>* partial,
                int threads) {
  using C = accumulate_t<T>;
  const S6Shape& shape = *job.shape;
  const int64_t width = shape.groups * shape.state;
  parallel_for(threads, s6::ceil_div(width, kLanes<C>), [&](int64_t word) {
    const Words<C> d;
    const int64_t n = word * kLanes<C>;
    const auto lanes = static_cast<size_t>(HWY_MIN(kLanes<C>, width - n));
    auto sum = hn::Zero(d);
    for (int64_t i = 0; i < shape.batch * shape.len; ++i) {
      for (int64_t k = 0; k < job.cut.group_tiles(); ++k) {
        sum = hn::Add(sum, load_n(d, partial + k * job.rows_size() + i * width + n, lanes));
      }
    }
    store_n(sum, d, out.data + n, lanes);
  });
}

/// dB and dC of all tokens: the sum over the tiles of a group, rounded once.
template <class T>
void sum_tiles(const BackwardJob<T>& job, const TokenView<T>& out, const accumulate_t<T>* partial,
               int threads) {
  using C = accumulate_t<T>;
  const S6Shape& shape = *job.shape;
  if (!out) return;
  if (is_constant(out)) return sum_tokens(job, out, partial, threads);
  const int64_t width = shape.groups * shape.state;
  const int64_t tokens = shape.batch * shape.len;
  parallel_for(threads, s6::ceil_div(tokens, kS6Chunk), [&](int64_t item) {
    const Words<C> d;
    for (int64_t i = item * kS6Chunk; i < HWY_MIN(tokens, (item + 1) * kS6Chunk); ++i) {
      T* to = out.row(i / shape.len, i % shape.len);
      for (int64_t n = 0; n < width; n += kLanes<C>) {
        const auto lanes = static_cast<size_t>(HWY_MIN(kLanes<C>, width - n));
        auto sum = load_n(d, partial + i * width + n, lanes);
        for (int64_t k = 1; k < job.cut.group_tiles(); ++k) {
          sum = hn::Add(sum, load_n(d, partial + k * job.rows_size() + i * width + n, lanes));
        }
        store_n(sum, d, to + n, lanes);
      }
    }
  });
}

/// The sums of bundle `part`, cleared for the tile.
template <class T>
PartialSums<accumulate_t<T>> clear_sums(const BackwardJob<T>& job, const s6::Tile& tile,
                                        PartialSums<accumulate_t<T>> sums, int64_t part,
                                        int64_t channels) {
  using C = accumulate_t<T>;
  sums.dA += part * channels * job.states;
  sums.dD += part * channels;
  sums.ddt_bias += part * channels;
  std::fill_n(sums.dA + tile.word * job.word_size(), tile.words * job.word_size(), C{0});
  std::fill_n(sums.dD + tile.word * kLanes<C>, tile.words * kLanes<C>, C{0});
  std::fill_n(sums.ddt_bias + tile.word * kLanes<C>, tile.words * kLanes<C>, C{0});
  return sums;
}

/// Writes words (state, kLanes) as rows of dA, or adds them to what is there.
template <class T>
void put_decay_gradients(const BackwardJob<T>& job, const Lane& lane,
                         const accumulate_t<T>* words) {
  using C = accumulate_t<T>;
  const int64_t states = job.shape->state;
  C* rows = state_row(job.args->dA, *job.shape, 0, lane.channel);
  if (!job.args->accumulate) return rows_from_words(words, states, lane.count, states, rows);
  for (int64_t c = 0; c < lane.count; ++c) {
    for (int64_t n = 0; n < states; ++n) rows[c * states + n] += words[n * kLanes<C> + c];
  }
}

/// dA, dD and ddt_bias: the sum over `parts` sets of partial sums, `channels` words apart, written
/// or added to what is there.
template <class T>
void sum_bundles(const BackwardJob<T>& job, const PartialSums<accumulate_t<T>>& sums, int64_t parts,
                 int64_t channels, int threads) {
  using C = accumulate_t<T>;
  const S6Backward<T>& args = *job.args;
  parallel_for(threads, job.cut.tiles(), [&](int64_t index) {
    const Words<C> d;
    const s6::Tile tile = job.cut.tile(index);
    if (parts == 0) clear_sums(job, tile, sums, 0, channels);  // no rows: the sums are 0
    const auto add_up = [&](C* first, int64_t count, int64_t stride) {
      for (int64_t i = 0; i < count; i += kLanes<C>) {
        auto sum = hn::Load(d, first + i);
        for (int64_t p = 1; p < parts; ++p) sum = hn::Add(sum, hn::Load(d, first + p * stride + i));
        hn::Store(sum, d, first + i);
      }
    };
    for (int64_t w = 0; w < tile.words; ++w) {
      const Lane lane = lane_of<T>(tile, w);
      const int64_t word = tile.word + w;
      if (args.dA != nullptr) {
        C* dA = sums.dA + word * job.word_size();
        add_up(dA, job.word_size(), channels * job.states);
        put_decay_gradients(job, lane, dA);
      }
      const auto put_channels = [&](C* partial, C* to) {
        if (to == nullptr) return;
        const auto count = static_cast<size_t>(lane.count);
        add_up(partial + word * kLanes<C>, kLanes<C>, channels);
        auto sum = hn::Load(d, partial + word * kLanes<C>);
        if (args.accumulate) sum = hn::Add(load_n(d, to + lane.channel, count), sum);
        store_n(sum, d, to + lane.channel, count);
      };
      put_channels(sums.dD, args.dD);
      put_channels(sums.ddt_bias, args.ddt_bias);
    }
  });
}

/// Carves what both cuts need; `parts` sets of partial sums.
template <class T>
BackwardJob<T> carve_backward(const S6Shape& shape, const S6Backward<T>& args, Exec* exec,
                              int64_t parts, PartialSums<accumulate_t<T>>* sums) {
  using C = accumulate_t<T>;
  const int64_t channels = s6::padded_channels<C>(shape);
  const int64_t states = s6::padded_states(shape.state);
  const s6::Cut cut(shape, kLanes<C>);
  BackwardJob<T> job{&shape,  &args,  cut, states, exec->carve<C>(channels * states),
                     nullptr, nullptr};
  job.dB = exec->carve<C>(cut.group_tiles() * job.rows_size());
  job.dC = exec->carve<C>(cut.group_tiles() * job.rows_size());
  parts = HWY_MAX(parts, int64_t{1});
  *sums = {exec->carve<C>(parts * channels * states), exec->carve<C>(parts * channels),
           exec->carve<C>(parts * channels)};
  return job;
}

/// Every sequence from its last token to its first. `segment_back(job, segment, tile, mu, sums)`
/// gives the gradients of a segment's tokens; rate_words as in scale_decay_rates.
template <class T, class SegmentBack>
void backward_whole_sequences(const S6Shape& shape, const S6Backward<T>& args, Exec exec,
                              int64_t rate_words, const SegmentBack& segment_back) {
  using C = accumulate_t<T>;
  auto* segments = exec.carve<s6::Segment>(s6::max_segments(shape, s6::kWholeSequence));
  const int64_t count = s6::list_segments(shape, args.in.cu_seqlens, s6::kWholeSequence, segments);
  const int64_t bundles = HWY_MIN(count, s6::kMaxBundles);
  const int64_t channels = s6::padded_channels<C>(shape);
  PartialSums<C> sums;
  const BackwardJob<T> job = carve_backward(shape, args, &exec, bundles, &sums);
  C* mu = exec.carve<C>(bundles * channels * job.states);
  scale_decay_rates(shape, job.cut, args.in.A, rate_words, exec.threads, job.a2);
  const int64_t tiles = job.cut.tiles();
  parallel_for(exec.threads, bundles * tiles, [&](int64_t item) {
    const FlushSubnormals flush;
    const int64_t bundle = item / tiles;
    const s6::Tile tile = job.cut.tile(item % tiles);
    const PartialSums<C> own = clear_sums(job, tile, sums, bundle, channels);
    C* own_mu = mu + bundle * channels * job.states + tile.word * job.word_size();
    const int64_t end = s6::first_of_bundle(bundle + 1, bundles, count);
    for (int64_t i = s6::first_of_bundle(bundle, bundles, count); i < end; ++i) {
      load_final_gradient(job, segments[i].row, tile, own_mu);
      segment_back(job, segments[i], tile, own_mu, own);
      store_entering_gradient(job, segments[i].row, tile, own_mu);
    }
  });
  sum_tiles(job, args.dB, job.dB, exec.threads);
  sum_tiles(job, args.dC, job.dC, exec.threads);
  sum_bundles(job, sums, bundles, channels, exec.threads);
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
