// Line "quadratic", forward: the masked-matrix form (math.md 4.2),
// y = (L o C B^T) diag(delta) x + e^(sums) C h0^T.
#include "core/subnormals.h"
#include "kernels/ssd/ssd_lines.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/ssd/ssd_quadratic.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/ssd/ssd_quadratic-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE::quadratic {

/// One sequence.
template <class T>
class ForwardSequence {
 public:
  using C = accumulate_t<T>;
  ForwardSequence(const SsdShape& shape, const SsdForward<T>& args, const QuadraticSpace<C>& space,
                  const ssd::Chunk& whole)
      : shape_(shape),
        args_(args),
        space_(space),
        whole_(whole),
        slot_(args.in.state_index != nullptr ? args.in.state_index[whole.row] : whole.row) {}

  void run(int threads) {
    parallel_for(threads, shape_.heads, [&](int64_t head) {
      const FlushSubnormals flush;
      enter_head(shape_, args_.in, run_of(head), space_);
      load_state(shape_, state(args_.in.h0, slot_, head), space_.channel_states(space_.h0, head),
                 space_.state_channels(space_.h0t, head));
    });
    parallel_for(threads, shape_.groups, [&](int64_t group) {
      enter_group(shape_, args_.in, args_.in.B, run_of_group(group),
                  space_.token_states(space_.B, group));
      enter_group(shape_, args_.in, args_.in.C, run_of_group(group),
                  space_.token_states(space_.weights, group));
      transpose(space_.token_states(space_.B, group), count(), space_.states,
                space_.state_tokens(space_.Bt, group));
    });
    for (int64_t group = 0; group < shape_.groups; ++group) {
      parallel_for(threads, ssd::kSlots, [&](int64_t slot) {
        const FlushSubnormals flush;
        for (int64_t at = slot * kBlock; at < count(); at += ssd::kSlots * kBlock) {
          output_block(group, slot, at);
        }
      });
    }
    if (args_.saved == nullptr && args_.hT == nullptr) return;
    parallel_for(threads, shape_.heads, [&](int64_t head) {
      const FlushSubnormals flush;
      pass_states(head);
    });
  }

 private:
  int64_t count() const { return whole_.count(); }
  int64_t group_heads() const { return shape_.heads / shape_.groups; }
  Run run_of(int64_t head) const {
    return {whole_.batch, whole_.begin, count(), head, head / group_heads()};
  }
  Run run_of_group(int64_t group) const { return {whole_.batch, whole_.begin, count(), 0, group}; }
  template <class P>
  P* state(P* base, int64_t row, int64_t head) const {
    return base == nullptr ? nullptr
                           : base + (row * shape_.heads + head) * shape_.head_dim * shape_.state;
  }

  /// Rows [begin, begin + kBlock) of y, for all heads of the group.
  void output_block(int64_t group, int64_t slot, int64_t begin) {
    const int64_t rows = HWY_MIN(kBlock, count() - begin), cols = begin + rows;
    const Matrix<C> scores = space_.block(space_.scores, slot);
    const Matrix<C> form = space_.block(space_.form, slot);
    const Matrix<C> weights = space_.token_states(space_.weights, group).from(begin);
    for (int64_t h = 0; h < group_heads(); ++h) {
      const int64_t head = group * group_heads() + h;
      BlockDecays<C> decays(space_, slot, h, rows);
      decays_before(space_.by_head(space_.log_decay, head), space_.by_head(space_.delta, head),
                    begin, &decays);
      start_outputs(head, begin, rows, weights);
    }
    for (int64_t c = 0; c < cols; c += ssd::kStrip) {
      const Strip strip{c, HWY_MIN(c + ssd::kStrip, cols)};
      multiply(rows, strip.whole<C>(), shape_.state, weights,
               space_.state_tokens(space_.Bt, group).columns(c), scores, false);
      for (int64_t h = 0; h < group_heads(); ++h) {
        const int64_t head = group * group_heads() + h;
        BlockDecays<C> decays(space_, slot, h, rows);
        decays.first = begin;
        decays.cols = cols;
        apply_decays<false>(decays, strip, scores, static_cast<const C*>(nullptr), form);
        multiply(rows, space_.channels, strip.end - c, form,
                 space_.token_channels(space_.x, head).from(c),
                 space_.token_channels(space_.y, head).from(begin), true);
      }
    }
    for (int64_t h = 0; h < group_heads(); ++h) {
      const Matrix<C> y = space_.token_channels(space_.y, group * group_heads() + h).from(begin);
      Run block = run_of(group * group_heads() + h);
      block.begin += begin;
      block.count = rows;
      recurrent::finish_outputs(shape_, args_, block, 0, shape_.head_dim, y.at, y.stride);
    }
  }

  /// y = e^(sums) h0 C, or 0.
  void start_outputs(int64_t head, int64_t begin, int64_t rows, Matrix<C> weights) const {
    const Matrix<C> y = space_.token_channels(space_.y, head).from(begin);
    if (args_.in.h0 == nullptr) return clear(y, rows, space_.channels);
    multiply(rows, space_.channels, shape_.state, weights, space_.state_channels(space_.h0t, head),
             y, false);
    scale_rows(y, rows, space_.by_head(space_.entering, head) + begin);
  }

  /// Chunk after chunk: H = e^(sum of the chunk) H + sum_t e^(sum after t) delta_t x_t B_t^T.
  void pass_states(int64_t head) {
    const Matrix<C> h = space_.channel_states(space_.h0, head);
    const Matrix<C> input = space_.token_channels(space_.y, head);  // y is written
    const Matrix<C> x = space_.token_channels(space_.x, head);
    const Matrix<C> B = space_.token_states(space_.B, head / group_heads());
    const C* logs = space_.by_head(space_.log_decay, head);
    const C* delta = space_.by_head(space_.delta, head);
    C* fall = space_.by_head(space_.fall, head);
    const Words<C> d;
    for (int64_t begin = 0, chunk = 0; begin < count(); begin += shape_.chunk, ++chunk) {
      const int64_t end = HWY_MIN(begin + shape_.chunk, count());
      store_state(h, state(args_.saved, whole_.saved + chunk, head));
      C sum = 0;
      for (int64_t t = end - 1; t >= begin; sum += logs[t--]) fall[t] = sum;
      HWY_ALIGN C all[kLanes<C>];
      hn::Store(exp_word(d, hn::Set(d, sum)), d, all);
      for (int64_t t = begin; t < end; ++t) {
        fall[t] = hn::GetLane(exp_word(d, hn::Set(d, fall[t]))) * delta[t];
        std::copy_n(x.row(t), x.stride, input.row(t));
      }
      scale_rows(input.from(begin), end - begin, fall + begin);
      for (int64_t p = 0; p < shape_.head_dim; ++p) scale_rows(h.from(p), 1, all);
      multiply<true>(shape_.head_dim, space_.states, end - begin, input.from(begin), B.from(begin),
                     h, true);
    }
    store_state(h, state(args_.hT, slot_, head));
  }
  void store_state(Matrix<C> from, C* to) const {
    for (int64_t p = 0; to != nullptr && p < shape_.head_dim; ++p) {
      std::copy_n(from.row(p), shape_.state, to + p * shape_.state);
    }
  }

  const SsdShape& shape_;
  const SsdForward<T>& args_;
  const QuadraticSpace<C>& space_;
  ssd::Chunk whole_;
  int64_t slot_;
};

template <class T>
void forward(const SsdShape& shape, const SsdForward<T>& args, Exec exec) {
  const QuadraticSpace<accumulate_t<T>> space(shape, Direction::forward, exec.scratch);
  for (int64_t row = 0; row < shape.state_rows(); ++row) {
    const ssd::Chunk whole = ssd::whole_sequence(shape, args.in.cu_seqlens, row);
    ForwardSequence<T>(shape, args, space, whole).run(exec.threads);
  }
}

}  // namespace adder::HWY_NAMESPACE::quadratic

namespace adder::HWY_NAMESPACE {

ADDER_SIMD_FUNCTIONS(ssd_quadratic_forward, SsdShape, SsdForward, quadratic::forward)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

ADDER_SIMD_DISPATCH(ssd_quadratic_forward, SsdShape, SsdForward, ssd::quadratic_forward)

}  // namespace adder
#endif
