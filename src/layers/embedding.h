// Token embedding (math.md 7.1): out[t] = table[ids[t]]. Thread-safe.
#pragma once

#include "core/context.h"
#include "layers/params.h"

namespace adder {

/// out (rows, table.cols); ids in [0, table.rows), else Error. The table has the type of T.
template <class T>
void embedding_forward(Context& context, int64_t rows, const int32_t* ids, const Matrix& table,
                       T* out);

/// dtable (table.rows, table.cols) += sum of g (rows, table.cols) over the rows of each id, in row
/// order.
template <class T>
void embedding_backward(Context& context, int64_t rows, const int32_t* ids, const Matrix& table,
                        const accumulate_t<T>* g, accumulate_t<T>* dtable);

}  // namespace adder
