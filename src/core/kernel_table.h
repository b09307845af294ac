// The implementation table of a kernel family: what is not in it does not exist (design.md 1.2).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/context.h"
#include "core/dtype.h"
#include "core/error.h"

namespace adder {

enum class Direction : uint8_t { forward, backward, step };
std::string_view direction_name(Direction direction);

/// Work of one call, for the roofline: what the shape needs, whatever the line does.
struct Cost {
  double flops = 0;         // adds and multiplies
  double exps = 0;          // exponentials (and other transcendental calls)
  double bytes = 0;         // compulsory reads and writes of arguments
  int64_t saved_bytes = 0;  // what forward keeps for backward
};

/// What every line has, whatever its family: read by tests, bench and `adder info kernels`.
struct LineInfo {
  const char* name;  // the algorithm, in field terms: "sequential", "chunked", "onednn"
  Device device = Device::cpu;
  Dtype dtype = Dtype::f32;  // storage type of the activations
  /// Lines of one class give equal bits for any split of the length, any batch and any thread
  /// count. 0: promises equal bits only for the same call.
  int exact_class = 0;
};

/// One line. Functions are typed by the family (Fns is a struct of function pointers; a null
/// pointer means that the line has no such direction).
template <class Shape, class Fns>
struct Line {
  LineInfo info;
  /// Correctness only: may this line run that shape here?
  bool (*accepts)(const Caps&, const Shape&);
  /// Preference only: expected microseconds.
  double (*predict_us)(const Caps&, const Shape&, Direction);
  int64_t (*scratch_bytes)(const Shape&, Direction);
  Fns run;
  bool (*has)(const Fns&, Direction);
};

/// Line::has of a family whose functions are a forward and a backward.
template <class Fns>
bool has_direction(const Fns& run, Direction direction) {
  return (direction == Direction::forward && run.forward != nullptr) ||
         (direction == Direction::backward && run.backward != nullptr);
}

/// The LineInfo of a CPU line for storage type T.
template <class T>
LineInfo cpu_line(const char* name, int exact_class) {
  return {name, Device::cpu, dtype_of<T>, exact_class};
}

/// How the caller restricts the choice.
struct Choice {
  std::string_view name;  // run this line only (empty: any)
  int exact_class = 0;    // run lines of this class only (0: any)
};

[[noreturn]] void no_line(std::string_view family, Dtype dtype, Direction direction,
                          const std::string& shape, const Choice& choice, const std::string& lines);

/// The cheapest line that accepts the shape; a shape that none serves is an Error that names it.
template <class L, class Shape>
const L& pick_line(std::string_view family, std::span<const L> lines, const Caps& caps,
                   const Shape& shape, Direction direction, const Choice& choice = {}) {
  const L* best = nullptr;
  double best_us = 0;
  for (const L& line : lines) {
    if (line.info.device != caps.device || !line.has(line.run, direction)) continue;
    if (!choice.name.empty() && choice.name != line.info.name) continue;
    if (choice.exact_class != 0 && choice.exact_class != line.info.exact_class) continue;
    if (!line.accepts(caps, shape)) continue;
    const double us = line.predict_us(caps, shape, direction);
    if (best == nullptr || us < best_us) {
      best = &line;
      best_us = us;
    }
  }
  if (best == nullptr) {
    std::string names;
    for (const L& line : lines) names += (names.empty() ? "" : ", ") + std::string(line.info.name);
    no_line(family, lines.empty() ? Dtype::f32 : lines[0].info.dtype, direction, shape.describe(),
            choice, names);
  }
  return *best;
}

/// Runs `call(exec)` with the line's scratch taken from the context's arena. A measuring arena
/// only records the need.
template <class L, class Shape, class Call>
void run_line(Context& context, const L& line, const Shape& shape, Direction direction,
              const Call& call) {
  ADDER_CHECK(context.arena != nullptr);
  Arena::Scope scope(*context.arena);
  Exec exec;
  exec.stream = context.stream;
  exec.threads = context.threads;
  exec.scratch = context.arena->template take<std::byte>(line.scratch_bytes(shape, direction));
  if (!context.arena->measuring()) call(exec);
}

}  // namespace adder
