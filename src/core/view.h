// Strided views of token tensors. They own nothing; the strides are in elements.
#pragma once

#include <cstdint>

namespace adder {

/// A (batch, len, channels) tensor, or a slice of a wider one: element (b, t, c) lies at
/// data[b * batch_stride + t * token_stride + c * channel_stride]. data == nullptr means absent.
template <class T>
struct TokenView {
  T* data = nullptr;
  int64_t batch_stride = 0;
  int64_t token_stride = 0;
  int64_t channel_stride = 1;

  constexpr explicit operator bool() const { return data != nullptr; }
  constexpr T* row(int64_t b, int64_t t) const {
    return data + b * batch_stride + t * token_stride;
  }
  constexpr T& at(int64_t b, int64_t t, int64_t c) const { return row(b, t)[c * channel_stride]; }
  /// The same tokens, channels from `first` on.
  constexpr TokenView slice(int64_t first) const {
    return {data + first * channel_stride, batch_stride, token_stride, channel_stride};
  }
  constexpr operator TokenView<const T>() const {
    return {data, batch_stride, token_stride, channel_stride};
  }
};

/// A dense (batch, len, channels) tensor.
template <class T>
constexpr TokenView<T> dense_view(T* data, int64_t len, int64_t channels) {
  return {data, len * channels, channels, 1};
}

}  // namespace adder
