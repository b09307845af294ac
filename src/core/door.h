// The checks that the doors of all kernel families share: sizes, strides and presence, refused in
// the same words. A door never reads the contents of an array, which may lie on a device; contents
// are checked once, where they enter the engine (core/contents.h).
#pragma once

#include <cstdint>
#include <string>

#include "core/kernel_table.h"
#include "core/view.h"

namespace adder {

/// The checks of one family. Every failure is an Error: "<family>: <field>: bad shape: ...".
class Door {
 public:
  explicit constexpr Door(const char* family) : family_(family) {}
  constexpr const char* family() const { return family_; }

  [[noreturn]] void bad(const std::string& field, std::string expected, std::string got) const;
  void at_least(const char* field, int64_t value, int64_t least) const;
  /// A finite number, at least `least`.
  void number(const char* field, double value, double least) const;
  /// `value` divides `whole`, which has the name `of`.
  void divides(const char* field, int64_t value, const char* of, int64_t whole) const;
  void given(const char* field, bool present) const;
  template <class T>
  void given(const char* field, const TokenView<T>& view) const {
    given(field, view.data != nullptr);
  }
  /// `count` elements, which may be absent where there are none.
  void array(const char* field, const void* data, int64_t count) const {
    given(field, count == 0 || data != nullptr);
  }
  /// A (rows, width) array whose rows are `stride` apart; a failure names "<field>_stride".
  void matrix(const char* field, const void* data, int64_t stride, int64_t rows,
              int64_t width) const;
  template <class T>
  void unit_stride(const char* field, const TokenView<T>& view) const {
    if (view && view.channel_stride != 1) {
      bad(field, "channel stride 1", std::to_string(view.channel_stride));
    }
  }
  /// Rows of `width` elements, `stride` apart, do not overlap.
  void row_stride(const char* field, int64_t stride, int64_t rows, int64_t width) const;
  /// A packed call has cu_seqlens.
  template <class Shape, class Inputs>
  void sequence_arrays(const Shape& shape, const Inputs& in) const {
    if (shape.packed()) given("cu_seqlens", in.cu_seqlens != nullptr);
  }

 private:
  const char* family_;
};

namespace door_detail {
template <class T>
bool starts16(const T* data, int64_t stride) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 &&
         stride * static_cast<int64_t>(sizeof(T)) % 16 == 0;
}
template <class T>
void see(Layout& layout, const TokenView<T>& view) {
  if (!view) return;
  layout.unit_stride = layout.unit_stride && view.channel_stride == 1;
  layout.rows16 = layout.rows16 && starts16(view.data, view.batch_stride) &&
                  starts16(view.data, view.token_stride);
}
}  // namespace door_detail

/// The layout of the views of a call; absent views do not count.
template <class... Views>
Layout layout_of(const Views&... views) {
  Layout layout;
  (door_detail::see(layout, views), ...);
  return layout;
}
/// The layout of a sequence kernel's call, whose inputs also tell whether there are an order and
/// slots.
template <class Inputs, class... Views>
Layout sequence_layout(const Inputs& in, const Views&... views) {
  Layout layout = layout_of(views...);
  layout.order = in.order != nullptr;
  layout.slots = in.state_index != nullptr;
  return layout;
}

}  // namespace adder

/// Instantiates a door: NAME(context, shape, args, choice), whose types follow from the last
/// argument, that of args.
#define ADDER_DOOR(NAME, SHAPE, ...) \
  template void NAME(Context&, const SHAPE&, const __VA_ARGS__&, const Choice&);
