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

/// The work of one call, for the roofline: the least that the shape asks for, whichever line runs.
struct Cost {
  double flops = 0;         // adds and multiplies
  double exps = 0;          // exponentials (and other transcendental calls)
  double bytes = 0;         // compulsory reads and writes of arguments
  int64_t saved_bytes = 0;  // that forward keeps for backward
};

/// The properties that lines of all families have. Tests, bench and `adder info kernels` read them.
struct LineInfo {
  const char* name;  // the algorithm, in field terms: "sequential", "chunked", "onednn"
  Device device = Device::cpu;
  Dtype dtype = Dtype::f32;  // storage type of the activations
  /// Lines of one class on one device give equal bits for any split of the length, any batch and
  /// any thread count. 0 promises equal bits only for the same call.
  int exact_class = 0;
  /// Its products run on matrix units (AMX, AVX-512 BF16, tensor cores).
  bool matrix_units = false;
  /// Operands of its products are rounded to `dtype`, not only its inputs and outputs.
  bool rounds_operands = false;
};

/// The properties of a call's arrays that a line may depend on. The door finds them from the views;
/// they are the same while memory is planned as when the call runs.
struct Layout {
  bool unit_stride = true;  // every channel stride is 1
  bool rows16 = true;       // every row begins at a multiple of 16 bytes
  bool order = false;       // tokens are visited in a given order
  bool slots = false;       // states are addressed by slot

  bool operator==(const Layout&) const = default;
};

/// The functions of a line whose family has a forward and a backward.
template <class Shape, class Forward, class Backward>
struct TwoWay {
  void (*forward)(const Shape&, const Forward&, Exec) = nullptr;
  void (*backward)(const Shape&, const Backward&, Exec) = nullptr;

  bool has(Direction direction) const {
    return (direction == Direction::forward && forward != nullptr) ||
           (direction == Direction::backward && backward != nullptr);
  }
  void call(const Shape& shape, const Forward& args, Exec exec) const {
    forward(shape, args, exec);
  }
  void call(const Shape& shape, const Backward& args, Exec exec) const {
    backward(shape, args, exec);
  }
};
/// The same for a family without a backward of its own.
template <class Shape, class Args>
struct OneWay {
  void (*forward)(const Shape&, const Args&, Exec) = nullptr;

  bool has(Direction direction) const {
    return direction == Direction::forward && forward != nullptr;
  }
  void call(const Shape& shape, const Args& args, Exec exec) const { forward(shape, args, exec); }
};

/// The number of threads that predictions assume. They do not ask the context for its own, since
/// the choice of a line, and with it the bits of a result, may not depend on it.
inline constexpr int kPredictedThreads = 2;

/// One line. Run is TwoWay or OneWay.
template <class Shape, class Run>
struct Line {
  LineInfo info;
  /// Correctness only: may this line run that shape here?
  bool (*accepts)(const Caps&, const Shape&);
  /// Preference only: expected microseconds of the whole call on kPredictedThreads threads of the
  /// CPU, or on the GPU.
  double (*predict_us)(const Caps&, const Shape&, Direction);
  int64_t (*scratch_bytes)(const Caps&, const Shape&, Direction);
  Run run;
};

/// The LineInfo of a CPU line for storage type T.
template <class T>
constexpr LineInfo cpu_line(const char* name, int exact_class) {
  return {name, Device::cpu, dtype_of<T>, exact_class};
}
/// The LineInfo of a CUDA line for storage type T.
template <class T>
constexpr LineInfo cuda_line(const char* name, int exact_class) {
  return {name, Device::cuda, dtype_of<T>, exact_class};
}
/// For families of one line, or of lines that take every shape.
template <class Shape>
bool accepts_all(const Caps&, const Shape&) {
  return true;
}
template <class Shape>
int64_t no_scratch(const Caps&, const Shape&, Direction) {
  return 0;
}

/// The caller's restrictions of the choice.
struct Choice {
  std::string_view name;  // run this line only (empty: any)
  int exact_class = 0;    // run lines of this class only (0: any)
};

/// No line serves a call. Its own type, since tests and benches list what a line does not accept.
class NoLine : public Error {
  using Error::Error;
};
/// `lines`: names of the lines for the device.
[[noreturn]] void no_line(std::string_view family, Dtype dtype, Device device, Direction direction,
                          const std::string& shape, const Choice& choice, const std::string& lines);

/// The cheapest line that accepts the shape; a shape that none serves is an Error that names it.
template <class L, class Shape>
const L& pick_line(std::string_view family, std::span<const L> lines, const Caps& caps,
                   const Shape& shape, Direction direction, const Choice& choice = {}) {
  const L* best = nullptr;
  double best_us = 0;
  for (const L& line : lines) {
    if (line.info.device != caps.device || !line.run.has(direction)) continue;
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
    for (const L& line : lines) {
      if (line.info.device != caps.device) continue;
      names += (names.empty() ? "" : ", ") + std::string(line.info.name);
    }
    no_line(family, lines.empty() ? Dtype::f32 : lines[0].info.dtype, caps.device, direction,
            shape.describe(), choice, names);
  }
  return *best;
}

/// While one lives, the memory of kind `device` may be touched.
class LineWindow {
 public:
  explicit LineWindow(DeviceBackend& backend) : backend_(backend) { backend_.begin_line(); }
  ~LineWindow() { backend_.end_line(); }
  LineWindow(const LineWindow&) = delete;
  LineWindow& operator=(const LineWindow&) = delete;

 private:
  DeviceBackend& backend_;
};

/// The rest of every door, once its checks are done: picks a line and runs it over scratch from the
/// context's arena. A measuring arena only records the need.
template <class L, class Shape, class Args>
void run_line(Context& context, std::string_view family, std::span<const L> lines,
              const Shape& shape, Direction direction, const Args& args, const Choice& choice) {
  ADDER_CHECK(context.arena != nullptr);
  const L& line = pick_line(family, lines, context.caps, shape, direction, choice);
  Arena::Scope scope(*context.arena);
  Exec exec;
  exec.stream = context.stream;
  exec.threads = context.threads;
  exec.scratch =
      context.arena->template take<std::byte>(line.scratch_bytes(context.caps, shape, direction));
  if (context.planning()) return;
  const LineWindow window(context.backend());
  line.run.call(shape, args, exec);
}

}  // namespace adder
