#include "measure/call.h"

#include <optional>

namespace adder::measure {
namespace {

void compare_inputs(Comparison& comparison, Call& before, Call& after, Direction direction) {
  const auto was = before.arrays(), is = after.arrays();
  for (size_t i = 0; i < is.size(); ++i) {
    if (!is[i].array->intact()) {
      comparison.add_fault("wrote outside of '" + std::string(is[i].name) + "'");
    }
    if (!is[i].written(direction) && !is[i].array->same_bits(*was[i].array)) {
      comparison.add_fault("changed input '" + std::string(is[i].name) + "'");
    }
  }
}

void compare_threads(Comparison& comparison, Call& one, Call& many, int threads) {
  const auto a = one.arrays(), b = many.arrays();
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].array->same_bits(*b[i].array)) continue;
    comparison.add_fault("other bits in '" + std::string(a[i].name) + "' with " +
                         std::to_string(threads) + " threads than with 1");
  }
}

Comparison check_accepted(Call& got, const LineInfo& line, Direction direction,
                          const RunOptions& options, Workspace& workspace) {
  const Choice choice{.name = line.name};
  if (direction == Direction::backward) got.prepare_backward(workspace, choice);
  const auto before = got.copy(), evaluated = got.copy();
  const auto expected = got.wide(), absolute = got.wide();
  got.run(workspace, {direction}, choice);
  // The right values do not depend on the line; the rounding of its dtype may.
  expected->reference(direction, false, nullptr);
  evaluated->reference(direction, false, &line);
  absolute->reference(direction, true, &line);

  Comparison comparison;
  compare_inputs(comparison, *before, got, direction);
  const auto outputs = got.arrays(), e = expected->arrays(), d = evaluated->arrays(),
             a = absolute->arrays();
  comparison.empty = true;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].written(direction) || !outputs[i].compared) continue;
    if (outputs[i].array->count() > 0) comparison.empty = false;
    compare_output(comparison, outputs[i], *e[i].array, *d[i].array, *a[i].array,
                   got.product_type(line));
  }
  got.check_outputs(direction, comparison);
  if (options.threads > 1) {
    RunOptions alone = options;
    alone.threads = 1;
    Workspace one(alone.context());
    before->run(one, {direction}, choice);
    compare_threads(comparison, *before, got, options.threads);
  }
  return comparison;
}

}  // namespace

std::vector<Listed> Call::arrays() {
  ArrayList all;
  list(all);
  return all.take();
}

Array& Call::array(std::string_view name) {
  for (const Listed& each : arrays()) {
    if (each.name == name) return *each.array;
  }
  ADDER_CHECK(false);
  std::abort();
}

void Call::upload(const Context& context) {
  const Memory memory = context.memory(MemoryKind::device);
  for (const Listed& each : arrays()) each.array->upload(memory);
}

void Call::download() {
  for (const Listed& each : arrays()) each.array->download();
}

void Call::run(Workspace& workspace, const std::vector<Direction>& directions,
               const Choice& choice) {
  upload(workspace.context());
  workspace.run([&](Context& context) {
    for (const Direction direction : directions) door(context, direction, choice);
  });
  download();
}

void Call::run_both(int threads, const Choice& choice) {
  Workspace workspace(threads);
  run(workspace, {Direction::forward, Direction::backward}, choice);
}

bool Call::accepted(Workspace& workspace, Direction direction, const Choice& choice) {
  upload(workspace.context());
  try {
    workspace.plan([&](Context& context) { door(context, direction, choice); });
  } catch (const NoLine&) {
    return false;
  }
  return true;
}

void compare_output(Comparison& comparison, const Listed& got, const Array& expected,
                    const Array& evaluated, const Array& absolute, Dtype product) {
  const std::string name = got.name;
  if (!got.array->floating()) {
    if (!got.array->same_bits(expected)) comparison.add_fault("'" + name + "' is not as expected");
    comparison.elements += got.array->count();
    return;
  }
  OutputCheck check;
  check.name = name;
  check.dtype = got.judged;
  check.product = product;
  for (int64_t i = 0; i < got.array->count(); ++i) {
    if (expected.is_poison(i)) {
      if (got.array->is_poison(i)) continue;
      return comparison.add_fault("wrote element " + std::to_string(i) + " of '" + name +
                                  "', which is not its own");
    }
    check.got.push_back(got.array->value(i));
    check.expected.push_back(expected.value(i));
    check.evaluated.push_back(evaluated.value(i));
    check.absolute.push_back(absolute.value(i));
  }
  comparison.add(check);
}

Comparison check_call(const MakeCall& make, const LineInfo& line, Direction direction,
                      const RunOptions& options) {
  Workspace workspace(options.context());
  for (const bool aligned : {false, true}) {
    std::optional<ArenaLayout> layout;
    if (aligned) layout.emplace();
    const auto call = make(options.seed);
    if (!call->accepted(workspace, direction, {.name = line.name})) continue;
    return check_accepted(*call, line, direction, options, workspace);
  }
  Comparison comparison;
  comparison.accepted = false;
  return comparison;
}

}  // namespace adder::measure
