#include "layers/embedding.h"

#include <type_traits>

#include "kernels/embed/embed.h"
#include "kernels/pointwise/pointwise.h"

namespace adder {
namespace {

EmbedShape shape_of(int64_t rows, const Matrix& table) {
  EmbedShape shape;
  shape.rows = rows;
  shape.vocab = table.rows;
  shape.width = table.cols;
  return shape;
}

}  // namespace

template <class T>
void embedding_forward(Context& context, int64_t rows, const int32_t* ids, const Matrix& table,
                       T* out) {
  EmbedForward<T, T> args;
  args.ids = ids;
  args.table = table.as<T>();
  args.out = out;
  embed_forward(context, shape_of(rows, table), args);
}

template <class T>
void gather_rows(Context& context, int64_t x_rows, int64_t width, const T* x, int64_t rows,
                 const int32_t* index, T* out) {
  embed_forward<T, T>(context, {rows, x_rows, width}, {index, x, out});
}

template <class T, class R>
void embedding_backward(Context& context, int64_t rows, const int32_t* ids, const Matrix& table,
                        const R* g, accumulate_t<T>* dtable) {
  using Acc = accumulate_t<T>;
  Arena::Scope scope(*context.arena);
  EmbedBackward<T> args;
  args.ids = ids;
  if constexpr (std::is_same_v<R, Acc>) {
    args.g = g;
  } else {
    Acc* widened = context.arena->take<Acc>(rows * table.cols);
    convert<R, Acc>(context, {rows, table.cols}, {g, widened});
    args.g = widened;
  }
  args.dtable = dtable;
  args.accumulate = true;
  embed_backward<T, T>(context, shape_of(rows, table), args);
}

#define ADDER_EMBEDDING(T)                                                                  \
  template void embedding_forward<T>(Context&, int64_t, const int32_t*, const Matrix&, T*); \
  template void gather_rows<T>(Context&, int64_t, int64_t, const T*, int64_t, const int32_t*, T*);
ADDER_EMBEDDING(double)
ADDER_EMBEDDING(float)
ADDER_EMBEDDING(Bf16)
#undef ADDER_EMBEDDING

#define ADDER_EMBEDDING_BACKWARD(T, R)                                                     \
  template void embedding_backward<T, R>(Context&, int64_t, const int32_t*, const Matrix&, \
                                         const R*, accumulate_t<T>*);
ADDER_EMBEDDING_BACKWARD(double, double)
ADDER_EMBEDDING_BACKWARD(float, float)
ADDER_EMBEDDING_BACKWARD(Bf16, float)
ADDER_EMBEDDING_BACKWARD(Bf16, Bf16)
#undef ADDER_EMBEDDING_BACKWARD

}  // namespace adder
