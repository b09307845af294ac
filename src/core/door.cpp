#include "core/door.h"

#include <utility>

#include "core/error.h"

namespace adder {

void Door::bad(const std::string& field, std::string expected, std::string got) const {
  throw Error(
      {"bad shape", std::string(family_) + ": " + field, std::move(expected), std::move(got)});
}

void Door::at_least(const char* field, int64_t value, int64_t least) const {
  if (value < least) bad(field, ">= " + std::to_string(least), std::to_string(value));
}

void Door::given(const char* field, bool present) const {
  if (!present) bad(field, "an array", "none");
}

void Door::boundaries(const int32_t* cu, int64_t sequences, int64_t len) const {
  if (cu == nullptr) bad("cu_seqlens", "an array (sequences > 0)", "none");
  if (cu[0] != 0) bad("cu_seqlens[0]", "0", std::to_string(cu[0]));
  for (int64_t q = 0; q < sequences; ++q) {
    if (cu[q + 1] < cu[q]) {
      bad("cu_seqlens", "a non-decreasing array",
          std::to_string(cu[q + 1]) + " after " + std::to_string(cu[q]));
    }
  }
  if (cu[sequences] != len) {
    bad("cu_seqlens[sequences]", std::to_string(len) + " (len)", std::to_string(cu[sequences]));
  }
}

void Door::slots(const int32_t* state_index, int64_t rows) const {
  for (int64_t r = 0; state_index != nullptr && r < rows; ++r) {
    at_least("state_index", state_index[r], 0);
  }
}

void Door::order(const int32_t* order, int64_t len) const {
  for (int64_t t = 0; order != nullptr && t < len; ++t) {
    if (order[t] < 0 || order[t] >= len) {
      bad("order", "0 <= token < " + std::to_string(len), std::to_string(order[t]));
    }
  }
}

}  // namespace adder
