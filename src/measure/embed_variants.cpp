#include "kernels/embed/embed.h"
#include "kernels/ref/embed_ref.h"
#include "measure/problem_variants.h"

namespace adder::measure {
namespace {

enum class Ids { uniform, one, each };  // random; the last id only; row i has id i mod vocab

struct Case {
  EmbedShape shape;
  Ids ids = Ids::uniform;
  double scale = 1.0;
  bool accumulate = true;

  // Without rows forward writes nothing (embed_test runs it).
  bool writes(Direction direction) const {
    return direction == Direction::backward || shape.rows > 0;
  }
  std::string describe() const {
    const char* names[] = {" uniform", " one", " each"};
    std::string text = shape.describe() + names[static_cast<int>(ids)];
    if (scale != 1.0) text += " scale " + std::to_string(scale);
    if (accumulate) text += " accumulate";
    return text;
  }
};

template <class T, class P>
struct Problem {
  using Acc = accumulate_t<T>;
  using Case = measure::Case;
  explicit Problem(const Case& c)
      : given(c),
        ids(c.shape.rows),
        table(c.shape.vocab * c.shape.width),
        out(c.shape.rows * c.shape.width),
        g(c.shape.rows * c.shape.width),
        dtable(table.count()) {}

  Problem(const Case& c, uint64_t seed) : Problem(c) {
    const uint64_t stream = stream_of("embed.ids");
    const auto vocab = static_cast<uint64_t>(c.shape.vocab);
    for (int64_t i = 0; i < ids.count(); ++i) {
      const auto row = static_cast<uint64_t>(i);
      const uint64_t of[] = {uniform_below(seed, stream, row, vocab), vocab - 1, row % vocab};
      ids[i] = static_cast<int32_t>(of[static_cast<int>(c.ids)]);
    }
    fill_normal(table, seed, "embed.table", c.scale);
    fill_normal(g, seed, "embed.g", c.scale);
    if (c.accumulate) fill_normal(dtable, seed, "embed.dtable", c.scale);
  }
  Problem<double, double> wide() const {
    Problem<double, double> to(given);
    to.ids = ids;
    to.table = table.template converted<double>();
    to.g = g.template converted<double>();
    to.dtable = dtable.template converted<double>();
    return to;
  }
  void watch(InputWatch& inputs) const {
    inputs.watch("ids", ids);
    inputs.watch("table", table);
    inputs.watch("g", g);
  }
  template <class Visit>
  static void outputs(Direction direction, const Visit& visit) {
    if (direction == Direction::forward) {
      visit("out", [](auto& p) -> auto& { return p.out; });
    } else {
      visit("dtable", [](auto& p) -> auto& { return p.dtable; });
    }
  }
  EmbedForward<T, P> forward() { return {ids.data(), table.data(), out.data()}; }
  EmbedBackward<T> backward() { return {ids.data(), g.data(), dtable.data(), given.accumulate}; }

  Case given;
  Guarded<int32_t> ids;
  Guarded<P> table;
  Guarded<T> out;
  Guarded<Acc> g, dtable;
};

template <class T, class P>
void run_reference(Problem<T, P>& problem, Direction direction, bool absolute, std::string_view) {
  if (direction == Direction::forward) {
    ref::embed_forward(problem.given.shape, problem.forward(), absolute);
  } else {
    ref::embed_backward(problem.given.shape, problem.backward(), absolute);
  }
}

template <class T, class P>
void run_door(Problem<T, P>& problem, Direction direction, Context& context,
              std::string_view line) {
  if (direction == Direction::forward) {
    embed_forward(context, problem.given.shape, problem.forward(), {.name = line});
  } else {
    embed_backward<T, P>(context, problem.given.shape, problem.backward(), {.name = line});
  }
}

template <class T, class P>
void add_variants(std::vector<Variant>& variants, const Case& given) {
  append_variants<Problem<T, P>>(variants, "embed", embed_lines<T, P>(), given,
                                 " table " + std::string(dtype_name(dtype_of<P>)));
}

std::vector<Case> test_cases() {
  return {
      {{0, 5, 3}},
      {{1, 1, 1}},
      {{2, 3, 17}, Ids::one},
      {{63, 7, 33}},
      {{64, 1000, 5}},
      {{65, 2, 64}, Ids::each},
      {{127, 31, 257}, Ids::one},
      {{200, 13, 131}},
      {{401, 50, 300}, Ids::each},
      {{1009, 11, 61}},
      {{5, 7, 1031}},
      {{64, 9, 16}, Ids::uniform, 1e30},
      {{0, 5, 3}, Ids::uniform, 1, false},
      {{65, 2, 64}, Ids::each, 1, false},
      {{200, 300, 131}, Ids::one, 1, false},
      {{401, 50, 300}, Ids::uniform, 1, false},
  };
}

}  // namespace

std::vector<Variant> embed_variants(Purpose purpose) {
  const bool test = purpose == Purpose::test;
  const std::vector<Case> bench = {{{2048, 256, 256}}, {{2048, 50280, 768}}, {{1, 50280, 768}}};
  std::vector<Variant> variants;
  for (const Case& given : test ? test_cases() : bench) {
    if (test) add_variants<double, double>(variants, given);
    add_variants<float, float>(variants, given);
    add_variants<Bf16, Bf16>(variants, given);
    add_variants<float, Bf16>(variants, given);
  }
  return variants;
}

}  // namespace adder::measure
