#include <fmt/format.h>

#include "kernels/optim/optim.h"
#include "kernels/ref/optim_ref.h"
#include "measure/tensors.h"
#include "measure/variant.h"

namespace adder::measure {
namespace {

struct Case {
  OptimShape shape;
  AdamWConstants constants;
  StepState state;
  bool rounded = false;

  std::string describe() const {
    return fmt::format("{} t{}{}{}{}{}", shape.describe(), state.updates,
                       constants.weight_decay > 0 ? " decay" : "", state.clip != 1 ? " clip" : "",
                       state.skip != 0 ? " skip" : "", rounded ? " rounded" : "");
  }
};

template <class Acc>
struct Tensors {
  Guarded<Acc> g, p, m, v;
  Guarded<Bf16> rounded;

  Tensors(const Case& item, uint64_t seed)
      : g(item.shape.count),
        p(item.shape.count),
        m(item.shape.count),
        v(item.shape.count),
        rounded(item.rounded ? item.shape.count : 0) {
    fill_normal(g, seed, "optim g", 1e-2);
    fill_normal(p, seed, "optim p");
    fill_normal(m, seed, "optim m", 1e-2);
    fill_uniform(v, seed, "optim v", 0, 1e-3);
    // A parameter that never had a gradient: 0 / (0 + eps).
    for (int64_t i = 3; i < item.shape.count; i += 17) g[i] = m[i] = v[i] = 0;
  }
  template <class U>
  explicit Tensors(const Tensors<U>& other)
      : g(other.g.template converted<Acc>()),
        p(other.p.template converted<Acc>()),
        m(other.m.template converted<Acc>()),
        v(other.v.template converted<Acc>()),
        rounded(other.rounded) {}

  AdamWArgs<Acc> args(const Case& item) {
    Bf16* copy = item.rounded ? rounded.data() : nullptr;
    return {item.constants, &item.state, g.data(), p.data(), copy, m.data(), v.data()};
  }
};

template <class Acc>
bool same_bytes(const Guarded<Acc>& x, const Guarded<Acc>& y) {
  return std::memcmp(x.data(), y.data(), static_cast<size_t>(x.count()) * sizeof(Acc)) == 0;
}

template <class Acc>
Comparison check(const AdamWLine<Acc>& line, const Case& item, const RunOptions& options) {
  Tensors<Acc> given(item, options.seed);
  Tensors<Acc> evaluated(given);
  Tensors<double> expected(given), absolute(given);
  const Tensors<Acc> before(given);
  Exec exec;
  exec.threads = options.threads;
  line.run.forward(item.shape, given.args(item), exec);
  ref::adamw(item.shape, evaluated.args(item));
  ref::adamw(item.shape, expected.args(item));
  ref::adamw(item.shape, absolute.args(item), true);

  Comparison comparison;
  const auto add = [&](const char* name, auto field) {
    comparison.add({name, dtype_of<Acc>, field(given).widened(), field(expected).widened(),
                    field(evaluated).widened(), field(absolute).widened()});
    field(given).check_guards(comparison, name);
  };
  add("p", [](const auto& tensors) -> const auto& { return tensors.p; });
  add("m", [](const auto& tensors) -> const auto& { return tensors.m; });
  add("v", [](const auto& tensors) -> const auto& { return tensors.v; });
  given.rounded.check_guards(comparison, "rounded");
  for (int64_t i = 0; i < given.rounded.count() && item.state.skip == 0; ++i) {
    if (given.rounded[i].bits == from_double<Bf16>(to_double(given.p[i])).bits) continue;
    comparison.add_fault("'rounded' is not p");
    break;
  }
  if (item.state.skip != 0 && !same_bytes(given.rounded, before.rounded)) {
    comparison.add_fault("wrote 'rounded' in a skipped step");
  }
  if (!same_bytes(given.g, before.g)) comparison.add_fault("changed an input");
  return comparison;
}

template <class Acc>
class PreparedAdamW : public Prepared {
 public:
  PreparedAdamW(const AdamWLine<Acc>* line, const Case& item, const RunOptions& options)
      : line_(line), item_(item), tensors_(item, options.seed) {
    exec_.threads = options.threads;
  }
  void run() override {
    if (line_ == nullptr) return ref::adamw(item_.shape, tensors_.args(item_));
    line_->run.forward(item_.shape, tensors_.args(item_), exec_);
  }

 private:
  const AdamWLine<Acc>* line_;
  Case item_;
  Tensors<Acc> tensors_;
  Exec exec_;
};

template <class Acc>
void add_variants(const std::vector<Case>& cases, std::vector<Variant>& variants) {
  const Context context;
  for (const auto& line : adamw_lines<Acc>()) {
    for (const Case& item : cases) {
      Variant variant;
      variant.family = "optim";
      variant.line = line.info;
      variant.shape = item.describe();
      variant.cost = item.shape.cost(dtype_of<Acc>);
      variant.accepted = line.accepts(context.caps, item.shape);
      const auto* chosen = &line;
      variant.check = [chosen, item](const RunOptions& options) {
        return check(*chosen, item, options);
      };
      variant.prepare = [chosen, item](const RunOptions& options) {
        return std::make_unique<PreparedAdamW<Acc>>(chosen, item, options);
      };
      variant.prepare_reference = [item](const RunOptions& options) {
        return std::make_unique<PreparedAdamW<Acc>>(nullptr, item, options);
      };
      variants.push_back(std::move(variant));
    }
  }
}

std::vector<Case> test_cases() {
  std::vector<Case> cases;
  int index = 0;
  for (const int64_t count : {0, 1, 2, 15, 16, 17, 63, 64, 65, 127, 200, 1009, 70001}) {
    for (const int64_t step : {1, 2, 1000, 1000000}) {
      if (count > 1009 && step > 1) continue;
      Case item;
      item.shape.count = count;
      item.state.updates = step;
      item.state.learning_rate = 3e-3;
      item.state.clip = index % 2 == 0 ? 1 : 0.37;
      item.state.skip = index % 11 == 7 ? 1 : 0;
      item.constants.weight_decay = index % 3 == 0 ? 0 : 0.1;
      item.rounded = index % 2 == 1;
      cases.push_back(item);
      ++index;
    }
  }
  return cases;
}

// All parameters of the small training model, and of a 130M model's head.
std::vector<Case> bench_cases() {
  std::vector<Case> cases;
  for (const int64_t count : {1750000, 38615040}) {
    Case item;
    item.shape.count = count;
    item.state.updates = 100;
    item.rounded = true;
    item.state.learning_rate = 1e-9;  // keeps the values normal over many runs
    cases.push_back(item);
  }
  return cases;
}

}  // namespace

std::vector<Variant> optim_variants(Purpose purpose) {
  std::vector<Variant> variants;
  const auto cases = purpose == Purpose::test ? test_cases() : bench_cases();
  if (purpose == Purpose::test) add_variants<double>(cases, variants);
  add_variants<float>(cases, variants);
  return variants;
}

}  // namespace adder::measure
