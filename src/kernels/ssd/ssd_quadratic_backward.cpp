// Line "quadratic", backward: math.md 4.4 with the whole sequence as one chunk. A block of rows i of
// the matrix gives dC, y and what crosses between tokens; a block of its columns j gives v and dB.
#include "core/subnormals.h"
#include "kernels/ssd/ssd_lines.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/ssd/ssd_quadratic_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/ssd/ssd_quadratic-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE::quadratic {

/// Adds E = scores o form to what crosses into each token m, for pairs j < m <= i:
/// crossing[m] += sum over rows i >= m, columns j < m. E replaces `form` on the diagonal block, and
/// form is added to `total` before.
template <class C>
void add_crossing(const BlockDecays<C>& decays, Matrix<C> scores, Matrix<C> form, Matrix<C> total,
                  C* column_sums, C* crossing) {
  const Words<C> d;
  const int64_t begin = decays.first;
  std::fill_n(column_sums, begin, C(0));
  for (int64_t i = 0; i < decays.rows; ++i) {
    auto row_sum = hn::Zero(d);
    for (int64_t j = 0; j < whole_words<C>(decays.cols); j += kLanes<C>) {
      const auto word = hn::Load(d, form.row(i) + j);
      const auto e = hn::Mul(word, hn::Load(d, scores.row(i) + j));
      hn::Store(hn::Add(hn::Load(d, total.row(i) + j), word), d, total.row(i) + j);
      if (j >= begin) {
        hn::Store(e, d, form.row(i) + j);
        continue;
      }
      row_sum = hn::Add(row_sum, e);
      hn::Store(hn::Add(hn::Load(d, column_sums + j), e), d, column_sums + j);
    }
    C prefix = hn::GetLane(hn::SumOfLanes(d, row_sum));
    for (int64_t m = 1; m <= i; ++m) {
      prefix += form.row(i)[begin + m - 1];
      crossing[begin + m] += prefix;
    }
  }
  C prefix = 0;
  for (int64_t m = 0; m < begin; ++m) {
    crossing[m] += prefix;
    prefix += column_sums[m];
  }
  crossing[begin] += prefix;
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

  BlockDecays<C> block_decays(int64_t slot, int64_t begin) const {
    BlockDecays<C> decays;
    decays.rows = HWY_MIN(kBlock, count() - begin);
    decays.diagonal = {space_.diagonal + slot * kBlock * kBlock, kBlock};
    decays.column = space_.columns + slot * space_.tokens;
    return decays;
  }
  void clear(Matrix<C> m, int64_t rows, int64_t cols) const {
    for (int64_t i = 0; i < rows; ++i) std::fill_n(m.row(i), cols, C(0));
  }

  /// dC of the rows; y of them where it is needed; pairs of tokens, and h0, crossing.
  void rows_block(int64_t group, int64_t slot, int64_t begin) {
    BlockDecays<C> decays = block_decays(slot, begin);
    const int64_t cols = begin + decays.rows, whole = whole_words<C>(cols);
    const Matrix<C> scores = space_.block(space_.scores, slot);
    const Matrix<C> products = space_.block(space_.products, slot);
    const Matrix<C> form = space_.block(space_.form, slot);
    const Matrix<C> total = space_.block(space_.group_form, slot);
    const Matrix<C> weights = space_.token_states(space_.weights, group).from(begin);
    const Matrix<C> dC = space_.token_states(space_.dC, group).from(begin);
    multiply(decays.rows, whole, shape_.state, weights, space_.state_tokens(space_.Bt, group),
             scores, false);
    clear(total, decays.rows, whole);
    clear(dC, decays.rows, space_.states);
    for (int64_t head = group * group_heads(); head < (group + 1) * group_heads(); ++head) {
      const Matrix<C> gy = space_.token_channels(space_.gy, head).from(begin);
      multiply(decays.rows, whole, shape_.head_dim, gy, space_.channel_tokens(space_.xt, head),
               products, false);
      decays_before(space_.by_head(space_.log_decay, head), space_.by_head(space_.delta, head),
                    begin, &decays);
      apply_decays<false>(decays, products, static_cast<const C*>(nullptr), form);
      add_crossing(decays, scores, form, total, space_.column_sums + slot * space_.tokens,
                   space_.slot_sums(slot, head, shape_.heads));
      if (enters()) cross_from_h0(head, slot, begin, decays.rows, weights, dC);
      if (!args_.in.z) continue;
      apply_decays<false>(decays, scores, static_cast<const C*>(nullptr), form);
      multiply(decays.rows, space_.channels, cols, form, space_.token_channels(space_.x, head),
               space_.token_channels(space_.y, head).from(begin), enters());
    }
    multiply(decays.rows, space_.states, cols, total, space_.token_states(space_.B, group), dC,
             true);
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
    BlockDecays<C> decays = block_decays(slot, begin);
    const int64_t cols = count() - begin, whole = whole_words<C>(cols);
    const Matrix<C> scores = space_.block(space_.scores, slot);
    const Matrix<C> products = space_.block(space_.products, slot);
    const Matrix<C> form = space_.block(space_.form, slot);
    const Matrix<C> total = space_.block(space_.group_form, slot);
    const Matrix<C> B = space_.token_states(space_.B, group).from(begin);
    const Matrix<C> dB = space_.token_states(space_.dB, group).from(begin);
    multiply(decays.rows, whole, shape_.state, B,
             space_.state_tokens(space_.weights_t, group).columns(begin), scores, false);
    clear(total, decays.rows, whole);
    clear(dB, decays.rows, space_.states);
    for (int64_t head = group * group_heads(); head < (group + 1) * group_heads(); ++head) {
      const Matrix<C> v = space_.token_channels(space_.v, head).from(begin);
      decays_after(space_.by_head(space_.log_decay, head), begin, count(), &decays);
      if (leaves()) cross_to_end(head, slot, begin, decays.rows, B, dB);
      apply_decays<false>(decays, scores, static_cast<const C*>(nullptr), form);
      multiply(decays.rows, space_.channels, cols, form,
               space_.token_channels(space_.gy, head).from(begin), v, leaves());
      multiply(decays.rows, whole, shape_.head_dim,
               space_.token_channels(space_.x, head).from(begin),
               space_.channel_tokens(space_.gyt, head).columns(begin), products, false);
      apply_decays<true>(decays, products, space_.by_head(space_.delta, head) + begin, total);
    }
    multiply(decays.rows, space_.states, cols, total,
             space_.token_states(space_.weights, group).from(begin), dB, true);
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
  int64_t saved = 0;
  for (int64_t row = 0; row < shape.state_rows(); ++row) {
    const ssd::Chunk whole = ssd::whole_sequence(shape, args.in.cu_seqlens, row, &saved);
    BackwardSequence<T>(shape, args, space, whole).run(exec.threads);
  }
  for (int64_t head = 0; head < shape.heads; ++head) {
    const C* sums = space.head_sums(head);
    if (args.dA != nullptr) args.dA[head] = sums[0];
    if (args.ddt_bias != nullptr) args.ddt_bias[head] = sums[1];
    if (args.dD == nullptr) continue;
    C all = 0;
    for (int64_t p = 0; p < shape.head_dim; ++p) {
      if (shape.d_per_channel) args.dD[head * shape.head_dim + p] = sums[kWord + p];
      all += sums[kWord + p];
    }
    if (!shape.d_per_channel) args.dD[head] = all;
  }
}

}  // namespace adder::HWY_NAMESPACE::quadratic

namespace adder::HWY_NAMESPACE {

void ssd_quadratic_backward_f64(const SsdShape& shape, const SsdBackward<double>& args, Exec exec) {
  quadratic::backward(shape, args, exec);
}
void ssd_quadratic_backward_f32(const SsdShape& shape, const SsdBackward<float>& args, Exec exec) {
  quadratic::backward(shape, args, exec);
}
void ssd_quadratic_backward_bf16(const SsdShape& shape, const SsdBackward<Bf16>& args, Exec exec) {
  quadratic::backward(shape, args, exec);
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

HWY_EXPORT(ssd_quadratic_backward_f64);
HWY_EXPORT(ssd_quadratic_backward_f32);
HWY_EXPORT(ssd_quadratic_backward_bf16);

namespace ssd {

template <>
void quadratic_backward(const SsdShape& shape, const SsdBackward<double>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(ssd_quadratic_backward_f64)(shape, args, exec);
}
template <>
void quadratic_backward(const SsdShape& shape, const SsdBackward<float>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(ssd_quadratic_backward_f32)(shape, args, exec);
}
template <>
void quadratic_backward(const SsdShape& shape, const SsdBackward<Bf16>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(ssd_quadratic_backward_bf16)(shape, args, exec);
}

}  // namespace ssd
}  // namespace adder
#endif
