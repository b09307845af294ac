// The functions behind the table: one set for each storage type, defined once for every SIMD
// target in s6_sequential.cpp, s6_chunked.cpp, s6_parallel.cpp, s6_backward.cpp and s6_complex.cpp.
#pragma once

#include "core/simd_line.h"
#include "kernels/s6/s6.h"

namespace adder::s6 {

template <class T>
void sequential_forward(const S6Shape& shape, const S6Forward<T>& args, Exec exec);
template <class T>
void chunked_forward(const S6Shape& shape, const S6Forward<T>& args, Exec exec);
template <class T>
void parallel_forward(const S6Shape& shape, const S6Forward<T>& args, Exec exec);

/// Serves the sequential and the chunked line: chunks from last to first, blocks of states.
template <class T>
void chunked_backward(const S6Shape& shape, const S6Backward<T>& args, Exec exec);
template <class T>
void parallel_backward(const S6Shape& shape, const S6Backward<T>& args, Exec exec);

/// Complex A: shapes that no other line accepts.
template <class T>
void complex_forward(const S6Shape& shape, const S6Forward<T>& args, Exec exec);
template <class T>
void complex_backward(const S6Shape& shape, const S6Backward<T>& args, Exec exec);

/// Scratch of the functions above.
template <class T>
int64_t sequential_scratch(const Caps& caps, const S6Shape& shape, Direction direction);
template <class T>
int64_t complex_scratch(const Caps& caps, const S6Shape& shape, Direction direction);
template <class T>
int64_t parallel_scratch(const Caps& caps, const S6Shape& shape, Direction direction);

}  // namespace adder::s6
