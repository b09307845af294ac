// Turns a stream of bytes into a stream of valid UTF-8: a character split between two pieces is
// held back until it is whole, and only bytes that can be part of no character become U+FFFD, one
// for each maximal invalid prefix (Unicode 15, section 3.9, "U+FFFD substitution of maximal
// subparts").
#pragma once

#include <string>
#include <string_view>

namespace adder {

/// The concatenated results do not depend on how the bytes were cut. Not thread-safe.
class Utf8Assembler {
 public:
  /// The whole characters that are complete after `bytes`.
  std::string push(std::string_view bytes);
  /// Ends the stream: returns U+FFFD if a character was cut off, else nothing. Starts anew.
  std::string finish();
  bool pending() const { return !held_.empty(); }

 private:
  std::string held_;  // a proper prefix of one character, at most 3 bytes
};

/// Does the same for a whole text at once.
std::string valid_utf8(std::string_view bytes);

}  // namespace adder
