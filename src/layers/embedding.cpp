#include "layers/embedding.h"

#include "kernels/embed/embed.h"

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
void embedding_backward(Context& context, int64_t rows, const int32_t* ids, const Matrix& table,
                        const accumulate_t<T>* g, accumulate_t<T>* dtable) {
  EmbedBackward<T> args;
  args.ids = ids;
  args.g = g;
  args.dtable = dtable;
  embed_backward<T, T>(context, shape_of(rows, table), args);
}

#define ADDER_EMBEDDING(T)                                                                  \
  template void embedding_forward<T>(Context&, int64_t, const int32_t*, const Matrix&, T*); \
  template void embedding_backward<T>(Context&, int64_t, const int32_t*, const Matrix&,     \
                                      const accumulate_t<T>*, accumulate_t<T>*);
ADDER_EMBEDDING(double)
ADDER_EMBEDDING(float)
ADDER_EMBEDDING(Bf16)
#undef ADDER_EMBEDDING

}  // namespace adder
