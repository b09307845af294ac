// Kernel family `embed`: rows of a table by id (token embedding, math.md 7.1; copies of chosen
// rows). Thread-safe.
//
// embed.h, .cpp     doors and table
// embed_lines.h     how work is cut
// embed_simd.cpp    rows gathered, and their gradients summed id by id
//
// forward: out[i] = table[ids[i]]; backward: dtable[id] (+)= g of each row with that id, one after
// the other in row order (no atomics).
// <T, P>: T is the type of activations, P that of the table. Instantiated for <double, double>,
// <float, float>, <Bf16, Bf16> and <float, Bf16>.
#pragma once

#include <cstdint>
#include <string>

#include "core/kernel_table.h"

namespace adder {

struct EmbedShape {
  int64_t rows = 0;   // tokens
  int64_t vocab = 0;  // rows of the table
  int64_t width = 0;

  void check() const;
  Cost cost(Direction direction, Dtype dtype) const;
  std::string describe() const;
};

template <class T, class P>
struct EmbedForward {
  const int32_t* ids = nullptr;  // (rows), each in [0, vocab)
  const P* table = nullptr;      // (vocab, width)
  T* out = nullptr;              // (rows, width)
};

/// g comes in the type of the residual stream, which is that of dtable.
template <class T>
struct EmbedBackward {
  const int32_t* ids = nullptr;
  const accumulate_t<T>* g = nullptr;  // (rows, width)
  accumulate_t<T>* dtable = nullptr;   // (vocab, width)
  bool accumulate = false;             // dtable is added to; else written, zeros for absent ids
};

template <class T, class P>
using EmbedLine = Line<EmbedShape, TwoWay<EmbedShape, EmbedForward<T, P>, EmbedBackward<T>>>;
template <class T, class P>
std::span<const EmbedLine<T, P>> embed_lines();
template <class T, class P>
void embed_forward(Context& context, const EmbedShape& shape, const EmbedForward<T, P>& args,
                   const Choice& choice = {});
template <class T, class P>
void embed_backward(Context& context, const EmbedShape& shape, const EmbedBackward<T>& args,
                    const Choice& choice = {});

}  // namespace adder
