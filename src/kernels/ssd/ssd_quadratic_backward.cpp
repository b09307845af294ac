// Line "quadratic", backward: math.md 4.4 with the whole sequence as one chunk. A block of rows i
// of the matrix gives dC, y and what crosses between tokens; one of its columns j gives v and dB.
#include "core/subnormals.h"
#include "kernels/ssd/ssd_lines.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/ssd/ssd_quadratic_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/ssd/ssd_quadratic-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE::quadratic {

/// Adds E = scores o form of a strip to what crosses into each token m, for pairs j < m <= i:
/// crossing[m] += sum over rows i >= m, columns j < m. Strips come from left to right; row_sums
/// carries E of the columns before. E replaces `form` on the diagonal block; form is added to
/// `total` before.
template <class C>
void add_crossing(const BlockDecays<C>& decays, const Strip& strip, Matrix<C> scores,
                  Matrix<C> form, Matrix<C> total, C* column_sums, C* crossing) {
  const Words<C> d;
  const int64_t begin = decays.first, left = HWY_MIN(strip.end, begin) - strip.begin;
  const bool diagonal = strip.end > begin;
  C before = 0;
  for (int64_t i = 0; i < decays.rows; ++i) before += decays.row_sums[i];
  std::fill_n(column_sums, left, C(0));
  for (int64_t i = 0; i < decays.rows; ++i) {
    auto row_sum = hn::Zero(d);
    for (int64_t j = 0; j < strip.whole<C>(); j += kLanes<C>) {
      const auto word = hn::Load(d, form.row(i) + j);
      const auto e = hn::Mul(word, hn::Load(d, scores.row(i) + j));
      hn::Store(hn::Add(hn::Load(d, total.row(i) + j), word), d, total.row(i) + j);
      if (j >= left) {
        hn::Store(e, d, form.row(i) + j);
        continue;
      }
      row_sum = hn::Add(row_sum, e);
      hn::Store(hn::Add(hn::Load(d, column_sums + j), e), d, column_sums + j);
    }
    decays.row_sums[i] += hn::GetLane(hn::SumOfLanes(d, row_sum));
    if (!diagonal) continue;
    C prefix = decays.row_sums[i];
    for (int64_t m = 1; m <= i; ++m) {
      prefix += form.row(i)[left + m - 1];
      crossing[begin + m] += prefix;
    }
  }
  for (int64_t m = 0; m < left; ++m) {
    crossing[strip.begin + m] += before;
    before += column_sums[m];
  }
  if (diagonal) crossing[begin] += before;
}

/// One sequence.
template <class T>
class BackwardSequence {
 public:
  using C = accumulate_t<T>;
  BackwardSequence(const SsdShape& shape, const SsdBackward<T>& args,
                   const QuadraticSpace<C>& space, const ssd::Chunk& whole)
      : shape_(shape),
        args_(args),
        space_(space),
        whole_(whole),
        slot_(args.in.state_index != nullptr ? args.in.state_index[whole.row] : whole.row) {}

  void run(int threads) {
    parallel_for(threads, shape_.heads, [&](int64_t head) {
      const FlushSubnormals flush;
      enter(head);
    });
    parallel_for(threads, shape_.groups, [&](int64_t group) { enter_shared(group); });
    std::fill_n(space_.straddle, ssd::kSlots * shape_.heads * space_.tokens, C(0));
    for (int64_t group = 0; group < shape_.groups; ++group) {
      parallel_for(threads, ssd::kSlots, [&](int64_t slot) {
        const FlushSubnormals flush;
        for (int64_t at = slot * kBlock; at < count(); at += ssd::kSlots * kBlock) {
          rows_block(group, slot, at);
          columns_block(group, slot, at);
        }
      });
    }
    parallel_for(threads, shape_.heads, [&](int64_t head) {
      const FlushSubnormals flush;
      finish_steps(head);
      if (args_.dh0 != nullptr) finish_state(head);
    });
    write_shared(space_.dB, args_.dB);
    write_shared(space_.dC, args_.dC);
  }

 private:
  int64_t count() const { return whole_.count(); }
  int64_t group_heads() const { return shape_.heads / shape_.groups; }
  Run run_of(int64_t head) const {
    return {whole_.batch, whole_.begin, count(), head, head / group_heads()};
  }
  template <class P>
  P* state(P* base, int64_t row, int64_t head) const {
    return base == nullptr ? nullptr
                           : base + (row * shape_.heads + head) * shape_.head_dim * shape_.state;
  }
  bool enters() const { return args_.in.h0 != nullptr; }
  bool leaves() const { return args_.ghT != nullptr; }

  void enter(int64_t head) {
    const Run run = run_of(head);
    enter_head(shape_, args_.in, run, space_);
    const Matrix<C> gy = space_.token_channels(space_.gy, head);
    recurrent::ungated_gradients(shape_, args_, run, gy.stride, gy.at);
    clear_padding(gy, count(), shape_.head_dim);
    transpose(space_.token_channels(space_.x, head), count(), space_.channels,
              space_.channel_tokens(space_.xt, head));
    transpose(gy, count(), space_.channels, space_.channel_tokens(space_.gyt, head));
    load_state(shape_, state(args_.in.h0, slot_, head), space_.channel_states(space_.h0, head),
               space_.state_channels(space_.h0t, head));
    load_state(shape_, state(args_.ghT, whole_.row, head), space_.channel_states(space_.u, head),
               space_.state_channels(space_.ut, head));
    std::fill_n(space_.by_head(space_.out, head), space_.tokens, C(0));
    std::fill_n(space_.by_head(space_.in, head), space_.tokens, C(0));
  }
  void enter_shared(int64_t group) {
    const Run run{whole_.batch, whole_.begin, count(), 0, group};
    const Matrix<C> B = space_.token_states(space_.B, group);
    const Matrix<C> weights = space_.token_states(space_.weights, group);
    enter_group(shape_, args_.in, args_.in.B, run, B);
    enter_group(shape_, args_.in, args_.in.C, run, weights);
    transpose(B, count(), space_.states, space_.state_tokens(space_.Bt, group));
    transpose(weights, count(), space_.states, space_.state_tokens(space_.weights_t, group));
  }

  /// dC of the rows; y of them where it is needed; pairs of tokens, and h0, crossing.
  void rows_block(int64_t group, int64_t slot, int64_t begin) {
    const int64_t rows = HWY_MIN(kBlock, count() - begin), cols = begin + rows;
    const Matrix<C> weights = space_.token_states(space_.weights, group).from(begin);
    const Matrix<C> dC = space_.token_states(space_.dC, group).from(begin);
    clear(dC, rows, space_.states);
    for (int64_t h = 0; h < group_heads(); ++h) {
      const int64_t head = group * group_heads() + h;
      BlockDecays<C> decays(space_, slot, h, rows);
      decays_before(space_.by_head(space_.log_decay, head), space_.by_head(space_.delta, head),
                    begin, &decays);
      if (enters()) {
        cross_from_h0(head, slot, begin, rows, weights, dC);
      } else if (args_.in.z) {
        clear(space_.token_channels(space_.y, head).from(begin), rows, space_.channels);
      }
    }
    const Matrix<C> scores = space_.block(space_.scores, slot);
    const Matrix<C> total = space_.block(space_.group_form, slot);
    for (int64_t c = 0; c < cols; c += ssd::kStrip) {
      const Strip strip{c, HWY_MIN(c + ssd::kStrip, cols)};
      multiply(rows, strip.whole<C>(), shape_.state, weights,
               space_.state_tokens(space_.Bt, group).columns(c), scores, false);
      clear(total, rows, strip.whole<C>());
      for (int64_t h = 0; h < group_heads(); ++h) {
        BlockDecays<C> decays(space_, slot, h, rows);
        decays.first = begin;
        decays.cols = cols;
        rows_strip(decays, strip, group * group_heads() + h, slot);
      }
      multiply(rows, space_.states, strip.end - c, total,
               space_.token_states(space_.B, group).from(c), dC, true);
    }
  }
  void rows_strip(const BlockDecays<C>& decays, const Strip& strip, int64_t head, int64_t slot) {
    const Matrix<C> scores = space_.block(space_.scores, slot);
    const Matrix<C> products = space_.block(space_.products, slot);
    const Matrix<C> form = space_.block(space_.form, slot);
    const Matrix<C> gy = space_.token_channels(space_.gy, head).from(decays.first);
    multiply(decays.rows, strip.whole<C>(), shape_.head_dim, gy,
             space_.channel_tokens(space_.xt, head).columns(strip.begin), products, false);
    apply_decays<false>(decays, strip, products, static_cast<const C*>(nullptr), form);
    add_crossing(decays, strip, scores, form, space_.block(space_.group_form, slot),
                 space_.column_sums + slot * ssd::kStrip,
                 space_.slot_sums(slot, head, shape_.heads));
    if (!args_.in.z) return;
    apply_decays<false>(decays, strip, scores, static_cast<const C*>(nullptr), form);
    multiply(decays.rows, space_.channels, strip.end - strip.begin, form,
             space_.token_channels(space_.x, head).from(strip.begin),
             space_.token_channels(space_.y, head).from(decays.first), true);
  }

  /// y = e^(sums) h0 C, its part of what crosses, and its part of dC.
  void cross_from_h0(int64_t head, int64_t slot, int64_t begin, int64_t rows, Matrix<C> weights,
                     Matrix<C> dC) {
    const Matrix<C> y = space_.token_channels(space_.y, head).from(begin);
    const Matrix<C> gy = space_.token_channels(space_.gy, head).from(begin);
    const C* entering = space_.by_head(space_.entering, head) + begin;
    multiply(rows, space_.channels, shape_.state, weights, space_.state_channels(space_.h0t, head),
             y, false);
    scale_rows(y, rows, entering);
    const Matrix<C> scaled{space_.state_rows + slot * kBlock * space_.channels, space_.channels};
    for (int64_t i = 0; i < rows; ++i) {
      space_.by_head(space_.out, head)[begin + i] = dot(gy.row(i), y.row(i), space_.channels);
      std::copy_n(gy.row(i), space_.channels, scaled.row(i));
    }
    scale_rows(scaled, rows, entering);
    multiply(rows, space_.states, shape_.head_dim, scaled, space_.channel_states(space_.h0, head),
             dC, true);
  }

  /// v and dB of the columns [begin, begin + kBlock), rows from begin on.
  void columns_block(int64_t group, int64_t slot, int64_t begin) {
    const int64_t rows = HWY_MIN(kBlock, count() - begin), cols = count() - begin;
    const Matrix<C> B = space_.token_states(space_.B, group).from(begin);
    const Matrix<C> dB = space_.token_states(space_.dB, group).from(begin);
    clear(dB, rows, space_.states);
    for (int64_t h = 0; h < group_heads(); ++h) {
      const int64_t head = group * group_heads() + h;
      BlockDecays<C> decays(space_, slot, h, rows);
      decays_after(space_.by_head(space_.log_decay, head), begin, count(), &decays);
      if (leaves()) {
        cross_to_end(head, slot, begin, rows, B, dB);
      } else {
        clear(space_.token_channels(space_.v, head).from(begin), rows, space_.channels);
      }
    }
    const Matrix<C> scores = space_.block(space_.scores, slot);
    const Matrix<C> total = space_.block(space_.group_form, slot);
    for (int64_t c = 0; c < cols; c += ssd::kStrip) {
      const Strip strip{c, HWY_MIN(c + ssd::kStrip, cols)};
      multiply(rows, strip.whole<C>(), shape_.state, B,
               space_.state_tokens(space_.weights_t, group).columns(begin + c), scores, false);
      clear(total, rows, strip.whole<C>());
      for (int64_t h = 0; h < group_heads(); ++h) {
        BlockDecays<C> decays(space_, slot, h, rows);
        decays.cols = cols;
        columns_strip(decays, strip, group * group_heads() + h, slot, begin);
      }
      multiply(rows, space_.states, strip.end - c, total,
               space_.token_states(space_.weights, group).from(begin + c), dB, true);
    }
  }
  void columns_strip(const BlockDecays<C>& decays, const Strip& strip, int64_t head, int64_t slot,
                     int64_t begin) {
    const Matrix<C> products = space_.block(space_.products, slot);
    const Matrix<C> form = space_.block(space_.form, slot);
    apply_decays<false>(decays, strip, space_.block(space_.scores, slot),
                        static_cast<const C*>(nullptr), form);
    multiply(decays.rows, space_.channels, strip.end - strip.begin, form,
             space_.token_channels(space_.gy, head).from(begin + strip.begin),
             space_.token_channels(space_.v, head).from(begin), true);
    multiply(decays.rows, strip.whole<C>(), shape_.head_dim,
             space_.token_channels(space_.x, head).from(begin),
             space_.channel_tokens(space_.gyt, head).columns(begin + strip.begin), products, false);
    apply_decays<true>(decays, strip, products, space_.by_head(space_.delta, head) + begin,
                       space_.block(space_.group_form, slot));
  }

  /// v = e^(sums after j) U B, its part of what crosses, and its part of dB.
  void cross_to_end(int64_t head, int64_t slot, int64_t begin, int64_t rows, Matrix<C> B,
                    Matrix<C> dB) {
    const Matrix<C> v = space_.token_channels(space_.v, head).from(begin);
    const Matrix<C> x = space_.token_channels(space_.x, head).from(begin);
    const C* fall = space_.by_head(space_.fall, head) + begin;
    const C* delta = space_.by_head(space_.delta, head) + begin;
    multiply(rows, space_.channels, shape_.state, B, space_.state_channels(space_.ut, head), v,
             false);
    scale_rows(v, rows, fall);
    const Matrix<C> scaled{space_.state_rows + slot * kBlock * space_.channels, space_.channels};
    for (int64_t j = 0; j < rows; ++j) {
      space_.by_head(space_.in, head)[begin + j] =
          delta[j] * dot(x.row(j), v.row(j), space_.channels);
      std::copy_n(x.row(j), space_.channels, scaled.row(j));
    }
    scale_rows(scaled, rows, fall);
    scale_rows(scaled, rows, delta);
    multiply(rows, space_.states, shape_.head_dim, scaled, space_.channel_states(space_.u, head),
             dB, true);
  }

  /// across[m]: the gradient of the log-decay of token m.
  void add_across(int64_t head, C* across) {
    const C* out = space_.by_head(space_.out, head);
    const C* in = space_.by_head(space_.in, head);
    C through = 0;
    if (enters() && leaves()) {
      const Matrix<C> h0 = space_.channel_states(space_.h0, head);
      const Matrix<C> u = space_.channel_states(space_.u, head);
      for (int64_t p = 0; p < shape_.head_dim; ++p) {
        through += dot(h0.row(p), u.row(p), space_.states);
      }
      through *= space_.by_head(space_.entering, head)[count() - 1];
    }
    C from_h0 = 0;
    for (int64_t m = count() - 1; m >= 0; --m) {
      from_h0 += out[m];
      across[m] = through + from_h0;
    }
    C to_end = 0;
    for (int64_t m = 0; m < count(); to_end += in[m++]) {
      for (int64_t slot = 0; slot < ssd::kSlots; ++slot) {
        across[m] += space_.slot_sums(slot, head, shape_.heads)[m];
      }
      across[m] += to_end;
    }
  }

  void finish_steps(int64_t head) {
    const Run run = run_of(head);
    C* across = space_.by_head(space_.across, head);
    add_across(head, across);
    const C* delta = space_.by_head(space_.delta, head);
    const C* slope = space_.by_head(space_.slope, head);
    C* sums = space_.head_sums(head);
    C* dD = sums + kAlignment / static_cast<int64_t>(sizeof(C));
    for (int64_t t = 0; t < count(); ++t) {
      const C direct =
          recurrent::channel_gradients<T, C>(shape_, args_, run, t, delta[t],
                                             {space_.token_channels(space_.v, head).row(t),
                                              space_.token_channels(space_.gy, head).row(t),
                                              space_.token_channels(space_.y, head).row(t), dD});
      const C ddt = (direct + args_.in.A[head] * across[t]) * slope[t];
      if (args_.ddt) {
        args_.ddt.at(run.batch, token_at(args_.in, run, t), head) = static_cast<T>(ddt);
      }
      sums[0] += delta[t] * across[t];
      sums[1] += ddt;
    }
  }

  /// dh0 = e^(all) U + sum_i e^(sums up to i) gy_i C_i^T.
  void finish_state(int64_t head) {
    const Matrix<C> u = space_.channel_states(space_.u, head);
    if (count() > 0) {
      const Matrix<C> gy = space_.token_channels(space_.gy, head);
      const C* entering = space_.by_head(space_.entering, head);
      for (int64_t p = 0; p < shape_.head_dim; ++p) {
        scale_rows(u.from(p), 1, entering + count() - 1);
      }
      scale_rows(gy, count(), entering);
      multiply<true>(shape_.head_dim, space_.states, count(), gy,
                     space_.token_states(space_.weights, head / group_heads()), u, true);
    }
    C* to = state(args_.dh0, whole_.row, head);
    for (int64_t p = 0; p < shape_.head_dim; ++p) {
      std::copy_n(u.row(p), shape_.state, to + p * shape_.state);
    }
  }

  void write_shared(C* from, const TokenView<T>& to) const {
    const Words<C> d;
    for (int64_t group = 0; to && group < shape_.groups; ++group) {
      const Run run{whole_.batch, whole_.begin, count(), 0, group};
      for (int64_t t = 0; t < count(); ++t) {
        const C* row = space_.token_states(from, group).row(t);
        T* out = to.row(run.batch, token_at(args_.in, run, t)) + group * shape_.state;
        for (int64_t n = 0; n < shape_.state; n += kLanes<C>) {
          store_n(hn::Load(d, row + n), d, out + n,
                  static_cast<size_t>(HWY_MIN(kLanes<C>, shape_.state - n)));
        }
      }
    }
  }

  const SsdShape& shape_;
  const SsdBackward<T>& args_;
  const QuadraticSpace<C>& space_;
  ssd::Chunk whole_;
  int64_t slot_;
};

template <class T>
void backward(const SsdShape& shape, const SsdBackward<T>& args, Exec exec) {
  using C = accumulate_t<T>;
  const QuadraticSpace<C> space(shape, Direction::backward, exec.scratch);
  constexpr int64_t kWord = kAlignment / static_cast<int64_t>(sizeof(C));
  std::fill_n(space.sums, shape.heads * (kWord + space.channels), C(0));
  for (int64_t row = 0; row < shape.state_rows(); ++row) {
    const ssd::Chunk whole = ssd::whole_sequence(shape, args.in.cu_seqlens, row);
    BackwardSequence<T>(shape, args, space, whole).run(exec.threads);
  }
  const auto put = [&](C* to, int64_t at, C sum) {
    if (to != nullptr) ssd::put_gradient(args.accumulate, sum, to + at);
  };
  for (int64_t head = 0; head < shape.heads; ++head) {
    const C* sums = space.head_sums(head);
    put(args.dA, head, sums[0]);
    put(args.ddt_bias, head, sums[1]);
    C all = 0;
    for (int64_t p = 0; p < shape.head_dim; ++p) {
      if (shape.d_per_channel) put(args.dD, head * shape.head_dim + p, sums[kWord + p]);
      all += sums[kWord + p];
    }
    if (!shape.d_per_channel) put(args.dD, head, all);
  }
}

}  // namespace adder::HWY_NAMESPACE::quadratic

namespace adder::HWY_NAMESPACE {

ADDER_SIMD_FUNCTIONS(ssd_quadratic_backward, SsdShape, SsdBackward, quadratic::backward)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

ADDER_SIMD_DISPATCH(ssd_quadratic_backward, SsdShape, SsdBackward, ssd::quadratic_backward)

}  // namespace adder
#endif
