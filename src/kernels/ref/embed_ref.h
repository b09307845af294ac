// Sequential references of kernels/embed (math.md 7.1). absolute: sums of absolute values.
#pragma once

#include "kernels/embed/embed.h"

namespace adder::ref {

template <class T, class P>
void embed_forward(const EmbedShape& shape, const EmbedForward<T, P>& args, bool absolute = false);
template <class T>
void embed_backward(const EmbedShape& shape, const EmbedBackward<T>& args, bool absolute = false);

}  // namespace adder::ref
