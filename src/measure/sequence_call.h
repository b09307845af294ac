// The part that calls of sequence kernels share: the arrays that say where sequences begin, which
// states are theirs and in what order their tokens come.
#pragma once

#include "measure/call_options.h"

namespace adder::measure {

/// Slots are twice the rows: row r has slot 2 (rows - 1 - r) + 1. The order is from last to first.
struct SequenceArrays {
  Guarded<int32_t> cu, index, order;

  template <class Case>
  void make(const Case& given) {
    const auto& shape = given.shape;
    const int64_t rows = shape.state_rows();
    if (shape.packed()) {
      cu = filled<int32_t>(shape.sequences + 1,
                           [&](int64_t i) { return given.cu[static_cast<size_t>(i)]; });
    }
    if (given.indexed) {
      index = filled<int32_t>(rows, [&](int64_t r) { return 2 * (rows - 1 - r) + 1; });
    }
    if (given.reversed) {
      order = filled<int32_t>(shape.len, [&](int64_t t) { return shape.len - 1 - t; });
    }
  }
  template <class Inputs>
  void give(Side side, Inputs& in) const {
    in.cu_seqlens = cu.at(side);
    in.state_index = index.at(side);
    in.order = order.at(side);
  }
  void list(ArrayList& arrays) {
    arrays.input("cu_seqlens", cu);
    arrays.input("state_index", index);
    arrays.input("order", order);
  }
};

}  // namespace adder::measure
