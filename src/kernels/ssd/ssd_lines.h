// The functions behind the table: one set for each storage type.
#pragma once

#include "kernels/ssd/ssd.h"

namespace adder::ssd {

/// The linear form: one token after the other, heads and channels side by side.
template <class T>
void recurrent_forward(const SsdShape& shape, const SsdForward<T>& args, Exec exec);
template <class T>
void recurrent_backward(const SsdShape& shape, const SsdBackward<T>& args, Exec exec);
template <class T>
int64_t recurrent_scratch(const SsdShape& shape, Direction direction);
template <class T>
double recurrent_us(const Caps& caps, const SsdShape& shape, Direction direction);

/// The block decomposition: products inside chunks, states between them.
template <class T>
void chunked_forward(const SsdShape& shape, const SsdForward<T>& args, Exec exec);
template <class T>
void chunked_backward(const SsdShape& shape, const SsdBackward<T>& args, Exec exec);
template <class T>
int64_t chunked_scratch(const SsdShape& shape, Direction direction);
bool chunked_accepts(const Caps& caps, const SsdShape& shape);
template <class T>
double chunked_us(const Caps& caps, const SsdShape& shape, Direction direction);

}  // namespace adder::ssd
