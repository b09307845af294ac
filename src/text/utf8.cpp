#include "text/utf8.h"

#include <cstddef>
#include <cstdint>

namespace adder {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

enum class Outcome : uint8_t { whole, invalid, cut_off };
struct Scan {
  Outcome outcome;
  size_t length;  // of the character, or of the maximal prefix that begins one
};

/// The first character of `text` (not empty), by Unicode 15, table 3-7.
Scan scan(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {Outcome::whole, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Outcome::invalid, 1};
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Outcome::cut_off, i};
    unsigned low = 0x80, high = 0xBF;
    if (i == 1) {
      if (lead == 0xE0) low = 0xA0;   // no overlong forms
      if (lead == 0xED) high = 0x9F;  // no surrogates
      if (lead == 0xF0) low = 0x90;   // no overlong forms
      if (lead == 0xF4) high = 0x8F;  // nothing above U+10FFFF
    }
    if (byte(i) < low || byte(i) > high) return {Outcome::invalid, i};
  }
  return {Outcome::whole, length};
}

}  // namespace

std::string Utf8Assembler::push(std::string_view bytes) {
  std::string joined = std::move(held_) + std::string(bytes);
  held_.clear();
  std::string whole;
  whole.reserve(joined.size());
  for (std::string_view rest = joined; !rest.empty();) {
    const Scan next = scan(rest);
    if (next.outcome == Outcome::cut_off) {
      held_ = rest;
      break;
    }
    whole += next.outcome == Outcome::whole ? rest.substr(0, next.length) : kReplacement;
    rest.remove_prefix(next.length);
  }
  return whole;
}

std::string Utf8Assembler::finish() {
  const bool cut_off = !held_.empty();
  held_.clear();
  return cut_off ? std::string(kReplacement) : std::string();
}

std::string valid_utf8(std::string_view bytes) {
  Utf8Assembler assembler;
  std::string text = assembler.push(bytes);
  return text + assembler.finish();
}

}  // namespace adder
