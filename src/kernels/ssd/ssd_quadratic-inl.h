// Forward and backward of the quadratic form share this, once per SIMD target: a row of the batch
// in dense matrices, and the decays of a block of its masked matrix (math.md 4.2).
//
// L_ij = e^(sum of delta A over (j, i]) for j <= i. With the block's rows [r, r + n): where j < r
// the sum splits at r into two sums that both begin there, so that each exponent is <= 0, nothing
// cancels, and a block needs one exponential a token. On the diagonal each sum stands alone.

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_SSD_QUADRATIC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_SSD_QUADRATIC_INL_H_
#undef ADDER_SSD_QUADRATIC_INL_H_
#else
#define ADDER_SSD_QUADRATIC_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>

#include "core/threads.h"
#include "core/tile_product-inl.h"
#include "kernels/ssd/ssd_outputs-inl.h"
#include "kernels/ssd/ssd_quadratic_space.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE::quadratic {

using recurrent::kLanes;
using recurrent::Run;
using recurrent::token_at;
using ssd::kBlock;
using ssd::Matrix;
using ssd::QuadraticSpace;

template <class C>
constexpr int64_t whole_words(int64_t count) {
  return (count + kLanes<C> - 1) / kLanes<C> * kLanes<C>;
}

/// out (+)= a b, or a^T b with a (depth, rows); cols and the rows of b and out are whole words.
template <bool kTransposed = false, class C>
void multiply(int64_t rows, int64_t cols, int64_t depth, Matrix<C> a, Matrix<C> b, Matrix<C> out,
              bool add) {
  TileProduct<C> product;
  product.rows = rows;
  product.cols = cols;
  product.out = out.at;
  product.out_row = out.stride;
  product.base = add ? out.at : nullptr;
  product.base_row = out.stride;
  product.terms[0].a = a.at;
  product.terms[0].a_row = kTransposed ? 1 : a.stride;
  product.terms[0].a_step = kTransposed ? a.stride : 1;
  product.terms[0].b = b.at;
  product.terms[0].b_row = b.stride;
  product.terms[0].depth = depth;
  tile_product(product);
}

/// to = from^T with zeros in the columns [rows, to.stride).
template <class C>
void transpose(Matrix<C> from, int64_t rows, int64_t cols, Matrix<C> to) {
  transpose_tile(from.at, from.stride, rows, cols, C(1), to.at, to.stride);
  for (int64_t c = 0; c < cols; ++c) std::fill(to.row(c) + rows, to.row(c) + to.stride, C(0));
}

template <class C>
void exponentials(const C* from, int64_t count, C* to) {
  const Words<C> d;
  for (int64_t t = 0; t < count; t += kLanes<C>) {
    hn::StoreU(exp_word(d, hn::LoadU(d, from + t)), d, to + t);
  }
}

template <class C>
void clear(Matrix<C> m, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) std::fill_n(m.row(i), cols, C(0));
}

/// row t of m *= scale[t], all columns.
template <class C>
void scale_rows(Matrix<C> m, int64_t rows, const C* scale) {
  const Words<C> d;
  for (int64_t t = 0; t < rows; ++t) {
    const auto factor = hn::Set(d, scale[t]);
    for (int64_t c = 0; c < m.stride; c += kLanes<C>) {
      hn::Store(hn::Mul(factor, hn::Load(d, m.row(t) + c)), d, m.row(t) + c);
    }
  }
}

template <class C>
C dot(const C* a, const C* b, int64_t words_of) {
  const Words<C> d;
  auto sum = hn::Zero(d);
  for (int64_t c = 0; c < words_of; c += kLanes<C>) {
    sum = hn::MulAdd(hn::Load(d, a + c), hn::Load(d, b + c), sum);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

// ---- a row of the batch ------------------------------------------------------------------------

/// (head_dim, state) rows of `from` with zeros in the padding, and their transpose; all zeros where
/// `from` is absent.
template <class C>
void load_state(const SsdShape& shape, const C* from, Matrix<C> rows, Matrix<C> transposed) {
  for (int64_t p = 0; p < shape.head_dim; ++p) {
    std::fill_n(rows.row(p), rows.stride, C(0));
    if (from != nullptr) std::copy_n(from + p * shape.state, shape.state, rows.row(p));
  }
  transpose(rows, shape.head_dim, rows.stride, transposed);
}

/// Zeros from the end of the last word of `cols` to the end of each row: narrow targets leave more.
template <class C>
void clear_padding(Matrix<C> m, int64_t rows, int64_t cols) {
  for (int64_t t = 0; t < rows; ++t) {
    std::fill(m.row(t) + whole_words<C>(cols), m.row(t) + m.stride, C(0));
  }
}

/// Steps and x of one head; run covers the whole sequence.
template <class T, class C = accumulate_t<T>>
void enter_head(const SsdShape& shape, const SsdInputs<T>& in, const Run& run,
                const QuadraticSpace<C>& space) {
  C* delta = space.by_head(space.delta, run.head);
  C* logs = space.by_head(space.log_decay, run.head);
  recurrent::find_steps<T, C>(shape, in, run, {delta, logs, space.by_head(space.slope, run.head)});
  for (int64_t t = 0; t < run.count; ++t) logs[t] = delta[t] * in.A[run.head];
  C* entering = space.by_head(space.entering, run.head);
  C* fall = space.by_head(space.fall, run.head);
  std::fill(entering, entering + space.tokens, C(0));
  std::fill(fall, fall + space.tokens, C(0));
  C sum = 0;
  for (int64_t t = 0; t < run.count; ++t) entering[t] = sum += logs[t];
  sum = 0;
  for (int64_t t = run.count - 1; t >= 0; sum += logs[t--]) fall[t] = sum;
  exponentials(entering, space.tokens, entering);
  exponentials(fall, space.tokens, fall);
  const Matrix<C> x = space.token_channels(space.x, run.head);
  recurrent::channel_rows(in, in.x, run, run.head * shape.head_dim, shape.head_dim,
                          static_cast<const C*>(nullptr), x.stride, x.at);
  clear_padding(x, run.count, shape.head_dim);
}

/// Rows of B or C of one group.
template <class T, class C = accumulate_t<T>>
void enter_group(const SsdShape& shape, const SsdInputs<T>& in, const TokenView<const T>& view,
                 const Run& run, Matrix<C> rows) {
  recurrent::state_rows(shape, in, view, run, 0, rows.stride, rows.at);
}

// ---- decays ------------------------------------------------------------------------------------

/// Decays of a block of rows: (kBlock, kBlock) at the columns from `first` on, row[k] column[c]
/// elsewhere. A view of scratch that belongs to a slot and a head.
template <class C>
struct BlockDecays {
  int64_t rows;
  int64_t cols = 0;   // that matter
  int64_t first = 0;  // column of the diagonal block
  Matrix<C> diagonal;
  C* row;       // (kBlock)
  C* row_sums;  // (kBlock): of what crosses
  C* column;    // (cols, whole words)

  BlockDecays(const QuadraticSpace<C>& space, int64_t slot, int64_t head_in_group, int64_t count)
      : rows(count) {
    const int64_t at = slot * space.group_heads + head_in_group;
    diagonal = {space.diagonal + at * kBlock * kBlock, kBlock};
    row = space.rows + at * 2 * kBlock;
    row_sums = row + kBlock;
    column = space.columns + at * space.tokens;
  }
};

/// Columns [begin, end) of a block of rows.
struct Strip {
  int64_t begin;
  int64_t end;
  template <class C>
  int64_t whole() const {
    return whole_words<C>(end - begin);
  }
};

/// L of rows i in [begin, begin + rows), columns j in [0, begin + rows), times delta_j.
template <class C>
void decays_before(const C* logs, const C* delta, int64_t begin, BlockDecays<C>* out) {
  std::fill_n(out->row_sums, kBlock, C(0));
  out->first = begin;
  out->cols = begin + out->rows;
  C sum = 0;
  for (int64_t j = begin - 1; j >= 0; sum += logs[j--]) out->column[j] = sum;
  exponentials(out->column, begin, out->column);
  for (int64_t j = 0; j < begin; ++j) out->column[j] *= delta[j];
  sum = 0;
  for (int64_t i = 0; i < kBlock; ++i) out->row[i] = i < out->rows ? sum += logs[begin + i] : C(0);
  exponentials(out->row, kBlock, out->row);
  for (int64_t i = 0; i < out->rows; ++i) {
    C* decay = out->diagonal.row(i);
    sum = 0;
    for (int64_t j = i; j >= 0; sum += logs[begin + j--]) decay[j] = sum;
    std::fill(decay + i + 1, decay + kBlock, C(0));
    exponentials(decay, kBlock, decay);
    for (int64_t j = 0; j <= i; ++j) decay[j] *= delta[begin + j];
    std::fill(decay + i + 1, decay + kBlock, C(0));
  }
}

/// L transposed: rows j in [begin, begin + rows), columns i - begin for i in [begin, count).
template <class C>
void decays_after(const C* logs, int64_t begin, int64_t count, BlockDecays<C>* out) {
  const int64_t end = begin + out->rows;
  out->first = 0;
  out->cols = count - begin;
  C sum = 0;
  for (int64_t i = end; i < count; ++i) out->column[i - begin] = sum += logs[i];
  std::fill(out->column + out->cols, out->column + whole_words<C>(out->cols), C(0));
  if (count > end) {
    exponentials(out->column + kBlock, count - end, out->column + kBlock);
  }
  sum = 0;
  std::fill(out->row, out->row + kBlock, C(0));
  for (int64_t j = out->rows - 1; j >= 0; sum += logs[begin + j--]) out->row[j] = sum;
  exponentials(out->row, kBlock, out->row);
  for (int64_t j = 0; j < out->rows; ++j) {
    C* decay = out->diagonal.row(j);
    std::fill(decay, decay + kBlock, C(0));
    sum = 0;
    for (int64_t i = j; i < out->rows; ++i) {
      decay[i] = sum;
      if (i + 1 < out->rows) sum += logs[begin + i + 1];
    }
    exponentials(decay, kBlock, decay);
    std::fill(decay, decay + j, C(0));
    std::fill(decay + out->rows, decay + kBlock, C(0));
  }
}

/// to (+)= from o decays in the columns of a strip, row k times scale[k] where given; columns past
/// decays.cols in the last word become 0.
template <bool kAdd, class C>
void apply_decays(const BlockDecays<C>& decays, const Strip& strip, Matrix<C> from, const C* scale,
                  Matrix<C> to) {
  const Words<C> d;
  for (int64_t k = 0; k < decays.rows; ++k) {
    const C factor = scale != nullptr ? scale[k] : C(1);
    const auto row = hn::Set(d, decays.row[k] * factor), same = hn::Set(d, factor);
    const C* in = from.row(k);
    C* out = to.row(k);
    for (int64_t c = strip.begin; c < strip.end;
         c += kLanes<C>, in += kLanes<C>, out += kLanes<C>) {
      const bool diagonal = c >= decays.first && c < decays.first + kBlock;
      auto word = diagonal ? hn::Mul(same, hn::Load(d, decays.diagonal.row(k) + c - decays.first))
                           : hn::Mul(row, hn::Load(d, decays.column + c));
      // Scores past the end may be anything.
      const auto left = static_cast<size_t>(HWY_MIN(kLanes<C>, decays.cols - c));
      word = hn::Mul(word, load_n(d, in, left));
      hn::Store(kAdd ? hn::Add(hn::Load(d, out), word) : word, d, out);
    }
  }
}

}  // namespace adder::HWY_NAMESPACE::quadratic
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
