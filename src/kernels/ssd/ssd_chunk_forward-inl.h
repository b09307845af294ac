// The chunked forward pass (math.md 4.3), once per SIMD target. Per chunk and head, with rise,
// fall and weight of ChunkDecays, X_w the rows weight_j x_j and H the entering state:
//
//   mild   y_i = rise_i (sum_{j<=i} (C_i . B_j) X_w_j + e^mid H C_i) + D x_i
//   steep  y_i = sum_{j<=i} (C_i . B_j) e^(cs_i - cs_j) delta_j x_j + e^cs_i H C_i + D x_i
//   both   H' = e^cs_last H + leaving sum_j X_w_j B_j^T
//
// C_i . B_j is formed once for all heads of a group.

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_SSD_CHUNK_FORWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_SSD_CHUNK_FORWARD_INL_H_
#undef ADDER_SSD_CHUNK_FORWARD_INL_H_
#else
#define ADDER_SSD_CHUNK_FORWARD_INL_H_
#endif

#include <hwy/highway.h>

#include "core/threads.h"
#include "kernels/ssd/ssd_chunk_rows-inl.h"
#include "kernels/ssd/ssd_chunk_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

/// One call: what every item reads.
template <class T, class Tiles>
struct ForwardJob {
  using C = accumulate_t<T>;
  const SsdShape& shape;
  const SsdForward<T>& args;
  Tiles tiles;
  ssd::ChunkSizes sizes;
  const ssd::ForwardScratch<T>& scratch;
  bool walks;

  int64_t state_size() const { return shape.head_dim * shape.state; }
  /// The state that enters a chunk. It lies in `saved` where backward needs it, else in scratch,
  /// where a walk has one state a row.
  C* entering(const ssd::Chunk& chunk, int64_t head) const {
    if (args.saved == nullptr && walks) return state_at(scratch.states, chunk.row, head);
    return state_at(args.saved != nullptr ? args.saved : scratch.states, chunk.saved, head);
  }
  /// The state that enters the next chunk. In a split it first holds the sum that this chunk adds.
  C* leaving(const ssd::Chunk& chunk, int64_t head) const {
    if (args.saved == nullptr && walks) return entering(chunk, head);
    return entering(chunk, head) + shape.state_elements();
  }
  C* added(const ssd::Chunk& chunk, int64_t head) const {
    return chunk.last ? state_at(scratch.last_added, chunk.row, head) : leaving(chunk, head);
  }
  C* hT(int64_t row, int64_t head) const { return state_at(args.hT, slot(row), head); }
  const C* h0(int64_t row, int64_t head) const {
    return args.in.h0 == nullptr ? nullptr : state_at(args.in.h0, slot(row), head);
  }
  bool enters_zero(const ssd::Chunk& chunk) const { return chunk.first && args.in.h0 == nullptr; }
  /// True where the state that leaves the chunk is needed.
  bool passes_on(const ssd::Chunk& chunk) const { return !chunk.last || args.hT != nullptr; }

 private:
  int64_t slot(int64_t row) const {
    return args.in.state_index != nullptr ? args.in.state_index[row] : row;
  }
  template <class U>
  U* state_at(U* base, int64_t index, int64_t head) const {
    return base + (index * shape.heads + head) * state_size();
  }
};

/// One chunk of one block of heads on one worker.
template <class T, class Tiles>
class ForwardChunk {
 public:
  using C = accumulate_t<T>;
  using Left = typename Tiles::Left;
  using Right = typename Tiles::Right;

  ForwardChunk(const ForwardJob<T, Tiles>& job, const ChunkPlace& place,
               ssd::ForwardSpace<C>& space)
      : job_(job), place_(place), space_(space), count_(place.count()) {
    find_steps(job.shape, job.args.in, place, job.sizes, space.steps);
    const int64_t channel = place.group * job.sizes.state;
    load_rows<C>(place, job.args.in.B, channel, job.sizes.state, nullptr, space.B,
                 job.sizes.state_row);
  }

  void prepare_states() { B_ = job_.tiles.right(rows_of(space_.B), space_.B_right); }
  void prepare_outputs() {
    const ssd::ChunkSizes& sizes = job_.sizes;
    load_rows<C>(place_, job_.args.in.C, place_.group * sizes.state, sizes.state, nullptr,
                 space_.C_rows, sizes.state_row);
    C_ = job_.tiles.left(rows_of(space_.C_rows), space_.C_left);
    const Right B_t = job_.tiles.right_t(rows_of(space_.B), space_.B_t);
    job_.tiles.product({.data = space_.scores,
                        .row = sizes.token_row,
                        .rows = count_,
                        .cols = count_,
                        .lower = true},
                       {C_, B_t, sizes.state});
    clear_above_diagonal(place_, space_.scores, sizes.token_row);
    scores_ = job_.tiles.left(square_of(space_.scores), space_.scores_left);
  }

  /// Decays and X_w: before outputs or states of the head.
  void begin_head(int64_t head) {
    head_ = head;
    find_decays(space_.steps, head - place_.first_head, count_, job_.sizes, &space_.decays);
    const int64_t channel = head_ * job_.sizes.head_dim;
    load_rows<C>(place_, job_.args.in.x, channel, job_.sizes.head_dim, space_.decays.weight,
                 space_.x, job_.sizes.channel_row);
    // Rows of one head lie far apart: no prefetcher of the machine finds them.
    for (int64_t t = 0; t < count_; ++t) {
      prefetch_row<0>(place_.row(job_.args.in.x, t, channel + job_.sizes.head_dim),
                      job_.sizes.head_dim);
    }
  }
  C whole() const { return space_.decays.whole; }

  /// to = whole from + leaving sum_j X_w_j B_j^T, (head_dim, state) each; from == nullptr: zero.
  void update(const C* from, C* to) {
    const ssd::ChunkSizes& sizes = job_.sizes;
    const Left x = job_.tiles.left_t(channels_of(space_.x), space_.x_left);
    job_.tiles.update({.to = to,
                       .from = from,
                       .row = sizes.state,
                       .rows = sizes.head_dim,
                       .cols = sizes.state,
                       .whole = space_.decays.whole,
                       .scale = space_.decays.leaving},
                      {x, B_, count_}, space_.added, sizes.state_row);
  }

  /// y of the head; entering == nullptr: a zero state.
  void write_outputs(const C* entering) {
    if (space_.decays.mild) {
      multiply_outputs(scores_, C_, space_.x, entering);
      finish_rows(space_.decays.rise);
      return;
    }
    const ssd::ChunkSizes& sizes = job_.sizes;
    form_decays<C>(space_.decays, place_, space_.scores, sizes.token_row, nullptr, space_.masked);
    load_rows<C>(place_, job_.args.in.x, head_ * sizes.head_dim, sizes.head_dim,
                 space_.decays.delta, space_.x_steep, sizes.channel_row);
    scale_rows(space_.C_rows, count_, sizes.state, sizes.state_row, space_.decays.rise,
               space_.C_scaled);
    multiply_outputs(job_.tiles.left(square_of(space_.masked), space_.masked_left),
                     job_.tiles.left(rows_of(space_.C_scaled), space_.C_scaled_left),
                     space_.x_steep, entering);
    finish_rows(nullptr);
  }

 private:
  Matrix<C> rows_of(const C* data) const {
    return {data, job_.sizes.state_row, count_, job_.sizes.state};
  }
  Matrix<C> channels_of(const C* data) const {
    return {data, job_.sizes.channel_row, count_, job_.sizes.head_dim};
  }
  Matrix<C> square_of(const C* data) const { return {data, job_.sizes.token_row, count_, count_}; }

  void multiply_outputs(const Left& scores, const Left& C_rows, const C* inputs,
                        const C* entering) {
    const ssd::ChunkSizes& sizes = job_.sizes;
    const Right x = job_.tiles.right(channels_of(inputs), space_.x_right);
    const typename Tiles::Out out{
        .data = space_.y, .row = sizes.channel_row, .rows = count_, .cols = sizes.head_dim};
    const typename Tiles::Term inside{scores, x, count_, Reach::lower};
    if (entering == nullptr) return job_.tiles.product(out, inside);
    const Right state = job_.tiles.right_t({entering, sizes.state, sizes.head_dim, sizes.state},
                                           space_.entering, space_.decays.entering);
    job_.tiles.product(out, inside, {C_rows, state, sizes.state});
  }

  /// y = scale_i Y_i + D x_i, gated, rounded.
  void finish_rows(const C* scale) {
    const Words<C> d;
    const ssd::ChunkSizes& sizes = job_.sizes;
    const SsdInputs<T>& in = job_.args.in;
    const int64_t first = head_ * sizes.head_dim, lanes = lanes_of<C>();
    for (int64_t t = 0; t < count_; ++t) {
      const C* from = space_.y + t * sizes.channel_row;
      const T* x = place_.row(in.x, t, first);
      const T* z = in.z ? place_.row(in.z, t, first) : nullptr;
      T* to = place_.row(job_.args.y, t, first);
      const auto factor = hn::Set(d, scale != nullptr ? scale[t] : C(1));
      for (int64_t c = 0; c < sizes.head_dim; c += lanes) {
        const auto n = static_cast<size_t>(std::min(lanes, sizes.head_dim - c));
        auto y = hn::Mul(factor, hn::LoadU(d, from + c));
        if (in.D != nullptr) y = hn::MulAdd(skip_word(c, n), load_n(d, x + c, n), y);
        if (z != nullptr) y = hn::Mul(y, silu_word(d, load_n(d, z + c, n)));
        store_n(y, d, to + c, n);
      }
    }
  }
  HWY_INLINE V<Words<C>> skip_word(int64_t c, size_t n) const {
    const Words<C> d;
    const C* D = job_.args.in.D;
    if (!job_.shape.d_per_channel) return hn::Set(d, D[head_]);
    return load_n(d, D + head_ * job_.sizes.head_dim + c, n);
  }

  const ForwardJob<T, Tiles>& job_;
  ChunkPlace place_;
  ssd::ForwardSpace<C>& space_;
  int64_t count_;
  int64_t head_ = 0;
  Left C_, scores_;
  Right B_;
};

template <class C>
void copy_state(const C* from, int64_t size, C* to) {
  if (from == nullptr) {
    std::fill_n(to, size, C(0));
  } else if (from != to) {
    std::copy_n(from, size, to);
  }
}

/// A chunk of a walk.
template <class T, class Tiles>
void walk_chunk(const ForwardJob<T, Tiles>& job, const ChunkPlace& place,
                ssd::ForwardSpace<accumulate_t<T>>& space) {
  using C = accumulate_t<T>;
  const ssd::Chunk& chunk = place.chunk;
  ForwardChunk<T, Tiles> work(job, place, space);
  if (job.passes_on(chunk)) work.prepare_states();
  work.prepare_outputs();
  for (int64_t head = place.first_head; head < place.first_head + place.heads; ++head) {
    C* entering = job.entering(chunk, head);
    if (chunk.first) copy_state(job.h0(chunk.row, head), job.state_size(), entering);
    const C* state = job.enters_zero(chunk) ? nullptr : entering;
    work.begin_head(head);
    work.write_outputs(state);
    if (job.passes_on(chunk)) {
      work.update(state, chunk.last ? job.hT(chunk.row, head) : job.leaving(chunk, head));
    }
  }
}

/// First pass of a split: finds the sums that the chunk adds to the states.
template <class T, class Tiles>
void add_chunk(const ForwardJob<T, Tiles>& job, int64_t index, const ChunkPlace& place,
               ssd::ForwardSpace<accumulate_t<T>>& space) {
  if (!job.passes_on(place.chunk)) return;
  ForwardChunk<T, Tiles> work(job, place, space);
  work.prepare_states();
  for (int64_t head = place.first_head; head < place.first_head + place.heads; ++head) {
    work.begin_head(head);
    work.update(nullptr, job.added(place.chunk, head));
    job.scratch.whole[index * job.shape.heads + head] = work.whole();
  }
}

/// Second pass: takes the states of one head over the chunks [begin, end) of a sequence.
template <class T, class Tiles>
void pass_sequence(const ForwardJob<T, Tiles>& job, int64_t begin, int64_t end, int64_t head) {
  using C = accumulate_t<T>;
  const ssd::Chunk* chunks = job.scratch.list.chunks;
  const int64_t row = chunks[begin].row;
  copy_state(job.h0(row, head), job.state_size(), job.entering(chunks[begin], head));
  for (int64_t index = begin; index < end && job.passes_on(chunks[index]); ++index) {
    const ssd::Chunk& chunk = chunks[index];
    const C* added = job.added(chunk, head);
    update_state<C>({.to = chunk.last ? job.hT(row, head) : job.leaving(chunk, head),
                     .from = job.enters_zero(chunk) ? nullptr : job.entering(chunk, head),
                     .row = job.shape.state,
                     .rows = job.shape.head_dim,
                     .cols = job.shape.state,
                     .whole = job.scratch.whole[index * job.shape.heads + head],
                     .scale = 1},
                    added, job.shape.state);
  }
}

/// Third pass: writes y of one chunk.
template <class T, class Tiles>
void output_chunk(const ForwardJob<T, Tiles>& job, const ChunkPlace& place,
                  ssd::ForwardSpace<accumulate_t<T>>& space) {
  ForwardChunk<T, Tiles> work(job, place, space);
  work.prepare_outputs();
  for (int64_t head = place.first_head; head < place.first_head + place.heads; ++head) {
    work.begin_head(head);
    work.write_outputs(job.enters_zero(place.chunk) ? nullptr : job.entering(place.chunk, head));
  }
}

/// Sequences without tokens: hT = h0.
template <class T, class Tiles>
void pass_empty_sequences(const ForwardJob<T, Tiles>& job) {
  const ssd::ChunkList& list = job.scratch.list;
  for (int64_t i = 0; job.args.hT != nullptr && i < list.count; ++i) {
    const int64_t row = list.chunks[i].row;
    for (int64_t head = 0; list.chunks[i].count() == 0 && head < job.shape.heads; ++head) {
      copy_state(job.h0(row, head), job.state_size(), job.hT(row, head));
    }
  }
}

template <class T, class Tiles>
void split_forward(const ForwardJob<T, Tiles>& job, int threads) {
  using C = accumulate_t<T>;
  const ssd::ChunkList& list = job.scratch.list;
  const int64_t blocks = ssd::HeadBlocks(job.shape).count;
  const auto each_chunk = [&](auto pass) {
    parallel_for_workers(threads, list.count * blocks, [&](int64_t item, int worker) {
      const typename Tiles::Session session(job.tiles);
      const ssd::Chunk& chunk = list.chunks[item / blocks];
      if (chunk.count() == 0) return;
      ssd::ForwardSpace<C> space = job.scratch.workers.of(worker);
      pass(item / blocks, place_of(job.shape, job.args.in.order, chunk, item % blocks), space);
    });
  };
  each_chunk([&](int64_t index, const ChunkPlace& place, ssd::ForwardSpace<C>& space) {
    add_chunk(job, index, place, space);
  });
  parallel_for(threads, job.shape.state_rows() * job.shape.heads, [&](int64_t item) {
    const FlushSubnormals flush;
    const int64_t row = item / job.shape.heads;
    if (list.chunks[list.first[row]].count() == 0) return;
    pass_sequence(job, list.first[row], list.first[row + 1], item % job.shape.heads);
  });
  each_chunk([&](int64_t, const ChunkPlace& place, ssd::ForwardSpace<C>& space) {
    output_chunk(job, place, space);
  });
}

template <class T, class Tiles>
void walk_forward(const ForwardJob<T, Tiles>& job, int threads) {
  using C = accumulate_t<T>;
  const ssd::ChunkList& list = job.scratch.list;
  const int64_t blocks = ssd::HeadBlocks(job.shape).count;
  parallel_for_workers(threads, job.shape.state_rows() * blocks, [&](int64_t item, int worker) {
    const typename Tiles::Session session(job.tiles);
    ssd::ForwardSpace<C> space = job.scratch.workers.of(worker);
    const int64_t row = item / blocks;
    for (int64_t index = list.first[row]; index < list.first[row + 1]; ++index) {
      const ssd::Chunk& chunk = list.chunks[index];
      if (chunk.count() == 0) continue;
      walk_chunk(job, place_of(job.shape, job.args.in.order, chunk, item % blocks), space);
    }
  });
}

template <class T, class Tiles>
void chunked_forward(const SsdShape& shape, const SsdForward<T>& args, Exec exec, Tiles tiles) {
  ssd::ForwardScratch<T> scratch(shape, exec.scratch);
  scratch.list.fill(shape, args.in.cu_seqlens);
  const int threads = std::min(exec.threads, ssd::chunk_workers());
  const bool walks = ssd::chunk_walks(shape, threads);
  const ForwardJob<T, Tiles> job{shape, args, tiles, ssd::ChunkSizes(shape), scratch, walks};
  pass_empty_sequences(job);
  if (shape.len == 0) return;
  if (walks) {
    walk_forward(job, threads);
  } else {
    split_forward(job, threads);
  }
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
