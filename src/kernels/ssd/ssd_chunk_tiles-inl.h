// The products of the chunked lines on operands in scratch memory, once per SIMD target. A set of
// tiles says how an operand is kept and multiplies two of them; FmaTiles multiplies in C by words.

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_SSD_CHUNK_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_SSD_CHUNK_TILES_INL_H_
#undef ADDER_SSD_CHUNK_TILES_INL_H_
#else
#define ADDER_SSD_CHUNK_TILES_INL_H_
#endif

#include <hwy/highway.h>

#include "core/subnormals.h"
#include "core/tile_product-inl.h"
#include "kernels/ssd/ssd_chunk_plan.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

/// A scratch matrix (rows, cols), `row` elements from row to row, whole words in a row.
template <class C>
struct Matrix {
  const C* data;
  int64_t row;
  int64_t rows, cols;
};

/// Where a product goes.
template <class C>
struct TileOut {
  C* data;
  int64_t row;
  int64_t rows, cols;
  bool add = false;
  bool lower = false;  // only j <= i
};

template <class C>
struct FmaTiles {
  struct Left {
    const C* data = nullptr;
    int64_t row = 0, step = 0;
  };
  struct Right {
    const C* data = nullptr;
    int64_t row = 0;
  };
  struct Term {
    Left left;
    Right right;
    int64_t depth = 0;
    Reach reach = Reach::full;
  };

  /// Lives around the products of one thread.
  struct Session {
    explicit Session(const FmaTiles&) {}
    FlushSubnormals flush;
  };

  /// Operands: of m, or of its transpose (_t), times scale. `slot` has room for the padded matrix.
  Left left(const Matrix<C>& m, C*) const { return {m.data, m.row, 1}; }
  Left left_t(const Matrix<C>& m, C*) const { return {m.data, 1, m.row}; }
  Right right(const Matrix<C>& m, C*) const { return {m.data, m.row}; }
  Right right_t(const Matrix<C>& m, C* slot, C scale = C(1)) const {
    const int64_t row = ssd::padded_row(m.rows);
    const int64_t whole = ssd::round_up(m.rows, static_cast<int64_t>(hn::Lanes(Words<C>())));
    transpose_tile(m.data, m.row, m.rows, m.cols, scale, slot, row);
    for (int64_t c = 0; whole != m.rows && c < m.cols; ++c) {
      std::fill(slot + c * row + m.rows, slot + c * row + whole, C(0));
    }
    return {slot, row};
  }

  using Out = TileOut<C>;
  void product(const Out& out, const Term& one, const Term& two = {}) const {
    TileProduct<C> p;
    p.rows = out.rows;
    p.cols = ssd::round_up(out.cols, static_cast<int64_t>(hn::Lanes(Words<C>())));
    p.out = out.data;
    p.out_row = out.row;
    p.add = out.add;
    p.lower_out = out.lower;
    int64_t at = 0;
    for (const Term* term : {&one, &two}) {
      p.terms[at++] = {term->left.data, term->left.row, term->left.step, term->right.data,
                       term->right.row, term->depth,    term->reach};
    }
    tile_product(p);
  }
};

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
