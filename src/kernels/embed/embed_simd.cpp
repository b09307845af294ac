// Token embedding: rows gathered, and their gradients summed id by id (math.md 7.1).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/embed/embed_simd.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/simd-inl.h"
#include "core/threads.h"
#include "kernels/embed/embed_lines.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

template <class T, class P>
HWY_NOINLINE void copy_row(const P* from, T* to, int64_t width) {
  const Words<accumulate_t<T>> d;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(width);
  for (size_t i = 0; i < n; i += lanes) {
    const size_t rest = std::min(lanes, n - i);
    store_n(load_n(d, from + i, rest), d, to + i, rest);
  }
}

template <class C>
HWY_NOINLINE void add_row(const C* from, C* to, int64_t width) {
  const Words<C> d;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(width);
  for (size_t i = 0; i < n; i += lanes) {
    const size_t rest = std::min(lanes, n - i);
    store_n(hn::Add(load_n(d, to + i, rest), load_n(d, from + i, rest)), d, to + i, rest);
  }
}

template <class T, class P>
void gather_forward(const EmbedShape& shape, const EmbedForward<T, P>& args, Exec exec) {
  const EmbedBlocks cut(shape, shape.width);
  parallel_for(EmbedBlocks::threads(shape, exec.threads), cut.row_items, [&](int64_t item) {
    const int64_t last = std::min((item + 1) * cut.rows, shape.rows);
    for (int64_t row = item * cut.rows; row < last; ++row) {
      copy_row(args.table + int64_t{args.ids[row]} * shape.width, args.out + row * shape.width,
               shape.width);
    }
  });
}

// Counting sort: sorted holds the rows by id, rows of one id in row order; ends[id] is where the
// rows of `id` end (and those of id + 1 begin).
inline void sort_rows(const EmbedShape& shape, const int32_t* ids, int32_t* ends, int32_t* sorted) {
  std::fill(ends, ends + shape.vocab + 1, 0);
  for (int64_t row = 0; row < shape.rows; ++row) ++ends[ids[row] + 1];
  for (int64_t id = 0; id < shape.vocab; ++id) ends[id + 1] += ends[id];
  for (int64_t row = 0; row < shape.rows; ++row) {
    sorted[ends[ids[row]]++] = static_cast<int32_t>(row);
  }
}

// The rows sorted by id, and the part of them that one item starts from.
struct EmbedStretch {
  const int32_t* ends;
  const int32_t* sorted;
  int64_t first, last, column, width;
};

// dtable[id] += the rows of g with that id, in row order, for the ids whose first sorted row lies
// in [first, last) and for columns [column, column + width).
template <class T>
void add_stretch(const EmbedShape& shape, const EmbedBackward<T>& args, const EmbedStretch& part) {
  const auto id_of = [&](int64_t i) { return int64_t{args.ids[part.sorted[i]]}; };
  int64_t i = part.first;
  if (i > 0 && id_of(i) == id_of(i - 1)) i = part.ends[id_of(i)];
  while (i < part.last) {
    const int64_t id = id_of(i);
    for (; i < part.ends[id]; ++i) {
      add_row(args.g + part.sorted[i] * shape.width + part.column,
              args.dtable + id * shape.width + part.column, part.width);
    }
  }
}

template <class C>
void zero_table(const EmbedShape& shape, C* dtable, int threads) {
  const int64_t count = shape.vocab * shape.width;
  constexpr int64_t kItem = EmbedBlocks::kElements;
  parallel_for(threads, (count + kItem - 1) / kItem, [&](int64_t item) {
    std::fill(dtable + item * kItem, dtable + std::min(count, (item + 1) * kItem), C(0));
  });
}

template <class T>
void sorted_backward(const EmbedShape& shape, const EmbedBackward<T>& args, Exec exec) {
  auto* ends = exec.carve<int32_t>(shape.vocab + 1);
  auto* sorted = exec.carve<int32_t>(shape.rows);
  sort_rows(shape, args.ids, ends, sorted);
  const EmbedBlocks cut(shape, EmbedBlocks::kColumns);
  const int threads = EmbedBlocks::threads(shape, exec.threads);
  if (!args.accumulate) zero_table(shape, args.dtable, threads);
  parallel_for(threads, cut.row_items * cut.column_items, [&](int64_t item) {
    const int64_t first = item / cut.column_items * cut.rows;
    const int64_t column = item % cut.column_items * EmbedBlocks::kColumns;
    add_stretch(shape, args,
                {ends, sorted, first, std::min(first + cut.rows, shape.rows), column,
                 std::min(EmbedBlocks::kColumns, shape.width - column)});
  });
}

ADDER_SIMD_FUNCTION(gather_f64, gather_forward, EmbedShape, EmbedForward<double, double>)
ADDER_SIMD_FUNCTION(gather_f32, gather_forward, EmbedShape, EmbedForward<float, float>)
ADDER_SIMD_FUNCTION(gather_bf16, gather_forward, EmbedShape, EmbedForward<Bf16, Bf16>)
ADDER_SIMD_FUNCTION(gather_f32_bf16, gather_forward, EmbedShape, EmbedForward<float, Bf16>)
ADDER_SIMD_FUNCTIONS(sum, EmbedShape, EmbedBackward, sorted_backward)

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

ADDER_SIMD_LINE(gather_f64, embed_gather_forward, EmbedShape, EmbedForward<double, double>)
ADDER_SIMD_LINE(gather_f32, embed_gather_forward, EmbedShape, EmbedForward<float, float>)
ADDER_SIMD_LINE(gather_bf16, embed_gather_forward, EmbedShape, EmbedForward<Bf16, Bf16>)
ADDER_SIMD_LINE(gather_f32_bf16, embed_gather_forward, EmbedShape, EmbedForward<float, Bf16>)
ADDER_SIMD_DISPATCH(sum, EmbedShape, EmbedBackward, embed_sorted_backward)

}  // namespace adder
#endif
