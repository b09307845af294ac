// Line "recurrent", backward: chunks from last to first; within a chunk one head after the other.
#include "core/subnormals.h"
#include "core/threads.h"
#include "kernels/ssd/ssd_lines.h"
#include "kernels/ssd/ssd_recurrent_plan.h"
#include "kernels/ssd/ssd_recurrent_space.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/ssd/ssd_recurrent_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/ssd/ssd_outputs-inl.h"
#include "kernels/ssd/ssd_recurrent_backward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE::recurrent {

template <class T>
struct BackwardJob {
  using C = accumulate_t<T>;
  const SsdShape& shape;
  const SsdBackward<T>& args;
  const ssd::RecurrentBackwardCut& cut;
  ssd::RecurrentBackwardSpace<C> space;
};

/// One item: some heads of one group over one sequence after the other.
template <class T>
class BackwardItem {
 public:
  using C = accumulate_t<T>;
  BackwardItem(const BackwardJob<T>& job, int64_t item)
      : job_(job),
        shape_(job.shape),
        in_(job.args.in),
        share_(item % job.cut.shares()),
        group_(job.cut.group(share_)),
        bundle_(item / job.cut.shares()),
        own_(job.space.item(item)) {}

  void run_sequence(const ssd::StepRange& whole) {
    const int64_t plane = shape_.head_dim * own_.state_row;
    for (int64_t h = 0; h < job_.cut.heads(share_); ++h) {
      copy_rows(state(job_.args.ghT, whole.row, head(h)), shape_.state, own_.mu + h * plane,
                own_.state_row);
    }
    const int64_t chunks = ssd::ceil_div(whole.count(), shape_.chunk);
    for (int64_t c = chunks - 1; c >= 0; --c) {
      const int64_t begin = whole.begin + c * shape_.chunk;
      Run run{whole.batch, begin, HWY_MIN(shape_.chunk, whole.end - begin), 0, group_};
      enter_chunk(run);
      for (int64_t h = 0; h < job_.cut.heads(share_); ++h) {
        run.head = head(h);
        copy_rows(state(job_.args.saved, whole.saved + c, run.head), shape_.state, own_.entering,
                  own_.state_row);
        enter_head(run);
        sweep_head(run, own_.mu + h * plane);
        leave_head(run);
      }
    }
    for (int64_t h = 0; job_.args.dh0 != nullptr && h < job_.cut.heads(share_); ++h) {
      copy_rows(own_.mu + h * plane, own_.state_row, state(job_.args.dh0, whole.row, head(h)),
                shape_.state);
    }
  }

 private:
  int64_t head(int64_t h) const { return job_.cut.first_head(share_) + h; }
  template <class P>
  P* state(P* base, int64_t row, int64_t head) const {
    return base == nullptr ? nullptr
                           : base + (row * shape_.heads + head) * shape_.head_dim * shape_.state;
  }
  /// Rows of states; nullptr stands for zeros. Lanes past the state become 0 where there is room.
  void copy_rows(const C* from, int64_t from_row, C* to, int64_t to_row) const {
    const Words<C> d;
    for (int64_t p = 0; p < shape_.head_dim; ++p) {
      for (int64_t n = 0; n < to_row; n += kLanes<C>) {
        const auto left =
            static_cast<size_t>(HWY_MAX(int64_t{0}, HWY_MIN(kLanes<C>, shape_.state - n)));
        const auto word = from == nullptr
                              ? hn::Zero(d)
                              : load_n(d, from + p * from_row + (left > 0 ? n : 0), left);
        store_n(word, d, to + p * to_row + n, static_cast<size_t>(HWY_MIN(kLanes<C>, to_row - n)));
      }
    }
  }
  C* shared_row(C* base, const Run& run) const {
    return base + ((share_ * shape_.batch + run.batch) * shape_.len + run.begin) * own_.state_row;
  }

  void enter_chunk(const Run& run) {
    for (Pass<C> pass(shape_, kSweepWords); pass; pass.next()) {
      const int64_t at = run.count * pass.first();
      state_rows(shape_, in_, in_.B, run, pass.first(), pass.width(), own_.B + at);
      state_rows(shape_, in_, in_.C, run, pass.first(), pass.width(), own_.weights + at);
    }
    for (C* rows : {shared_row(job_.space.dB, run), shared_row(job_.space.dC, run)}) {
      std::fill_n(rows, run.count * own_.state_row, C(0));
    }
  }

  /// delta, decay, slope, delta x, the gradient of the ungated y, and zeros to add to.
  void enter_head(const Run& run) {
    const int64_t channel = run.head * shape_.head_dim, row = own_.channel_row;
    find_steps<T, C>(shape_, in_, run, {own_.delta, own_.decay, own_.slope});
    channel_rows(in_, in_.x, run, channel, shape_.head_dim, own_.delta, row, own_.dx);
    ungated_gradients(shape_, job_.args, run, row, own_.gy);
    std::fill_n(own_.v, run.count * row, C(0));
    std::fill_n(own_.through, run.count * kLanes<C>, C(0));
    if (in_.z) std::fill_n(own_.y, run.count * row, C(0));
  }

  void sweep_head(const Run& run, C* mu) {
    Sweep<C> sweep{};
    sweep.count = run.count;
    sweep.state_row = own_.state_row;
    sweep.channel_row = own_.channel_row;
    sweep.decay = own_.decay;
    sweep.dx = own_.dx;
    sweep.gy = own_.gy;
    sweep.v = own_.v;
    sweep.through = own_.through;
    sweep.checkpoints = own_.checkpoints;
    for (Pass<C> pass(shape_, kSweepWords); pass; pass.next()) {
      sweep.entering = own_.entering + pass.first();
      sweep.mu = mu + pass.first();
      sweep.B = own_.B + run.count * pass.first();
      sweep.weights = own_.weights + run.count * pass.first();
      sweep.dB = shared_row(job_.space.dB, run) + pass.first();
      sweep.dC = shared_row(job_.space.dC, run) + pass.first();
      sweep.y = in_.z ? own_.y : nullptr;
      sweep_words(pass.words(), sweep, shape_.head_dim, buffers_);
    }
  }

  void leave_head(const Run& run) {
    const Words<C> d;
    C* const dD = job_.space.dD + (bundle_ * shape_.heads + run.head) * own_.channel_row;
    C* const sums = job_.space.head_sums + (bundle_ * shape_.heads + run.head) * 2;
    for (int64_t t = 0; t < run.count; ++t) {
      const int64_t at = t * own_.channel_row;
      const C direct = channel_gradients<T, C>(shape_, job_.args, run, t, own_.delta[t],
                                               {own_.v + at, own_.gy + at, own_.y + at, dD});
      const C through = hn::GetLane(hn::SumOfLanes(d, hn::Load(d, own_.through + t * kLanes<C>)));
      const C ddt = (direct + in_.A[run.head] * through) * own_.slope[t];
      if (job_.args.ddt) {
        job_.args.ddt.at(run.batch, token_at(in_, run, t), run.head) = static_cast<T>(ddt);
      }
      sums[0] += own_.delta[t] * through;
      sums[1] += ddt;
    }
  }

  const BackwardJob<T>& job_;
  const SsdShape& shape_;
  const SsdInputs<T>& in_;
  int64_t share_, group_, bundle_;
  ssd::BackwardItemSpace<C> own_;
  SweepBuffers<C> buffers_;
};

/// Writes dB or dC of one token: the sum over the shares of each group, in order.
template <class T, class C = accumulate_t<T>>
void add_shares(const BackwardJob<T>& job, const C* parts, const TokenView<T>& out, int64_t b,
                int64_t step) {
  const Words<C> d;
  const SsdShape& shape = job.shape;
  const int64_t row = job.space.state_row, shares = job.cut.group_shares();
  const int64_t token = job.args.in.order != nullptr ? job.args.in.order[step] : step;
  for (int64_t group = 0; group < shape.groups; ++group) {
    for (int64_t n = 0; n < shape.state; n += kLanes<C>) {
      auto sum = hn::Zero(d);
      for (int64_t s = 0; s < shares; ++s) {
        const int64_t at = ((group * shares + s) * shape.batch + b) * shape.len + step;
        sum = hn::Add(sum, hn::Load(d, parts + at * row + n));
      }
      store_n(sum, d, out.row(b, token) + group * shape.state + n,
              static_cast<size_t>(HWY_MIN(kLanes<C>, shape.state - n)));
    }
  }
}

/// Writes or adds dA, ddt_bias and dD: the sums over the bundles, in order.
template <class T>
void add_bundles(const BackwardJob<T>& job) {
  using C = accumulate_t<T>;
  const SsdShape& shape = job.shape;
  const SsdBackward<T>& args = job.args;
  const auto put = [&](C* to, int64_t at, C sum) {
    if (to != nullptr) ssd::put_gradient(args.accumulate, sum, to + at);
  };
  for (int64_t head = 0; head < shape.heads; ++head) {
    C dA = 0, bias = 0, skip = 0;
    for (int64_t i = 0; i < job.cut.bundles(); ++i) {
      dA += job.space.head_sums[(i * shape.heads + head) * 2];
      bias += job.space.head_sums[(i * shape.heads + head) * 2 + 1];
    }
    for (int64_t p = 0; p < shape.head_dim; ++p) {
      C sum = 0;
      for (int64_t i = 0; i < job.cut.bundles(); ++i) {
        sum += job.space.dD[(i * shape.heads + head) * job.space.channel_row + p];
      }
      skip += sum;
      if (shape.d_per_channel) put(args.dD, head * shape.head_dim + p, sum);
    }
    put(args.dA, head, dA);
    put(args.ddt_bias, head, bias);
    if (!shape.d_per_channel) put(args.dD, head, skip);
  }
}

template <class T>
void backward(const SsdShape& shape, const SsdBackward<T>& args, Exec exec) {
  using C = accumulate_t<T>;
  const ssd::RecurrentBackwardCut cut(shape);
  const BackwardJob<T> job{shape, args, cut, ssd::RecurrentBackwardSpace<C>(shape, cut, &exec)};
  std::fill_n(job.space.head_sums, cut.bundles() * shape.heads * 2, C(0));
  std::fill_n(job.space.dD, cut.bundles() * shape.heads * job.space.channel_row, C(0));
  parallel_for(exec.threads, cut.items(), [&](int64_t item) {
    const FlushSubnormals flush;
    BackwardItem<T> work(job, item);
    const int64_t bundle = item / cut.shares(), end = cut.first_row(bundle + 1);
    for (int64_t row = cut.first_row(bundle); row < end; ++row) {
      work.run_sequence(ssd::whole_sequence(shape, args.in.cu_seqlens, row));
    }
  });
  constexpr int64_t kSteps = 64;
  const int64_t row_items = ssd::ceil_div(shape.len, kSteps);
  parallel_for(exec.threads, shape.batch * row_items, [&](int64_t item) {
    const int64_t b = item / row_items, begin = item % row_items * kSteps;
    for (int64_t step = begin; step < HWY_MIN(begin + kSteps, shape.len); ++step) {
      if (args.dB) add_shares(job, job.space.dB, args.dB, b, step);
      if (args.dC) add_shares(job, job.space.dC, args.dC, b, step);
    }
  });
  add_bundles(job);
}

}  // namespace adder::HWY_NAMESPACE::recurrent

namespace adder::HWY_NAMESPACE {

ADDER_SIMD_FUNCTIONS(ssd_recurrent_backward, SsdShape, SsdBackward, recurrent::backward)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

ADDER_SIMD_DISPATCH(ssd_recurrent_backward, SsdShape, SsdBackward, ssd::recurrent_backward)

}  // namespace adder
#endif
