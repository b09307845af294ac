// One call of `embed`.
#pragma once

#include <string>

#include "kernels/embed/embed.h"
#include "kernels/ref/embed_ref.h"
#include "measure/call_options.h"

namespace adder::measure {

enum class Ids : uint8_t {
  uniform,
  one,
  each
};  // random; the last id only; row i has id i mod vocab

struct EmbedCase {
  EmbedShape shape;
  Ids ids = Ids::uniform;
  double scale = 1.0;
  bool accumulate = true;  // dtable is added to
  int64_t used = 0;        // ids are below this; 0: below vocab

  bool only_backward() const { return !accumulate; }
  std::string describe() const {
    constexpr const char* kNames[] = {"uniform", "one", "each"};
    return OptionText(shape.describe())
        .on(true, kNames[static_cast<int>(ids)])
        .on(!accumulate, "overwrite")
        .number(scale, 1.0, "scale")
        .text();
  }
};

template <class T, class P>
class EmbedCall : public FamilyCall<EmbedCall<T, P>> {
 public:
  using Acc = accumulate_t<T>;
  using Given = EmbedCase;
  using Wide = EmbedCall<double, double>;
  static constexpr Doors<EmbedShape, EmbedForward<T, P>, EmbedBackward<T>> kDoors = {
      embed_forward<T, P>, embed_backward<T, P>, ref::embed_forward<T, P>, ref::embed_backward<T>};

  explicit EmbedCall(const Given& c)
      : given(c),
        ids(c.shape.rows),
        table(c.shape.vocab * c.shape.width),
        out(c.shape.rows * c.shape.width),
        g(out.count()),
        dtable(table.count()) {}
  EmbedCall(const Given& c, uint64_t seed) : EmbedCall(c) {
    const auto vocab = static_cast<uint64_t>(c.used > 0 ? c.used : c.shape.vocab);
    for (int64_t i = 0; i < ids.count(); ++i) {
      const auto row = static_cast<uint64_t>(i);
      const uint64_t of[] = {uniform_below(seed, stream_of("embed.ids"), row, vocab), vocab - 1,
                             row % vocab};
      ids[i] = static_cast<int32_t>(of[static_cast<int>(c.ids)]);
    }
    fill_normal(table, seed, "embed.table", c.scale);
    fill_normal(g, seed, "embed.g", c.scale);
    if (c.accumulate) fill_normal(dtable, seed, "embed.dtable", c.scale);
  }

  EmbedForward<T, P> forward(Side side) { return {ids.at(side), table.at(side), out.at(side)}; }
  EmbedBackward<T> backward(Side side) {
    return {ids.at(side), g.at(side), dtable.at(side), given.accumulate};
  }
  void list(ArrayList& arrays) override {
    arrays.input("ids", ids);
    arrays.input("table", table);
    arrays.output("out", out);
    arrays.upstream("g", g, out);
    arrays.gradient("dtable", dtable, table);
  }
  static Cost cost(const Given& given, Direction direction) {
    return given.shape.cost(direction, dtype_of<T>);
  }

  Given given;
  Guarded<int32_t> ids;
  Guarded<P> table;
  Guarded<T> out;
  Guarded<Acc> g, dtable;
};

}  // namespace adder::measure
