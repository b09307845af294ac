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
void walk_chunk_back(const BackwardJob<T, Tiles>& job, int64_t index, int64_t block,
                     ssd::BackwardSpace<accumulate_t<T>>& space) {
  using C = accumulate_t<T>;
  const ssd::Chunk& chunk = job.chunk(index);
  BackwardChunk<T, Tiles> work(job, index, block, space);
  const ChunkPlace place = work.place();
  if (job.passes_on(chunk)) work.prepare_states();
  work.prepare_gradients();
  for (int64_t head = place.first_head; head < place.first_head + place.heads; ++head) {
    C* gradient = job.gradient(chunk.row, head);
    if (chunk.last && !job.leaves_zero(chunk)) load_leaving(job, chunk.row, head, gradient);
    const C* leaving = job.leaves_zero(chunk) ? nullptr : gradient;
    work.begin_head(head);
    work.head_gradients(job.enters_zero(chunk) ? nullptr : job.entering(chunk, head), leaving);
    if (!job.passes_on(chunk)) continue;
    work.update(leaving, gradient);
    if (chunk.first) store_entering(job, chunk.row, head, gradient);
  }
  work.finish_block();
}

/// First pass of a split: what each chunk adds to the gradient of its entering state.
template <class T, class Tiles>
void add_chunk_back(const BackwardJob<T, Tiles>& job, int64_t index, int64_t block,
                    ssd::BackwardSpace<accumulate_t<T>>& space) {
  if (!job.passes_on(job.chunk(index))) return;
  BackwardChunk<T, Tiles> work(job, index, block, space);
  const ChunkPlace place = work.place();
  work.prepare_states();
  for (int64_t head = place.first_head; head < place.first_head + place.heads; ++head) {
    work.begin_head(head);
    work.update(nullptr, job.gradient(index, head));
    job.scratch.whole[index * job.shape.heads + head] = work.whole();
  }
}

/// Second pass, one head of a sequence from its last chunk to its first: in place of what a chunk
/// adds comes the gradient of the state that leaves it.
template <class T, class Tiles>
void pass_sequence_back(const BackwardJob<T, Tiles>& job, int64_t row, int64_t head,
                        accumulate_t<T>* carried) {
  using C = accumulate_t<T>;
  const Words<C> d;
  const int64_t size = job.padded_size(), first = job.scratch.list.first[row];
  if (job.args.ghT != nullptr) {
    load_leaving(job, row, head, carried);
  } else {
    std::fill_n(carried, size, C(0));
  }
  for (int64_t index = job.scratch.list.first[row + 1] - 1; index >= first; --index) {
    const ssd::Chunk& chunk = job.chunk(index);
    C* gradient = job.gradient(index, head);
    const bool adds = job.passes_on(chunk), zero = job.leaves_zero(chunk);
    const C whole = adds ? job.scratch.whole[index * job.shape.heads + head] : C(0);
    for (int64_t i = 0; i < size; i += lanes_of<C>()) {
      const auto leaving = hn::LoadU(d, carried + i);
      if (adds) {
        const auto own = hn::LoadU(d, gradient + i);
        const auto next = zero ? own : hn::MulAdd(hn::Set(d, whole), leaving, own);
        hn::StoreU(next, d, carried + i);
      }
      hn::StoreU(leaving, d, gradient + i);
    }
    if (chunk.first && adds) store_entering(job, row, head, carried);
  }
}

/// Third pass: every other gradient of one chunk.
template <class T, class Tiles>
void chunk_gradients(const BackwardJob<T, Tiles>& job, int64_t index, int64_t block,
                     ssd::BackwardSpace<accumulate_t<T>>& space) {
  const ssd::Chunk& chunk = job.chunk(index);
  BackwardChunk<T, Tiles> work(job, index, block, space);
  const ChunkPlace place = work.place();
  work.prepare_gradients();
  for (int64_t head = place.first_head; head < place.first_head + place.heads; ++head) {
    work.begin_head(head);
    work.head_gradients(job.enters_zero(chunk) ? nullptr : job.entering(chunk, head),
                        job.leaves_zero(chunk) ? nullptr : job.gradient(index, head));
  }
  work.finish_block();
}

/// out[i] = the sum of parts[chunk][i] over the chunks that have tokens, or that much more.
template <class T, class Tiles>
void sum_parts(const BackwardJob<T, Tiles>& job, const accumulate_t<T>* parts, int64_t width,
               accumulate_t<T>* out) {
  constexpr int64_t kWidth = 64;  // of what is summed at a time
  for (int64_t begin = 0; out != nullptr && begin < width; begin += kWidth) {
    const int64_t count = std::min(kWidth, width - begin);
    accumulate_t<T> sums[kWidth] = {};
    for (int64_t index = 0; index < job.scratch.list.count; ++index) {
      if (job.chunk(index).count() == 0) continue;
      const accumulate_t<T>* from = parts + index * width + begin;
      for (int64_t i = 0; i < count; ++i) sums[i] += from[i];
    }
    for (int64_t i = 0; i < count; ++i) {
      ssd::put_gradient(job.args.accumulate, sums[i], out + begin + i);
    }
  }
}

/// Rows of dB or dC from the parts of the blocks, in index order.
template <class T, class Tiles>
void sum_blocks(const BackwardJob<T, Tiles>& job, const accumulate_t<T>* parts,
                const TokenView<T>& view, int threads) {
  using C = accumulate_t<T>;
  if (!view || job.blocks.per_group == 1) return;
  constexpr int64_t kTokens = 64;  // of an item
  const SsdShape& shape = job.shape;
  const int64_t width = shape.groups * shape.state, items = ssd::ceil_div(shape.len, kTokens);
  parallel_for(threads, shape.batch * items, [&](int64_t item) HWY_ATTR {
    const Words<C> d;
    const int64_t b = item / items, begin = item % items * kTokens;
    for (int64_t t = begin; t < std::min(begin + kTokens, shape.len); ++t) {
      T* to = view.row(b, t);
      for (int64_t c = 0; c < width; c += lanes_of<C>()) {
        const auto n = static_cast<size_t>(std::min(lanes_of<C>(), width - c));
        const C* from = parts + (b * shape.len + t) * width + c;
        auto sum = load_n(d, from, n);
        for (int64_t part = 1; part < job.blocks.per_group; ++part) {
          from += shape.batch * shape.len * width;
          sum = hn::Add(sum, load_n(d, from, n));
        }
        store_n(sum, d, to + c, n);
      }
    }
  });
}

template <class T, class Tiles>
void split_backward(const BackwardJob<T, Tiles>& job, int threads) {
  using C = accumulate_t<T>;
  const int64_t blocks = job.blocks.count;
  const auto each_chunk = [&](auto pass) {
    parallel_for_workers(threads, job.scratch.list.count * blocks, [&](int64_t item, int worker) {
      const typename Tiles::Session session(job.tiles);
      if (job.chunk(item / blocks).count() == 0) return;
      ssd::BackwardSpace<C> space = job.scratch.workers.of(worker);
      pass(job, item / blocks, item % blocks, space);
    });
  };
  each_chunk(add_chunk_back<T, Tiles>);
  const int64_t rows = job.shape.state_rows();
  parallel_for_workers(threads, rows * job.shape.heads, [&](int64_t item, int worker) {
    const FlushSubnormals flush;
    const int64_t row = item / job.shape.heads;
    if (job.chunk(job.scratch.list.first[row]).count() == 0) return;
    pass_sequence_back(job, row, item % job.shape.heads, job.scratch.workers.of(worker).added);
  });
  each_chunk(chunk_gradients<T, Tiles>);
}

template <class T, class Tiles>
void walk_backward(const BackwardJob<T, Tiles>& job, int threads) {
  using C = accumulate_t<T>;
  const int64_t blocks = job.blocks.count;
  parallel_for_workers(threads, job.shape.state_rows() * blocks, [&](int64_t item, int worker) {
    const typename Tiles::Session session(job.tiles);
    ssd::BackwardSpace<C> space = job.scratch.workers.of(worker);
    const int64_t first = job.scratch.list.first[item / blocks];
    int64_t index = job.scratch.list.first[item / blocks + 1] - 1;
    for (; index >= first; --index) {
      if (job.chunk(index).count() > 0) walk_chunk_back(job, index, item % blocks, space);
    }
  });
}

template <class T, class Tiles>
void chunked_backward(const SsdShape& shape, const SsdBackward<T>& args, Exec exec, Tiles tiles) {
  ssd::BackwardScratch<T> scratch(shape, exec.scratch);
  scratch.list.fill(shape, args.in.cu_seqlens);
  const int threads = std::min(exec.threads, ssd::chunk_workers());
  const BackwardJob<T, Tiles> job{
      shape, args, tiles, ssd::ChunkSizes(shape), scratch, ssd::HeadBlocks(shape)};
  for (int64_t index = 0; index < scratch.list.count; ++index) {
    if (job.chunk(index).count() == 0) pass_empty_gradient(job, job.chunk(index).row);
  }
  if (shape.len > 0) {
    if (ssd::chunk_walks(shape, threads)) {
      walk_backward(job, threads);
    } else {
      split_backward(job, threads);
    }
    sum_blocks(job, scratch.dB, args.dB, threads);
    sum_blocks(job, scratch.dC, args.dC, threads);
  }
  sum_parts(job, scratch.dA, shape.heads, args.dA);
  sum_parts(job, scratch.dt_bias, shape.heads, args.ddt_bias);
  sum_parts(job, scratch.dD, shape.d_elements(), args.dD);
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
