// Line "recurrent", forward: the linear form (math.md 4.1), one token after the other.
#include "core/subnormals.h"
#include "core/threads.h"
#include "kernels/ssd/ssd_lines.h"
#include "kernels/ssd/ssd_recurrent_plan.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/ssd/ssd_recurrent.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/ssd/ssd_outputs-inl.h"
#include "kernels/ssd/ssd_recurrent-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE::recurrent {

/// The states of a block: rows of `stride` elements.
template <class P>
struct StateRows {
  P* at;
  int64_t stride;
};

template <class T>
struct ForwardJob {
  using C = accumulate_t<T>;
  const SsdShape& shape;
  const SsdForward<T>& args;
  C* states;  // (bundles, heads, head_dim, padded state): where hT cannot be worked in
  C* rows;    // (items, 2, run, padded state): B and C of a run
  int64_t padded;

  bool in_place() const { return args.hT != nullptr && shape.state % kLanes<C> == 0; }
  template <class P>
  P* state(P* base, int64_t row, const ssd::Block& block) const {
    if (base == nullptr) return nullptr;
    return base + ((row * shape.heads + block.head) * shape.head_dim + block.first) * shape.state;
  }
};

template <class C>
struct ForwardBuffers {
  HWY_ALIGN C delta[ssd::kRun];
  HWY_ALIGN C decay[ssd::kRun];
  HWY_ALIGN C dx[ssd::kRun * ssd::kChannels];
  HWY_ALIGN C y[ssd::kRun * ssd::kChannels];
  HWY_ALIGN C sums[ssd::kSums * kLanes<C>];
};

template <class C>
void copy_states(const SsdShape& shape, int64_t channels, StateRows<const C> from,
                 StateRows<C> to) {
  const Words<C> d;
  for (int64_t p = 0; p < channels; ++p) {
    for (int64_t n = 0; n < shape.state; n += kLanes<C>) {
      const auto left = static_cast<size_t>(HWY_MIN(kLanes<C>, shape.state - n));
      const auto word =
          from.at != nullptr ? load_n(d, from.at + p * from.stride + n, left) : hn::Zero(d);
      store_n(word, d, to.at + p * to.stride + n, left);
    }
  }
}

/// B and C of a run, pass after pass of scan_words.
template <class T, class C = accumulate_t<T>>
void gather_rows(const ForwardJob<T>& job, const Run& run, C* B, C* weights) {
  for (Pass<C> pass(job.shape); pass; pass.next()) {
    const SsdInputs<T>& in = job.args.in;
    state_rows(job.shape, in, in.B, run, pass.first(), pass.width(), B + run.count * pass.first());
    state_rows(job.shape, in, in.C, run, pass.first(), pass.width(),
               weights + run.count * pass.first());
  }
}

/// One run of a block from `from` to `to`, which may be the same.
template <class T, class C = accumulate_t<T>>
void forward_run(const ForwardJob<T>& job, const Run& run, const ssd::Block& block,
                 const C* const rows[2], StateRows<const C> from, StateRows<C> to,
                 ForwardBuffers<C>& buffers) {
  const SsdShape& shape = job.shape;
  const SsdInputs<T>& in = job.args.in;
  channel_rows(in, in.x, run, block.head * shape.head_dim + block.first, block.count, buffers.delta,
               ssd::kChannels, buffers.dx);
  for (int64_t i = 0; i < run.count * ssd::kChannels; ++i) buffers.y[i] = 0;
  for (Pass<C> pass(shape); pass; pass.next()) {
    Scan<C> scan{};
    scan.from = from.at != nullptr ? from.at + pass.first() : nullptr;
    scan.from_row = from.stride;
    scan.to = to.at + pass.first();
    scan.to_row = to.stride;
    scan.dx = buffers.dx;
    scan.decay = buffers.decay;
    scan.B = rows[0] + run.count * pass.first();
    scan.weights = rows[1] + run.count * pass.first();
    scan.count = run.count;
    scan.sums = buffers.sums;
    scan_words(pass.words(), scan, block.count, buffers.y);
  }
  finish_outputs(shape, job.args, run, block.first, block.count, buffers.y, ssd::kChannels);
}

/// One item: a share of the channels over one sequence after the other.
template <class T>
class ForwardItem {
 public:
  using C = accumulate_t<T>;
  ForwardItem(const ForwardJob<T>& job, const ssd::RecurrentCut& cut, int64_t item)
      : job_(job),
        cut_(cut),
        share_(item % cut.shares()),
        bundle_(item / cut.shares()),
        B_(job.rows + item * 2 * cut.run() * job.padded),
        weights_(B_ + cut.run() * job.padded) {}

  void run_sequence(const ssd::Chunk& whole) {
    const SsdShape& shape = job_.shape;
    slot_ = job_.args.in.state_index != nullptr ? job_.args.in.state_index[whole.row] : whole.row;
    for (int64_t i = 0; i < cut_.blocks(share_); ++i) enter(cut_.block(share_, i));
    int64_t saved = whole.saved;
    for (int64_t chunk = whole.begin; chunk < whole.end; chunk += shape.chunk, ++saved) {
      const int64_t end = HWY_MIN(chunk + shape.chunk, whole.end);
      for (int64_t t = chunk; t < end; t += ssd::kRun) {
        Run run{whole.batch, t, HWY_MIN(ssd::kRun, end - t), 0, cut_.group(share_)};
        gather_rows(job_, run, B_, weights_);
        for (int64_t i = 0; i < cut_.blocks(share_); ++i) {
          const ssd::Block block = cut_.block(share_, i);
          run.head = block.head;
          if (i == 0 || block.first == 0) {
            find_steps<T, C>(shape, job_.args.in, run, {buffers_.delta, buffers_.decay, nullptr});
          }
          const auto from = t == whole.begin ? entering(block) : working(block);
          if (t == chunk && job_.args.saved != nullptr) {
            copy_states<C>(shape, block.count, from,
                           {job_.state(job_.args.saved, saved, block), shape.state});
          }
          const C* const rows[2] = {B_, weights_};
          const auto to = working(block);
          forward_run<T, C>(job_, run, block, rows, from, {const_cast<C*>(to.at), to.stride},
                            buffers_);
        }
      }
    }
    for (int64_t i = 0; i < cut_.blocks(share_); ++i) {
      leave(cut_.block(share_, i), whole.count() == 0);
    }
  }

 private:
  C* own(const ssd::Block& block) const {
    return job_.states +
           ((bundle_ * job_.shape.heads + block.head) * job_.shape.head_dim + block.first) *
               job_.padded;
  }
  StateRows<C> final_state(const ssd::Block& block) const {
    return {job_.state(job_.args.hT, slot_, block), job_.shape.state};
  }
  StateRows<const C> entering(const ssd::Block& block) const {
    if (!job_.in_place()) return working(block);
    return {job_.state(job_.args.in.h0, slot_, block), job_.shape.state};
  }
  StateRows<const C> working(const ssd::Block& block) const {
    if (!job_.in_place()) return {own(block), job_.padded};
    return {final_state(block).at, job_.shape.state};
  }
  void enter(const ssd::Block& block) const {
    if (job_.in_place()) return;
    C* to = own(block);
    for (int64_t i = 0; i < block.count * job_.padded; ++i) to[i] = 0;  // lanes past the state
    copy_states<C>(job_.shape, block.count,
                   {job_.state(job_.args.in.h0, slot_, block), job_.shape.state},
                   {to, job_.padded});
  }
  void leave(const ssd::Block& block, bool empty) const {
    if (job_.args.hT == nullptr || (job_.in_place() && !empty)) return;
    const StateRows<const C> from = entering(block);
    if (from.at != final_state(block).at) {
      copy_states<C>(job_.shape, block.count, from, final_state(block));
    }
  }

  const ForwardJob<T>& job_;
  const ssd::RecurrentCut& cut_;
  int64_t share_, bundle_, slot_ = 0;
  C* B_;
  C* weights_;
  ForwardBuffers<C> buffers_;  // on the stack: they stay in the cache from item to item
};

template <class T>
void forward(const SsdShape& shape, const SsdForward<T>& args, Exec exec) {
  using C = accumulate_t<T>;
  const ssd::RecurrentCut cut(shape);
  const int64_t padded = ssd::padded_states<C>(shape);
  const ForwardJob<T> job{shape, args, exec.carve<C>(cut.bundles() * shape.inner() * padded),
                          exec.carve<C>(cut.items() * 2 * cut.run() * padded), padded};
  parallel_for(exec.threads, cut.items(), [&](int64_t item) {
    const FlushSubnormals flush;
    ForwardItem<T> work(job, cut, item);
    const int64_t bundle = item / cut.shares(), end = cut.first_row(bundle + 1);
    for (int64_t row = cut.first_row(bundle); row < end; ++row) {
      work.run_sequence(ssd::whole_sequence(shape, args.in.cu_seqlens, row));
    }
  });
}

}  // namespace adder::HWY_NAMESPACE::recurrent

namespace adder::HWY_NAMESPACE {

ADDER_SIMD_FUNCTIONS(ssd_recurrent_forward, SsdShape, SsdForward, recurrent::forward)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

ADDER_SIMD_DISPATCH(ssd_recurrent_forward, SsdShape, SsdForward, ssd::recurrent_forward)

}  // namespace adder
#endif
