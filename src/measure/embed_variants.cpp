#include <memory>
#include <tuple>
#include <utility>

#include "kernels/embed/embed.h"
#include "kernels/ref/embed_ref.h"
#include "measure/evaluation.h"
#include "measure/variant.h"

namespace adder::measure {
namespace {

enum class Ids { uniform, one, each };  // random; the last id only; row i has id i mod vocab

struct Case {
  EmbedShape shape;
  Ids ids = Ids::uniform;
  double scale = 1.0;

  std::string describe() const {
    const char* names[] = {" uniform", " one", " each"};
    std::string text = shape.describe() + names[static_cast<int>(ids)];
    if (scale != 1.0) text += " scale " + std::to_string(scale);
    return text;
  }
};

template <class T, class P>
struct Problem {
  using Acc = accumulate_t<T>;
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
    fill_normal(dtable, seed, "embed.dtable", c.scale);
  }
  template <class U, class Q>
  Problem<U, Q> converted() const {
    Problem<U, Q> to(given);
    to.ids = ids;
    to.table = table.template converted<Q>();
    to.g = g.template converted<accumulate_t<U>>();
    to.dtable = dtable.template converted<accumulate_t<U>>();
    return to;
  }
  EmbedForward<T, P> forward() { return {ids.data(), table.data(), out.data()}; }
  EmbedBackward<T> backward() { return {ids.data(), g.data(), dtable.data()}; }

  Case given;
  Guarded<int32_t> ids;
  Guarded<P> table;
  Guarded<T> out;
  Guarded<Acc> g, dtable;
};

template <class T, class P>
void run_reference(Problem<T, P>& problem, Direction direction, bool absolute) {
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
Comparison check(const Case& given, const std::string& line, Direction direction,
                 const RunOptions& options) {
  Problem<T, P> got(given, options.seed);
  auto evaluated = got.template converted<T, P>();
  auto expected = got.template converted<double, double>();
  auto absolute = got.template converted<double, double>();
  InputWatch inputs;
  inputs.watch("ids", got.ids);
  inputs.watch("table", got.table);
  inputs.watch("g", got.g);
  run_planned(options.threads, [&](Context& context) { run_door(got, direction, context, line); });
  run_reference(expected, direction, false);
  run_reference(evaluated, direction, false);
  run_reference(absolute, direction, true);
  Comparison result;
  inputs.check(result);
  if (direction == Direction::forward) {
    compare_output(result, "out", got.out, expected.out, evaluated.out, absolute.out);
  } else {
    compare_output(result, "dtable", got.dtable, expected.dtable, evaluated.dtable,
                   absolute.dtable);
  }
  return result;
}

template <class T, class P>
void add_variants(std::vector<Variant>& variants, const Case& given) {
  const std::string suffix = std::string(" table ") + std::string(dtype_name(dtype_of<P>));
  for (const auto& line : embed_lines<T, P>()) {
    for (const Direction direction : {Direction::forward, Direction::backward}) {
      // Without rows forward writes nothing that could be compared (embed_test runs it).
      if (direction == Direction::forward && given.shape.rows == 0) continue;
      Variant variant;
      variant.family = "embed";
      variant.line = line.info;
      variant.direction = direction;
      variant.shape = given.describe() + suffix;
      variant.cost = given.shape.cost(direction, dtype_of<T>);
      variant.accepted = line.accepts(Context{}.caps(), given.shape);
      const std::string name = line.info.name;
      variant.check = [=](const RunOptions& options) {
        return check<T, P>(given, name, direction, options);
      };
      const auto prepare = [=](bool reference) {
        return [=](const RunOptions& options) -> std::unique_ptr<Prepared> {
          return std::make_unique<PreparedCall<Problem<T, P>>>(
              std::make_unique<Problem<T, P>>(given, options.seed), reference ? 1 : options.threads,
              [=](Problem<T, P>& problem, Context& context) {
                if (!reference) run_door(problem, direction, context, name);
                if (reference && !context.arena->measuring()) {
                  run_reference(problem, direction, false);
                }
              });
        };
      };
      variant.prepare = prepare(false);
      variant.prepare_reference = prepare(true);
      variants.push_back(std::move(variant));
    }
  }
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
