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

/// The place that a product goes to.
template <class C>
struct TileOut {
  C* data;
  int64_t row;
  int64_t rows, cols;
  bool add = false;    // to what is there
  bool lower = false;  // only j <= i
};

/// A state that takes another one and a product: to = whole from + scale product. Rows of `to` and
/// `from` are `row` apart.
template <class C>
struct StateUpdate {
  C* to;
  const C* from;  // may be `to`; absent: zero
  int64_t row;
  int64_t rows, cols;
  C whole, scale;
};

/// As StateUpdate, with the product in rows of its own.
template <class C>
void update_state(const StateUpdate<C>& u, const C* product, int64_t product_row) {
  const Words<C> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto whole = hn::Set(d, u.whole), scale = hn::Set(d, u.scale);
  for (int64_t r = 0; r < u.rows; ++r) {
    for (int64_t c = 0; c < u.cols; c += lanes) {
      const auto n = static_cast<size_t>(HWY_MIN(lanes, u.cols - c));
      auto sum = hn::Mul(scale, load_n(d, product + r * product_row + c, n));
      if (u.from != nullptr) {
        sum = hn::MulAdd(whole, load_n(d, u.from + r * u.row + c, n), sum);
      }
      store_n(sum, d, u.to + r * u.row + c, n);
    }
  }
}

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
    TileProduct<C> p = product_of(one, two);
    p.rows = out.rows;
    p.cols = ssd::round_up(out.cols, static_cast<int64_t>(hn::Lanes(Words<C>())));
    p.out = out.data;
    p.out_row = out.row;
    p.add = out.add;
    p.lower_out = out.lower;
    tile_product(p);
  }

  /// `scratch` (rows, scratch_row) is for columns that are not whole words.
  void update(const StateUpdate<C>& u, const Term& term, C* scratch, int64_t scratch_row) const {
    if (u.cols % static_cast<int64_t>(hn::Lanes(Words<C>())) != 0) {
      product({.data = scratch, .row = scratch_row, .rows = u.rows, .cols = u.cols}, term);
      return update_state(u, scratch, scratch_row);
    }
    TileProduct<C> p = product_of(term, {});
    p.rows = u.rows;
    p.cols = u.cols;
    p.out = u.to;
    p.out_row = u.row;
    p.scale = u.scale;
    p.base = u.from;
    p.base_row = u.row;
    p.base_scale = u.whole;
    tile_product(p);
  }

 private:
  static TileProduct<C> product_of(const Term& one, const Term& two) {
    TileProduct<C> p;
    int64_t at = 0;
    for (const Term* term : {&one, &two}) {
      p.terms[at++] = {term->left.data, term->left.row, term->left.step, term->right.data,
                       term->right.row, term->depth,    term->reach};
    }
    return p;
  }
};

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
