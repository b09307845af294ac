// The functions behind the table: one set for each storage type.
#pragma once

#include "core/simd_line.h"
#include "kernels/ssd/ssd.h"

namespace adder::ssd {

/// The linear form: one token after the other, heads and channels side by side.
template <class T>
void recurrent_forward(const SsdShape& shape, const SsdForward<T>& args, Exec exec);
template <class T>
void recurrent_backward(const SsdShape& shape, const SsdBackward<T>& args, Exec exec);
template <class T>
int64_t recurrent_scratch(const Caps& caps, const SsdShape& shape, Direction direction);
template <class T>
double recurrent_us(const Caps& caps, const SsdShape& shape, Direction direction);

/// The masked matrix over the whole length: rows of up to kQuadraticTokens.
template <class T>
void quadratic_forward(const SsdShape& shape, const SsdForward<T>& args, Exec exec);
template <class T>
void quadratic_backward(const SsdShape& shape, const SsdBackward<T>& args, Exec exec);
template <class T>
int64_t quadratic_scratch(const Caps& caps, const SsdShape& shape, Direction direction);
bool quadratic_accepts(const Caps& caps, const SsdShape& shape);
template <class T>
double quadratic_us(const Caps& caps, const SsdShape& shape, Direction direction);

/// The block decomposition: products inside chunks, states between them.
template <class T>
void chunked_forward(const SsdShape& shape, const SsdForward<T>& args, Exec exec);
template <class T>
void chunked_backward(const SsdShape& shape, const SsdBackward<T>& args, Exec exec);
template <class T>
int64_t chunked_scratch(const Caps& caps, const SsdShape& shape, Direction direction);
bool chunked_accepts(const Caps& caps, const SsdShape& shape);
template <class T>
double chunked_us(const Caps& caps, const SsdShape& shape, Direction direction);

/// The same with products of bf16 operands on AMX, or by the dot product of AVX-512 BF16; scratch
/// as chunked_scratch<Bf16>.
bool amx_accepts(const Caps& caps, const SsdShape& shape);
void amx_forward(const SsdShape& shape, const SsdForward<Bf16>& args, Exec exec);
void amx_backward(const SsdShape& shape, const SsdBackward<Bf16>& args, Exec exec);
double amx_us(const Caps& caps, const SsdShape& shape, Direction direction);
bool avx512bf16_accepts(const Caps& caps, const SsdShape& shape);
void avx512bf16_forward(const SsdShape& shape, const SsdForward<Bf16>& args, Exec exec);
void avx512bf16_backward(const SsdShape& shape, const SsdBackward<Bf16>& args, Exec exec);
double avx512bf16_us(const Caps& caps, const SsdShape& shape, Direction direction);

}  // namespace adder::ssd
