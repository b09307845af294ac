// The chunked forward pass (math.md 4.3), once per SIMD target. Per chunk and head, with rise,
// fall and weight of ChunkDecays, X_w the rows weight_j x_j and H the entering state:
//
//   mild   y_i = rise_i (sum_{j<=i} (C_i . B_j) X_w_j + e^cs_last H C_i) + D x_i
//   steep  y_i = sum_{j<=i} (C_i . B_j) e^(cs_i - cs_j) delta_j x_j + e^cs_i H C_i + D x_i
//   both   H' = e^cs_last H + sum_j X_w_j B_j^T
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
  const ssd::Chunk* chunks;
  int64_t chunk_count;
  C* states;  // entering states: args.saved, or scratch of the same layout, or one a row
  bool one_state_a_row;
  C* last_added;  // (state_rows, state_elements): what the last chunks add, for hT
  C* whole;       // (chunks, heads): e^cs_last

  int64_t state_size() const { return shape.head_dim * shape.state; }
  C* entering(const ssd::Chunk& chunk, int64_t head) const {
    const int64_t at = one_state_a_row ? chunk.row : chunk.saved;
    return states + (at * shape.heads + head) * state_size();
  }
  /// Where what this chunk adds to the state is kept until the pass over chunks.
  C* added(const ssd::Chunk& chunk, int64_t head) const {
    if (chunk.last) return last_added + (chunk.row * shape.heads + head) * state_size();
    return states + ((chunk.saved + 1) * shape.heads + head) * state_size();
  }
  C* slot(C* base, int64_t row, int64_t head) const {
    const int64_t slot = args.in.state_index != nullptr ? args.in.state_index[row] : row;
    return base + (slot * shape.heads + head) * state_size();
  }
  const C* h0(int64_t row, int64_t head) const {
    return slot(const_cast<C*>(args.in.h0), row, head);
  }
  bool enters_zero(const ssd::Chunk& chunk) const { return chunk.first && args.in.h0 == nullptr; }
  /// Does anybody want the state that leaves the chunk?
  bool passes_on(const ssd::Chunk& chunk) const { return !chunk.last || args.hT != nullptr; }
  ChunkPlace place(const ssd::Chunk& chunk, int64_t group) const {
    return {chunk, group, args.in.order};
  }
};

/// One chunk of one group on one worker.
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
  void begin_head(int64_t head_in_group) {
    head_ = place_.group * job_.sizes.group_heads + head_in_group;
    find_decays(space_.steps, head_in_group, count_, job_.sizes, &space_.decays);
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

  /// added (head_dim, state) = sum_j X_w_j B_j^T.
  void add_inputs() {
    const ssd::ChunkSizes& sizes = job_.sizes;
    const Left x = job_.tiles.left_t(channels_of(space_.x), space_.x_left);
    job_.tiles.product(
        {.data = space_.added, .row = sizes.state_row, .rows = sizes.head_dim, .cols = sizes.state},
        {x, B_, count_});
  }

  /// y of the head; entering == nullptr: a zero state. Comes after add_inputs: a steep chunk takes
  /// the place of X_w.
  void write_outputs(const C* entering) {
    if (space_.decays.mild) {
      multiply_outputs(scores_, C_, entering);
      finish_rows(space_.decays.rise);
      return;
    }
    const ssd::ChunkSizes& sizes = job_.sizes;
    form_decays<C>(space_.decays, place_, space_.scores, sizes.token_row, nullptr, space_.masked);
    load_rows<C>(place_, job_.args.in.x, head_ * sizes.head_dim, sizes.head_dim,
                 space_.decays.delta, space_.x, sizes.channel_row);
    scale_rows(space_.C_rows, count_, sizes.state, sizes.state_row, space_.decays.rise,
               space_.C_scaled);
    multiply_outputs(job_.tiles.left(square_of(space_.masked), space_.masked_left),
                     job_.tiles.left(rows_of(space_.C_scaled), space_.C_scaled_left), entering);
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

  void multiply_outputs(const Left& scores, const Left& C_rows, const C* entering) {
    const ssd::ChunkSizes& sizes = job_.sizes;
    const Right x = job_.tiles.right(channels_of(space_.x), space_.x_right);
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

/// next = whole entering + added, (head_dim, state) each; entering == nullptr: zero.
template <class C>
void pass_state(const C* entering, C whole, const C* added, int64_t added_row, int64_t rows,
                int64_t cols, C* next) {
  const Words<C> d;
  const int64_t lanes = lanes_of<C>();
  const auto factor = hn::Set(d, whole);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; c += lanes) {
      const auto n = static_cast<size_t>(std::min(lanes, cols - c));
      auto sum = load_n(d, added + r * added_row + c, n);
      if (entering != nullptr) {
        sum = hn::MulAdd(factor, load_n(d, entering + r * cols + c, n), sum);
      }
      store_n(sum, d, next + r * cols + c, n);
    }
  }
}

template <class C>
void copy_state(const C* from, int64_t size, C* to) {
  if (from == nullptr) {
    std::fill_n(to, size, C(0));
  } else if (from != to) {
    std::memmove(to, from, static_cast<size_t>(size) * sizeof(C));
  }
}

/// A sequence without tokens: hT = h0.
template <class T, class Tiles>
void pass_empty_sequence(const ForwardJob<T, Tiles>& job, const ssd::Chunk& chunk, int64_t head) {
  if (job.args.hT == nullptr) return;
  copy_state(job.args.in.h0 != nullptr ? job.h0(chunk.row, head) : nullptr, job.state_size(),
             job.slot(job.args.hT, chunk.row, head));
}

/// The chunks of a row in order, all heads of a group.
template <class T, class Tiles>
void walk_chunk(const ForwardJob<T, Tiles>& job, const ssd::Chunk& chunk, int64_t group,
                ssd::ForwardSpace<accumulate_t<T>>& space) {
  using C = accumulate_t<T>;
  const int64_t heads = job.sizes.group_heads, first = group * heads;
  ForwardChunk<T, Tiles> work(job, job.place(chunk, group), space);
  if (job.passes_on(chunk)) work.prepare_states();
  work.prepare_outputs();
  for (int64_t head = first; head < first + heads; ++head) {
    C* entering = job.entering(chunk, head);
    if (chunk.first) {
      copy_state(job.args.in.h0 != nullptr ? job.h0(chunk.row, head) : nullptr, job.state_size(),
                 entering);
    }
    const C* state = job.enters_zero(chunk) ? nullptr : entering;
    work.begin_head(head - first);
    if (job.passes_on(chunk)) work.add_inputs();
    work.write_outputs(state);
    if (!job.passes_on(chunk)) continue;
    C* next = chunk.last ? job.slot(job.args.hT, chunk.row, head)
              : job.one_state_a_row
                  ? entering
                  : job.states + ((chunk.saved + 1) * job.shape.heads + head) * job.state_size();
    pass_state(state, work.whole(), space.added, job.sizes.state_row, job.shape.head_dim,
               job.shape.state, next);
  }
}

template <class T, class Tiles>
void walk_row(const ForwardJob<T, Tiles>& job, int64_t row, int64_t group,
              ssd::ForwardSpace<accumulate_t<T>>& space) {
  const int64_t chunks = job.chunk_count / job.shape.batch;
  for (int64_t i = 0; i < chunks; ++i) {
    const ssd::Chunk& chunk = job.chunks[row * chunks + i];
    if (chunk.count() > 0) walk_chunk(job, chunk, group, space);
  }
}

/// What the chunk adds to the state, of all heads of a group; the first pass of the schedule.
template <class T, class Tiles>
void add_chunk(const ForwardJob<T, Tiles>& job, int64_t index, int64_t group,
               ssd::ForwardSpace<accumulate_t<T>>& space) {
  using C = accumulate_t<T>;
  const ssd::Chunk& chunk = job.chunks[index];
  if (chunk.count() == 0 || !job.passes_on(chunk)) return;
  const int64_t heads = job.sizes.group_heads, first = group * heads;
  ForwardChunk<T, Tiles> work(job, job.place(chunk, group), space);
  work.prepare_states();
  for (int64_t head = first; head < first + heads; ++head) {
    work.begin_head(head - first);
    work.add_inputs();
    job.whole[index * job.shape.heads + head] = work.whole();
    pass_state<C>(nullptr, 0, space.added, job.sizes.state_row, job.shape.head_dim, job.shape.state,
                  job.added(chunk, head));
  }
}

/// The pass over the chunks of a sequence that begins at chunks[index], one head.
template <class T, class Tiles>
void pass_sequence(const ForwardJob<T, Tiles>& job, int64_t index, int64_t head) {
  using C = accumulate_t<T>;
  if (job.chunks[index].count() == 0) return pass_empty_sequence(job, job.chunks[index], head);
  copy_state(job.args.in.h0 != nullptr ? job.h0(job.chunks[index].row, head) : nullptr,
             job.state_size(), job.entering(job.chunks[index], head));
  for (;; ++index) {
    const ssd::Chunk& chunk = job.chunks[index];
    if (!job.passes_on(chunk)) return;
    const C* entering = job.enters_zero(chunk) ? nullptr : job.entering(chunk, head);
    C* next = chunk.last ? job.slot(job.args.hT, chunk.row, head) : job.added(chunk, head);
    pass_state(entering, job.whole[index * job.shape.heads + head], job.added(chunk, head),
               job.shape.state, job.shape.head_dim, job.shape.state, next);
    if (chunk.last) return;
  }
}

/// y of one chunk and group; the last pass of the schedule.
template <class T, class Tiles>
void output_chunk(const ForwardJob<T, Tiles>& job, int64_t index, int64_t group,
                  ssd::ForwardSpace<accumulate_t<T>>& space) {
  const ssd::Chunk& chunk = job.chunks[index];
  if (chunk.count() == 0) return;
  const int64_t heads = job.sizes.group_heads, first = group * heads;
  ForwardChunk<T, Tiles> work(job, job.place(chunk, group), space);
  work.prepare_outputs();
  for (int64_t head = first; head < first + heads; ++head) {
    work.begin_head(head - first);
    work.write_outputs(job.enters_zero(chunk) ? nullptr : job.entering(chunk, head));
  }
}

template <class T, class Tiles>
void chunked_forward(const SsdShape& shape, const SsdForward<T>& args, Exec exec, Tiles tiles) {
  using C = accumulate_t<T>;
  const ssd::ForwardScratch<T> scratch(shape, exec.scratch);
  const int64_t count = ssd::list_chunks(shape, args.in.cu_seqlens, scratch.chunks);
  const bool walks = ssd::chunk_walks(shape);
  const ForwardJob<T, Tiles> job{shape,
                                 args,
                                 tiles,
                                 ssd::ChunkSizes(shape),
                                 scratch.chunks,
                                 count,
                                 args.saved != nullptr ? args.saved : scratch.states,
                                 walks && args.saved == nullptr,
                                 scratch.last_added,
                                 scratch.whole};
  const int threads = std::min(exec.threads, scratch.workers);
  const int64_t groups = shape.groups;
  if (shape.len == 0) {
    for (int64_t i = 0; i < count * shape.heads; ++i) {
      pass_empty_sequence(job, scratch.chunks[i / shape.heads], i % shape.heads);
    }
    return;
  }
  if (walks) {
    parallel_for_workers(threads, shape.batch * groups, [&](int64_t item, int worker) {
      const typename Tiles::Session session(job.tiles);
      ssd::ForwardSpace<C> space = scratch.space(job.sizes, worker);
      walk_row(job, item / groups, item % groups, space);
    });
    return;
  }
  parallel_for_workers(threads, count * groups, [&](int64_t item, int worker) {
    const typename Tiles::Session session(job.tiles);
    ssd::ForwardSpace<C> space = scratch.space(job.sizes, worker);
    add_chunk(job, item / groups, item % groups, space);
  });
  parallel_for(threads, count * shape.heads, [&](int64_t item) {
    const FlushSubnormals flush;
    const int64_t index = item / shape.heads;
    if (job.chunks[index].first) pass_sequence(job, index, item % shape.heads);
  });
  parallel_for_workers(threads, count * groups, [&](int64_t item, int worker) {
    const typename Tiles::Session session(job.tiles);
    ssd::ForwardSpace<C> space = scratch.space(job.sizes, worker);
    output_chunk(job, item / groups, item % groups, space);
  });
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
