#include "kernels/ref/embed_ref.h"

#include <cmath>

namespace adder::ref {

template <class T, class P>
void embed_forward(const EmbedShape& shape, const EmbedForward<T, P>& args, bool absolute) {
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t c = 0; c < shape.width; ++c) {
      const int64_t at = int64_t{args.ids[row]} * shape.width + c;
      const auto value = static_cast<accumulate_t<T>>(args.table[at]);
      args.out[row * shape.width + c] = static_cast<T>(absolute ? std::abs(value) : value);
    }
  }
}

template <class T>
void embed_backward(const EmbedShape& shape, const EmbedBackward<T>& args, bool absolute) {
  for (int64_t i = 0; i < shape.vocab * shape.width; ++i) {
    if (!args.accumulate) args.dtable[i] = 0;
    if (absolute) args.dtable[i] = std::abs(args.dtable[i]);
  }
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t c = 0; c < shape.width; ++c) {
      const auto g = args.g[row * shape.width + c];
      args.dtable[int64_t{args.ids[row]} * shape.width + c] += absolute ? std::abs(g) : g;
    }
  }
}

#define ADDER_EMBED_REF(T, P) \
  template void embed_forward<T, P>(const EmbedShape&, const EmbedForward<T, P>&, bool);
ADDER_EMBED_REF(double, double)
ADDER_EMBED_REF(float, float)
ADDER_EMBED_REF(Bf16, Bf16)
ADDER_EMBED_REF(float, Bf16)
#undef ADDER_EMBED_REF
template void embed_backward<double>(const EmbedShape&, const EmbedBackward<double>&, bool);
template void embed_backward<float>(const EmbedShape&, const EmbedBackward<float>&, bool);
template void embed_backward<Bf16>(const EmbedShape&, const EmbedBackward<Bf16>&, bool);

}  // namespace adder::ref
