// What a family's *_variants.cpp needs around one call: watching inputs, comparing outputs.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/context.h"
#include "measure/tensors.h"
#include "measure/variant.h"

namespace adder::measure {

/// True while nobody wrote element i of a Guarded array.
template <class T>
bool is_poison(const T& value) {
  unsigned char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  return std::all_of(bytes, bytes + sizeof(T), [](unsigned char b) { return b == 0xFF; });
}

/// Compares what a kernel wrote with the reference: in double, in the dtype, on absolute values.
/// Elements that the reference left alone (the gaps of a strided slice) must be untouched.
/// `product`: see OutputCheck.
template <class T>
void compare_output(Comparison& comparison, const std::string& name, const Guarded<T>& got,
                    const Guarded<double>& expected, const Guarded<T>& evaluated,
                    const Guarded<double>& absolute, Dtype product = Dtype::f64) {
  OutputCheck check;
  check.name = name;
  check.dtype = dtype_of<T>;
  check.product = product;
  for (int64_t i = 0; i < got.count(); ++i) {
    if (is_poison(expected[i])) {
      if (!is_poison(got[i])) {
        comparison.add_fault("wrote element " + std::to_string(i) + " of '" + name +
                             "', which is not its own");
        return;
      }
      continue;
    }
    check.got.push_back(to_double(got[i]));
    check.expected.push_back(expected[i]);
    check.evaluated.push_back(to_double(evaluated[i]));
    check.absolute.push_back(absolute[i]);
  }
  comparison.add(check);
  got.check_guards(comparison, name);
}

/// Remembers arrays before a call, byte for byte, and finds those that changed.
class InputWatch {
 public:
  template <class T>
  void watch(const std::string& name, const Guarded<T>& array) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(array.data());
    const std::vector<unsigned char> before(bytes, bytes + array.count() * sizeof(T));
    checks_.push_back([&array, before, name](Comparison& comparison) {
      array.check_guards(comparison, name);
      if (!before.empty() && std::memcmp(before.data(), array.data(), before.size()) != 0) {
        comparison.add_fault("changed input '" + name + "'");
      }
    });
  }
  void check(Comparison& comparison) const {
    for (const auto& check : checks_) check(comparison);
  }

 private:
  std::vector<std::function<void(Comparison&)>> checks_;
};

/// Runs call(context) twice: over a measuring arena, then over one of just that size.
template <class Call>
void run_planned(int threads, const Call& call) {
  Arena plan;
  Context context;
  context.threads = threads;
  context.arena = &plan;
  call(context);
  Arena arena(std::max<int64_t>(plan.peak_bytes(), kAlignment), Memory{});
  context.arena = &arena;
  call(context);
}

/// One call of a door kept ready for timing, with its own planned arena.
template <class Problem>
class PreparedCall : public Prepared {
 public:
  using Call = std::function<void(Problem&, Context&)>;
  PreparedCall(std::unique_ptr<Problem> problem, int threads, Call call)
      : problem_(std::move(problem)), call_(std::move(call)) {
    Arena plan;
    context_.threads = threads;
    context_.arena = &plan;
    call_(*problem_, context_);
    arena_ = std::make_unique<Arena>(std::max<int64_t>(plan.peak_bytes(), kAlignment), Memory{});
    context_.arena = arena_.get();
  }
  void run() override { call_(*problem_, context_); }

 private:
  std::unique_ptr<Problem> problem_;
  Call call_;
  std::unique_ptr<Arena> arena_;
  Context context_;
};

}  // namespace adder::measure
