// What the doors of kernel families check, said in the same words by all of them.
#pragma once

#include <cstdint>
#include <string>

#include "core/view.h"

namespace adder {

/// The checks of one family: every failure is an Error "bad shape" at "<family>: <field>".
class Door {
 public:
  explicit constexpr Door(const char* family) : family_(family) {}

  [[noreturn]] void bad(const std::string& field, std::string expected, std::string got) const;
  void at_least(const char* field, int64_t value, int64_t least) const;
  void given(const char* field, bool present) const;
  template <class T>
  void unit_stride(const char* field, const TokenView<T>& view) const {
    if (view && view.channel_stride != 1) {
      bad(field, "channel stride 1", std::to_string(view.channel_stride));
    }
  }
  /// The integer arrays of a sequence kernel, which no shape can vouch for: cu_seqlens ascends
  /// from 0 to len, slots are >= 0, order names tokens below len. Null arrays are absent, except
  /// the cu_seqlens of a packed shape.
  template <class Shape, class Inputs>
  void sequence_arrays(const Shape& shape, const Inputs& in) const {
    if (shape.packed()) boundaries(in.cu_seqlens, shape.sequences, shape.len);
    slots(in.state_index, shape.state_rows());
    order(in.order, shape.len);
  }

 private:
  void boundaries(const int32_t* cu_seqlens, int64_t sequences, int64_t len) const;
  void slots(const int32_t* state_index, int64_t rows) const;
  void order(const int32_t* order, int64_t len) const;

  const char* family_;
};

}  // namespace adder
