#include "core/door.h"

#include <cmath>
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

void Door::number(const char* field, double value, double least) const {
  if (!std::isfinite(value) || value < least) {
    bad(field, "a number >= " + std::to_string(least), std::to_string(value));
  }
}

void Door::divides(const char* field, int64_t value, const char* of, int64_t whole) const {
  at_least(field, value, 1);
  if (whole % value != 0) {
    bad(field, std::string("a divisor of ") + of + " " + std::to_string(whole),
        std::to_string(value));
  }
}

void Door::given(const char* field, bool present) const {
  if (!present) bad(field, "an array", "none");
}

void Door::matrix(const char* field, const void* data, int64_t stride, int64_t rows,
                  int64_t width) const {
  array(field, data, rows * width);
  row_stride((std::string(field) + "_stride").c_str(), stride, rows, width);
}

void Door::row_stride(const char* field, int64_t stride, int64_t rows, int64_t width) const {
  if (rows > 1 && stride < width) {
    bad(field, ">= " + std::to_string(width) + " (width)", std::to_string(stride));
  }
}

}  // namespace adder
