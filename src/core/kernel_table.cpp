#include "core/kernel_table.h"

namespace adder {

std::string_view direction_name(Direction direction) {
  switch (direction) {
    case Direction::forward:
      return "forward";
    case Direction::backward:
      return "backward";
    default:
      return "step";
  }
}

void no_line(std::string_view family, Dtype dtype, Device device, Direction direction,
             const std::string& shape, const Choice& choice, const std::string& lines) {
  const std::string wanted =
      choice.name.empty() ? "" : ", named '" + std::string(choice.name) + "'";
  const std::string on = " on " + std::string(device_name(device));
  throw NoLine({"no kernel serves this shape" + wanted,
                std::string(family) + " " + std::string(direction_name(direction)) + " " +
                    std::string(dtype_name(dtype)) + on,
                lines.empty() ? "a line" + on : "a shape accepted by one of: " + lines, shape});
}

}  // namespace adder
