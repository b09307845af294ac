// Token embedding (math.md 7.1): out[t] = table[ids[t]]. Thread-safe.
#pragma once

#include "core/context.h"
#include "layers/params.h"

namespace adder {

/// out (rows, table.cols); ids in [0, table.rows). The table has the type of T.
template <class T>
void embedding_forward(Context& context, int64_t rows, const int32_t* ids, const Matrix& table,
                       T* out);

/// out[i] = x[index[i]]: chosen rows of x (x_rows, width).
template <class T>
void gather_rows(Context& context, int64_t x_rows, int64_t width, const T* x, int64_t rows,
                 const int32_t* index, T* out);

/// dtable (table.rows, table.cols) += sum of g (rows, table.cols) over the rows of each id, in row
/// order. g comes in the type of the residual stream, R.
template <class T, class R>
void embedding_backward(Context& context, int64_t rows, const int32_t* ids, const Matrix& table,
                        const R* g, accumulate_t<T>* dtable);

}  // namespace adder
