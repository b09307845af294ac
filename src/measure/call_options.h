// The parts of every family's call: the text of its options, arrays that some options ask for.
#pragma once

#include <string>
#include <vector>

#include "measure/call.h"

namespace adder::measure {

/// Lists the options that are on.
class OptionText {
 public:
  explicit OptionText(std::string text) : text_(std::move(text)) {}
  OptionText& on(bool option, const char* name) {
    if (option) (text_ += ' ') += name;
    return *this;
  }
  template <class Number>
  OptionText& number(Number value, Number usual, const char* name) {
    on(value != usual, name);
    if (value != usual) text_ += ' ' + std::to_string(value);
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

/// Makes arrays of `count` elements, if wanted.
template <class T, class... Arrays>
void make_arrays(bool wanted, int64_t count, Guarded<T>& first, Arrays&... more) {
  if (!wanted) return;
  first = Guarded<T>(count);
  ((more = Guarded<T>(count)), ...);
}

/// Copies of every `step`-th case, in which sums of gradients are added to what is there.
template <class Case>
void append_accumulating(std::vector<Case>& cases, size_t step = 1) {
  const size_t count = cases.size();
  for (size_t i = 0; i < count; i += step) {
    cases.push_back(cases[i]);
    cases.back().accumulate = true;
  }
}

}  // namespace adder::measure
