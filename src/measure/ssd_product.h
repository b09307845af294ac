// One product of a chunk of `ssd`, for its bench.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/ssd/ssd_chunk_plan.h"

namespace adder::measure {

/// out (rows, cols) = left (rows, depth) right (depth, cols).
struct ChunkProduct {
  const char* name;
  int64_t rows, cols, depth;
  bool left_is_transposed = false;  // it lies as (depth, rows)
  bool lower_left = false;          // zero above the diagonal
  bool lower_out = false;           // only columns j <= i are wanted

  int64_t depth_of(int64_t i) const { return lower_left ? std::min(i + 1, depth) : depth; }
  int64_t cols_of(int64_t i) const { return lower_out ? std::min(i + 1, cols) : cols; }
  double flops() const {
    double sum = 0;
    for (int64_t i = 0; i < rows; ++i) sum += 2.0 * static_cast<double>(depth_of(i) * cols_of(i));
    return sum;
  }
  int64_t left_rows() const { return left_is_transposed ? depth : rows; }
  int64_t left_row() const { return ssd::padded_row(left_is_transposed ? rows : depth); }
  int64_t right_row() const { return ssd::padded_row(cols); }
  int64_t out_count() const { return ssd::round_up(rows, ssd::kRowBlock) * right_row(); }
};

/// Rows of left, right and out are left_row(), right_row(), right_row() apart.
template <class C>
struct ProductOperands {
  const C* left;
  const C* right;
  C* out;
};

}  // namespace adder::measure
