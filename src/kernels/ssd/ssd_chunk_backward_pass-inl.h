// The chunked backward pass over all chunks: walked from the last chunk of a row to its first, or
// in three passes (ssd_chunk_plan.h); then the sums over chunks, in index order.

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_SSD_CHUNK_BACKWARD_PASS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_SSD_CHUNK_BACKWARD_PASS_INL_H_
#undef ADDER_SSD_CHUNK_BACKWARD_PASS_INL_H_
#else
#define ADDER_SSD_CHUNK_BACKWARD_PASS_INL_H_
#endif

#include <hwy/highway.h>

#include "core/threads.h"
#include "kernels/ssd/ssd_chunk_backward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

/// out = whole leaving + scale added, (head_dim, state_row) each; leaving == nullptr: zero.
template <class C>
void pass_gradient(const C* leaving, C whole, const C* added, C scale, int64_t size, C* out) {
  const Words<C> d;
  const auto factor = hn::Set(d, whole), own = hn::Set(d, scale);
  for (int64_t i = 0; i < size; i += lanes_of<C>()) {
    auto sum = hn::Mul(own, hn::LoadU(d, added + i));
    if (leaving != nullptr) sum = hn::MulAdd(factor, hn::LoadU(d, leaving + i), sum);
    hn::StoreU(sum, d, out + i);
  }
}

/// ghT (head_dim, state) into rows of scratch; zeros to the end of the last word.
template <class T, class Tiles>
void load_leaving(const BackwardJob<T, Tiles>& job, int64_t row, int64_t head,
                  accumulate_t<T>* to) {
  using C = accumulate_t<T>;
  const C* from = job.args.ghT + (row * job.shape.heads + head) * job.state_size();
  for (int64_t p = 0; p < job.shape.head_dim; ++p) {
    std::fill_n(to + p * job.sizes.state_row, job.sizes.states, C(0));
    std::copy_n(from + p * job.shape.state, job.shape.state, to + p * job.sizes.state_row);
  }
}
template <class T, class Tiles>
void store_entering(const BackwardJob<T, Tiles>& job, int64_t row, int64_t head,
                    const accumulate_t<T>* from) {
  accumulate_t<T>* to = job.args.dh0 + (row * job.shape.heads + head) * job.state_size();
  for (int64_t p = 0; p < job.shape.head_dim; ++p) {
    std::copy_n(from + p * job.sizes.state_row, job.shape.state, to + p * job.shape.state);
  }
}
/// A sequence without tokens: dh0 = ghT.
template <class T, class Tiles>
void pass_empty_gradient(const BackwardJob<T, Tiles>& job, int64_t row) {
  if (job.args.dh0 == nullptr) return;
  const int64_t size = job.shape.state_elements();
  if (job.args.ghT == nullptr) {
    std::fill_n(job.args.dh0 + row * size, size, accumulate_t<T>(0));
  } else {
    std::copy_n(job.args.ghT + row * size, size, job.args.dh0 + row * size);
  }
}

template <class T, class Tiles>
void walk_chunk_back(const BackwardJob<T, Tiles>& job, int64_t index, int64_t group,
                     ssd::BackwardSpace<accumulate_t<T>>& space) {
  using C = accumulate_t<T>;
  const ssd::Chunk& chunk = job.chunk(index);
  const int64_t heads = job.sizes.group_heads, first = group * heads;
  const int64_t size = job.shape.head_dim * job.sizes.state_row;
  BackwardChunk<T, Tiles> work(job, index, group, space);
  if (job.passes_on(chunk)) work.prepare_states();
  work.prepare_gradients();
  for (int64_t head = first; head < first + heads; ++head) {
    C* gradient = job.gradient(chunk.row, head);
    if (chunk.last && !job.leaves_zero(chunk)) load_leaving(job, chunk.row, head, gradient);
    const C* leaving = job.leaves_zero(chunk) ? nullptr : gradient;
    work.begin_head(head - first);
    if (job.passes_on(chunk)) work.add_outputs();
    work.head_gradients(job.enters_zero(chunk) ? nullptr : job.entering(chunk, head), leaving);
    if (!job.passes_on(chunk)) continue;
    pass_gradient(leaving, work.whole(), space.added, work.added_scale(), size, gradient);
    if (chunk.first) store_entering(job, chunk.row, head, gradient);
  }
  work.finish_group();
}

/// The first pass of the schedule: what each chunk adds to the gradient of its entering state.
template <class T, class Tiles>
void add_chunk_back(const BackwardJob<T, Tiles>& job, int64_t index, int64_t group,
                    ssd::BackwardSpace<accumulate_t<T>>& space) {
  using C = accumulate_t<T>;
  if (job.chunk(index).count() == 0 || !job.passes_on(job.chunk(index))) return;
  const int64_t heads = job.sizes.group_heads, first = group * heads;
  BackwardChunk<T, Tiles> work(job, index, group, space);
  work.prepare_states();
  for (int64_t head = first; head < first + heads; ++head) {
    work.begin_head(head - first);
    work.add_outputs();
    job.scratch.whole[index * job.shape.heads + head] = work.whole();
    pass_gradient<C>(nullptr, 0, space.added, work.added_scale(),
                     job.shape.head_dim * job.sizes.state_row, job.gradient(index, head));
  }
}

/// The second pass, one head of the sequence whose last chunk is `index`: in place of what a chunk
/// adds, the gradient of the state that leaves it.
template <class T, class Tiles>
void pass_sequence_back(const BackwardJob<T, Tiles>& job, int64_t index, int64_t head,
                        accumulate_t<T>* carried) {
  using C = accumulate_t<T>;
  const int64_t size = job.shape.head_dim * job.sizes.state_row, heads = job.shape.heads;
  const ssd::Chunk& tail = job.chunk(index);
  if (job.args.ghT != nullptr) {
    load_leaving(job, tail.row, head, carried);
  } else {
    std::fill_n(carried, size, C(0));
  }
  const Words<C> d;
  for (;; --index) {
    const ssd::Chunk& chunk = job.chunk(index);
    C* gradient = job.gradient(index, head);
    const bool adds = job.passes_on(chunk);
    const auto factor = hn::Set(d, adds ? job.scratch.whole[index * heads + head] : C(0));
    for (int64_t i = 0; i < size; i += lanes_of<C>()) {
      const auto leaving = hn::LoadU(d, carried + i);
      if (adds) {
        hn::StoreU(hn::MulAdd(factor, leaving, hn::LoadU(d, gradient + i)), d, carried + i);
      }
      hn::StoreU(leaving, d, gradient + i);
    }
    if (!chunk.first) continue;
    if (adds) store_entering(job, chunk.row, head, carried);
    return;
  }
}

/// The third pass: every other gradient of one chunk and group.
template <class T, class Tiles>
void chunk_gradients(const BackwardJob<T, Tiles>& job, int64_t index, int64_t group,
                     ssd::BackwardSpace<accumulate_t<T>>& space) {
  const ssd::Chunk& chunk = job.chunk(index);
  if (chunk.count() == 0) return;
  const int64_t heads = job.sizes.group_heads, first = group * heads;
  BackwardChunk<T, Tiles> work(job, index, group, space);
  work.prepare_gradients();
  for (int64_t head = first; head < first + heads; ++head) {
    work.begin_head(head - first);
    work.head_gradients(job.enters_zero(chunk) ? nullptr : job.entering(chunk, head),
                        job.leaves_zero(chunk) ? nullptr : job.gradient(index, head));
  }
  work.finish_group();
}

/// out[i] = the sum of parts[chunk][i] over the chunks that have tokens.
template <class T, class Tiles>
void sum_parts(const BackwardJob<T, Tiles>& job, const accumulate_t<T>* parts, int64_t width,
               accumulate_t<T>* out) {
  if (out == nullptr) return;
  std::fill_n(out, width, accumulate_t<T>(0));
  for (int64_t index = 0; index < job.chunk_count; ++index) {
    if (job.chunk(index).count() == 0) continue;
    for (int64_t i = 0; i < width; ++i) out[i] += parts[index * width + i];
  }
}

template <class T, class Tiles>
void backward_chunks(const BackwardJob<T, Tiles>& job, int threads) {
  using C = accumulate_t<T>;
  const int64_t groups = job.shape.groups, heads = job.shape.heads;
  const auto each_chunk = [&](auto pass) {
    parallel_for_workers(threads, job.chunk_count * groups, [&](int64_t item, int worker) {
      const typename Tiles::Session session(job.tiles);
      ssd::BackwardSpace<C> space = job.scratch.space(job.sizes, worker);
      pass(job, item / groups, item % groups, space);
    });
  };
  if (ssd::chunk_walks(job.shape)) {
    const int64_t chunks = job.chunk_count / job.shape.batch;
    parallel_for_workers(threads, job.shape.batch * groups, [&](int64_t item, int worker) {
      const typename Tiles::Session session(job.tiles);
      ssd::BackwardSpace<C> space = job.scratch.space(job.sizes, worker);
      const int64_t row = item / groups;
      for (int64_t index = (row + 1) * chunks - 1; index >= row * chunks; --index) {
        walk_chunk_back(job, index, item % groups, space);
      }
    });
    return;
  }
  each_chunk(add_chunk_back<T, Tiles>);
  parallel_for_workers(threads, job.chunk_count * heads, [&](int64_t item, int worker) {
    const FlushSubnormals flush;
    const int64_t index = item / heads;
    if (!job.chunk(index).last || job.chunk(index).count() == 0) return;
    pass_sequence_back(job, index, item % heads, job.scratch.space(job.sizes, worker).added);
  });
  each_chunk(chunk_gradients<T, Tiles>);
}

template <class T, class Tiles>
void chunked_backward(const SsdShape& shape, const SsdBackward<T>& args, Exec exec, Tiles tiles) {
  const ssd::BackwardScratch<T> scratch(shape, exec.scratch);
  const int64_t count = ssd::list_chunks(shape, args.in.cu_seqlens, scratch.chunks);
  const BackwardJob<T, Tiles> job{shape, args, tiles, ssd::ChunkSizes(shape), scratch, count};
  for (int64_t index = 0; index < count; ++index) {
    if (scratch.chunks[index].count() == 0) pass_empty_gradient(job, scratch.chunks[index].row);
  }
  if (shape.len > 0) backward_chunks(job, std::min(exec.threads, scratch.workers));
  sum_parts(job, scratch.dA, shape.heads, args.dA);
  sum_parts(job, scratch.dt_bias, shape.heads, args.ddt_bias);
  sum_parts(job, scratch.dD, shape.d_elements(), args.dD);
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
