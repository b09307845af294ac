#include "kernels/embed/embed.h"

#include "core/door.h"
#include "kernels/embed/embed_lines.h"

namespace adder {
namespace {

constexpr Door kDoor("embed");

// 25 GB/s on one core (AVX-512 Xeon with 2 MiB of L2, 2048 rows of 768), and 0.33 ns an id of the
// vocabulary for the counting sort.
template <class T>
double predict_us(const Caps&, const EmbedShape& shape, Direction direction) {
  const double sort = direction == Direction::backward
                          ? static_cast<double>(shape.vocab + 4 * shape.rows) * 0.33e-3
                          : 0.0;
  return 0.1 + sort + shape.cost(direction, dtype_of<T>).bytes * 0.04e-3 / kPredictedThreads;
}

// backward: where the rows of each id begin, and the rows sorted by id.
int64_t scratch_bytes(const Caps&, const EmbedShape& shape, Direction direction) {
  if (direction != Direction::backward) return 0;
  const auto word = static_cast<int64_t>(sizeof(int32_t));
  return align_up((shape.vocab + 1) * word) + align_up(shape.rows * word);
}

}  // namespace

void EmbedShape::check() const {
  kDoor.at_least("rows", rows, 0);
  if (rows > INT32_MAX) kDoor.bad("rows", "at most 2^31 - 1", std::to_string(rows));
  kDoor.at_least("vocab", vocab, 1);
  kDoor.at_least("width", width, 1);
}

// forward reads and writes a row each; backward reads g and updates dtable.
Cost EmbedShape::cost(Direction direction, Dtype dtype) const {
  const bool backward = direction == Direction::backward;
  const double elements = static_cast<double>(rows) * static_cast<double>(width);
  const double accumulate = dtype == Dtype::f64 ? 8 : 4;
  const auto storage = static_cast<double>(dtype_bytes(dtype));
  Cost cost;
  cost.flops = backward ? elements : 0;
  cost.bytes = elements * (backward ? 3 * accumulate : 2 * storage) +
               static_cast<double>(rows) * static_cast<double>(sizeof(int32_t));
  cost.saved_bytes = rows * static_cast<int64_t>(sizeof(int32_t));
  return cost;
}

std::string EmbedShape::describe() const {
  return "rows " + std::to_string(rows) + " vocab " + std::to_string(vocab) + " width " +
         std::to_string(width);
}

template <class T, class P>
std::span<const EmbedLine<T, P>> embed_lines() {
  static constexpr EmbedLine<T, P> kLines[] = {{cpu_line<T>("sorted", 1),
                                                accepts_all,
                                                predict_us<T>,
                                                scratch_bytes,
                                                {embed_gather_forward, embed_sorted_backward}}};
  return kLines;
}

template <class T, class P>
void embed_forward(Context& context, const EmbedShape& shape, const EmbedForward<T, P>& args,
                   const Choice& choice) {
  shape.check();
  kDoor.array("ids", args.ids, shape.rows);
  kDoor.array("table", args.table, shape.rows);
  kDoor.array("out", args.out, shape.rows);
  run_line(context, kDoor.family(), embed_lines<T, P>(), shape, Direction::forward, args, choice);
}

template <class T, class P>
void embed_backward(Context& context, const EmbedShape& shape, const EmbedBackward<T>& args,
                    const Choice& choice) {
  shape.check();
  kDoor.array("ids", args.ids, shape.rows);
  kDoor.array("g", args.g, shape.rows);
  kDoor.given("dtable", args.dtable != nullptr);
  run_line(context, kDoor.family(), embed_lines<T, P>(), shape, Direction::backward, args, choice);
}

#define ADDER_EMBED_INSTANTIATE(T, P)                                                      \
  template std::span<const EmbedLine<T, P>> embed_lines<T, P>();                           \
  ADDER_DOOR(embed_forward, EmbedShape, EmbedForward<T, P>)                                \
  template void embed_backward<T, P>(Context&, const EmbedShape&, const EmbedBackward<T>&, \
                                     const Choice&);
ADDER_EMBED_INSTANTIATE(double, double)
ADDER_EMBED_INSTANTIATE(float, float)
ADDER_EMBED_INSTANTIATE(Bf16, Bf16)
ADDER_EMBED_INSTANTIATE(float, Bf16)
#undef ADDER_EMBED_INSTANTIATE

}  // namespace adder
