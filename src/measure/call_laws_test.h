// Laws that hold for the calls of every family, said once for the tests beside the kernels. C is
// the type of a call (call.h), `given` its case.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/simd_targets.h"
#include "core/workspace.h"
#include "measure/call.h"
#include "measure/gradcheck.h"

namespace adder::measure {

inline constexpr Direction kForward = Direction::forward;
inline constexpr Direction kBackward = Direction::backward;

/// Runs body once for each SIMD target.
template <class Body>
void on_every_target(const Body& body) {
  for (const auto& target : simd_targets()) {
    SCOPED_TRACE(target.name);
    force_simd_target(target.bits);
    body();
  }
  force_simd_target(0);
}

/// Runs doors over the device images of these arrays.
template <class Run, class... Arrays>
void run_on_device(int threads, const Run& run, Arrays&... arrays) {
  Workspace workspace(threads);
  const Memory memory = workspace.context().memory(MemoryKind::device);
  (arrays.upload(memory), ...);
  workspace.run(run);
  (arrays.download(), ...);
}

/// The answer of a door to bad arguments. The device images of the call are there.
template <class Run>
std::string error_of(const Run& run) {
  try {
    Workspace(1).run(run);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}
/// Of a door that misses an array: "family: field".
inline std::string absent(const std::string& field) {
  return field + ": bad shape: expected an array, got none";
}
/// The answers of the doors when `take(forward, backward)` has changed their arguments; also while
/// memory is only planned.
template <class C, class Take>
std::string error_without(C& call, const Take& take) {
  call.upload(Workspace(1).context());
  return error_of([&](Context& context) {
    auto forward = call.forward(Side::device);
    auto backward = call.backward(Side::device);
    take(forward, backward);
    C::kDoors.forward(context, call.given.shape, forward, {});
    C::kDoors.backward(context, call.given.shape, backward, {});
  });
}

/// Every array of two calls of one shape.
inline void expect_same_bits(Call& a, Call& b, const std::string& what = {}) {
  const auto left = a.arrays(), right = b.arrays();
  ASSERT_EQ(left.size(), right.size());
  for (size_t i = 0; i < left.size(); ++i) {
    EXPECT_TRUE(left[i].array->same_bits(*right[i].array)) << what << " " << left[i].name;
  }
}

/// Elements of `part` against those of `whole` from `first` on, relative to its largest. A limit of
/// 0 asks for the same bits.
inline void expect_close(const Array& part, const Array& whole, int64_t first, double limit,
                         const std::string& what) {
  ASSERT_LE(first + part.count(), whole.count()) << what;
  if (limit == 0) {
    EXPECT_TRUE(whole.holds(part, first)) << what;
    return;
  }
  double largest = 0;
  for (const double w : whole.widened()) largest = std::max(largest, std::abs(w));
  for (int64_t i = 0; i < part.count(); ++i) {
    ASSERT_NEAR(part.value(i), whole.value(first + i), limit * largest) << what << " " << i;
  }
}

/// Saved states depend on where chunks begin.
inline bool is_result(const Listed& each) {
  const bool written = each.written(kForward) || each.written(kBackward);
  return written && std::string_view(each.name) != "saved";
}

/// All results of two calls of one shape.
inline void expect_all_close(Call& got, Call& expected, double limit, const std::string& what) {
  const auto a = got.arrays(), b = expected.arrays();
  for (size_t i = 0; i < a.size(); ++i) {
    if (!is_result(a[i])) continue;
    expect_close(*a[i].array, *b[i].array, 0, limit, what + " " + a[i].name);
  }
}

inline void expect_all_finite(Call& call, const std::string& what) {
  for (const Listed& each : call.arrays()) {
    if (!is_result(each)) continue;
    for (const double value : each.array->widened()) {
      ASSERT_TRUE(std::isfinite(value)) << what << " " << each.name;
    }
  }
}

/// Of the inputs of `whole`: the parameters, the tokens from `first` on of batch row 0, and the
/// states from row `row` on.
inline void take_part(Call& whole, int64_t first, int64_t row, Call& part) {
  const auto from = whole.arrays(), to = part.arrays();
  for (const Listed& each : to) {
    const bool read = each.role == Role::input || each.role == Role::upstream;
    if (!read || !each.array->floating()) continue;
    const auto same = std::find_if(from.begin(), from.end(), [&](const Listed& other) {
      return std::string_view(other.name) == each.name;
    });
    ASSERT_NE(same, from.end()) << each.name;
    each.array->take(*same->array, first * each.token + row * each.row);
  }
}

/// The array of states with this role.
inline Array& state_of(Call& call, Role role) {
  for (const Listed& each : call.arrays()) {
    if (each.row > 0 && each.role == role) return *each.array;
  }
  ADDER_CHECK(false);
  std::abort();
}

template <class C>
C make_with_len(typename C::Given given, int64_t len) {
  given.shape.len = len;
  return C(given, 1);
}

/// 0: the same bits.
struct LawLimits {
  double output = 0;
  double gradient = 0;
  double sum = 0;  // of parameters: sums over all tokens

  double of(const Listed& each) const {
    if (each.role == Role::output) return output;
    return each.token > 0 || each.row > 0 ? gradient : sum;
  }
};

/// Prefix and suffix with the carried state and its gradient give the whole. One batch row.
template <class C>
void expect_prefix_and_suffix(const typename C::Given& given, int64_t cut, const Choice& choice,
                              const LawLimits& limits) {
  C whole(given, 1), head = make_with_len<C>(given, cut),
                     tail = make_with_len<C>(given, given.shape.len - cut);
  take_part(whole, 0, 0, head);
  take_part(whole, cut, 0, tail);
  Workspace workspace(1);
  whole.run(workspace, {kForward, kBackward}, choice);
  head.run(workspace, {kForward}, choice);
  state_of(tail, Role::input).assign(state_of(head, Role::output));
  tail.run(workspace, {kForward, kBackward}, choice);
  state_of(head, Role::upstream).assign(state_of(tail, Role::gradient));
  head.run(workspace, {kBackward}, choice);
  const auto all = whole.arrays(), first = head.arrays(), second = tail.arrays();
  for (size_t i = 0; i < all.size(); ++i) {
    if (!is_result(all[i])) continue;
    const std::string what =
        std::string(choice.name) + " cut " + std::to_string(cut) + " " + all[i].name;
    const double limit = limits.of(all[i]);
    if (all[i].token > 0) {
      expect_close(*first[i].array, *all[i].array, 0, limit, what);
      expect_close(*second[i].array, *all[i].array, cut * all[i].token, limit, what);
    } else if (all[i].row > 0) {
      const auto& end = all[i].role == Role::output ? second : first;
      expect_close(*end[i].array, *all[i].array, 0, limit, what);
    } else {
      Array sum = *first[i].array;
      for (int64_t k = 0; k < sum.count(); ++k)
        sum.set(k, sum.value(k) + second[i].array->value(k));
      expect_close(sum, *all[i].array, 0, limit, what);
    }
  }
}

/// Results of a packed call against those of each sequence alone; sums over them, where
/// `limits.sum` is not 0.
template <class C>
void expect_packed_equals_separate(const typename C::Given& given, int threads,
                                   const Choice& choice, const LawLimits& limits) {
  C packed(given, 1);
  packed.run_both(threads, choice);
  const auto all = packed.arrays();
  std::vector<std::vector<double>> sums(all.size());
  for (size_t q = 0; q + 1 < given.cu.size(); ++q) {
    typename C::Given one = given;
    one.cu = {};
    one.shape.sequences = 0;
    C alone = make_with_len<C>(one, given.cu[q + 1] - given.cu[q]);
    const auto row = static_cast<int64_t>(q);
    take_part(packed, given.cu[q], row, alone);
    alone.run_both(1, choice);
    for (size_t i = 0; i < all.size(); ++i) {
      if (!is_result(all[i])) continue;
      const std::string what =
          std::string(choice.name) + " sequence " + std::to_string(q) + " " + all[i].name;
      const Array& part = alone.array(all[i].name);
      if (all[i].token > 0 || all[i].row > 0) {
        expect_close(part, *all[i].array, given.cu[q] * all[i].token + row * all[i].row,
                     limits.of(all[i]), what);
      } else {
        sums[i].resize(static_cast<size_t>(part.count()));
        for (int64_t k = 0; k < part.count(); ++k) sums[i][static_cast<size_t>(k)] += part.value(k);
      }
    }
  }
  for (size_t i = 0; i < all.size(); ++i) {
    if (sums[i].empty() || limits.sum == 0) continue;
    Array sum = *all[i].array;
    for (int64_t k = 0; k < sum.count(); ++k) sum.set(k, sums[i][static_cast<size_t>(k)]);
    expect_close(sum, *all[i].array, 0, limits.sum, all[i].name);
  }
}

/// A batch row gives the bits that it gives alone.
template <class C>
void expect_batch_mates_do_not_matter(const typename C::Given& given, const Choice& choice) {
  C all(given, 1);
  all.run_both(1, choice);
  for (int64_t b = 0; b < given.shape.batch; ++b) {
    typename C::Given one = given;
    one.shape.batch = 1;
    C alone(one, 1);
    take_part(all, b * given.shape.len, b, alone);
    alone.run_both(1, choice);
    for (const Listed& each : all.arrays()) {
      if (!is_result(each) || (each.token == 0 && each.row == 0)) continue;
      expect_close(alone.array(each.name), *each.array,
                   b * given.shape.len * each.token + b * each.row, 0,
                   std::string(choice.name) + " " + std::to_string(b) + " " + each.name);
    }
  }
}

/// Forward by one line = a loop of steps by `step(context, shape, args)`, which takes one token of
/// each batch row.
template <class C, class Step>
void expect_forward_equals_steps(const typename C::Given& given, const Choice& choice,
                                 const Step& step, double limit) {
  C whole(given, 1);
  Workspace workspace(1);
  whole.run(workspace, {kForward}, choice);
  typename C::Given carried = given;
  carried.in_place = true;
  C steps(carried, 1);
  steps.upload(workspace.context());
  workspace.run([&](Context& context) {
    auto shape = given.shape;
    shape.len = 1;
    for (int64_t t = 0; t < given.shape.len; ++t) {
      step(context, shape, steps.token(Side::device, t));
    }
  });
  steps.download();
  for (const Listed& each : whole.arrays()) {
    if (each.role != Role::output || !is_result(each)) continue;
    expect_close(steps.array(each.name), *each.array, 0, limit,
                 std::string(choice.name) + " " + whole.given.describe() + " " + each.name);
  }
}

/// Gradients of parameters are written or added to: the bits of a write followed by an add.
/// `run(call)` runs both directions, or the references of both.
template <class C, class Run>
void expect_accumulated(typename C::Given given, const Run& run, const std::string& what) {
  C written(given, 1);
  given.accumulate = true;
  C added(given, 1);
  const auto before = added.copy();
  run(written);
  run(added);
  const auto sum = added.arrays(), there = before->arrays(), term = written.arrays();
  for (size_t i = 0; i < sum.size(); ++i) {
    const bool add = sum[i].written(kBackward) && sum[i].token == 0 && sum[i].row == 0;
    Array expected = *term[i].array;
    for (int64_t k = 0; add && k < expected.count(); ++k) {
      if (there[i].array->is_poison(k)) continue;
      expected.set(k, there[i].array->value(k) + term[i].array->value(k));
    }
    EXPECT_TRUE(sum[i].array->same_bits(expected)) << what << " " << sum[i].name;
  }
}

/// The state that enters chunk c of packed sequence q has the index cu[q] / chunk + q + c, and
/// nothing else of `saved` is written.
template <class C>
void expect_places_of_saved_states(const typename C::Given& given, const Choice& choice,
                                   int64_t chunk, double limit) {
  C packed(given, 1);
  packed.run_both(2, choice);
  std::vector<bool> owned(static_cast<size_t>(given.shape.saved_chunks()));
  const int64_t chunk_elements = packed.sizes.state;
  for (size_t q = 0; q + 1 < given.cu.size(); ++q) {
    typename C::Given one = given;
    one.cu = {};
    one.shape.sequences = 0;
    C alone = make_with_len<C>(one, given.cu[q + 1] - given.cu[q]);
    take_part(packed, given.cu[q], static_cast<int64_t>(q), alone);
    alone.run_both(1, choice);
    const int64_t first = given.cu[q] / chunk + static_cast<int64_t>(q);
    expect_close(alone.saved, packed.saved, first * chunk_elements, limit,
                 std::string(choice.name) + " sequence " + std::to_string(q));
    for (int64_t c = 0; c < alone.given.shape.saved_chunks(); ++c) {
      EXPECT_FALSE(owned[static_cast<size_t>(first + c)]);
      owned[static_cast<size_t>(first + c)] = true;
    }
  }
  for (int64_t i = 0; i < packed.saved.count(); ++i) {
    if (owned[static_cast<size_t>(i / chunk_elements)]) continue;
    EXPECT_TRUE(packed.saved.is_poison(i)) << choice.name << " " << i;
  }
}

/// Every gradient of the call, in double, against central differences of the sum of outputs times
/// their upstream gradients. `spoil` may plant a defect among the gradients.
inline GradReport compare_gradients(Call& call, const Choice& choice = {},
                                    const std::function<void()>& spoil = {}) {
  call.run_both(1, choice);
  if (spoil) spoil();
  const auto all = call.arrays();
  const auto values = [](const Array* array) {
    return std::span<double>(static_cast<const Guarded<double>*>(array)->raw(),
                             static_cast<size_t>(array->count()));
  };
  std::vector<GradInput> inputs;
  for (const Listed& each : all) {
    if (each.written(kBackward) && each.array->count() > 0) {
      inputs.push_back({each.name, values(each.of), values(each.array)});
    }
  }
  Workspace workspace(1);
  const auto loss = [&] {
    call.run(workspace, {kForward}, choice);
    double sum = 0;
    for (const Listed& each : all) {
      for (int64_t i = 0; each.role == Role::upstream && i < each.array->count(); ++i) {
        sum += each.of->value(i) * each.array->value(i);
      }
    }
    return sum;
  };
  return check_gradients(loss, inputs);
}
inline void expect_gradients(Call& call, const std::string& what, const Choice& choice = {}) {
  const GradReport report = compare_gradients(call, choice);
  EXPECT_TRUE(report.passed()) << choice.name << " " << what << ": " << report.worst << " "
                               << report.worst_at;
}

/// The comparison passes what the call wrote and sees an element that is moved by `defect`. Judged
/// as a sum of products in bf16, the defect weighs less: returns both weights.
inline std::pair<double, double> expect_defect_is_seen(Call& call, std::string_view name,
                                                       int64_t at, double defect) {
  Array& array = call.array(name);
  const Listed listed{.name = "spoiled", .array = &array, .judged = array.dtype()};
  const Array clean = array;
  Guarded<double> whole(clean.count()), sizes(clean.count());
  whole.assign(clean);
  for (int64_t i = 0; i < clean.count(); ++i) sizes[i] = std::abs(whole[i]);
  Comparison green, red, coarse;
  compare_output(green, listed, whole, clean, sizes);
  EXPECT_TRUE(green.passed()) << green.describe();
  array.set(at, array.value(at) + defect);
  compare_output(red, listed, whole, clean, sizes);
  EXPECT_FALSE(red.passed()) << red.describe();
  compare_output(coarse, listed, whole, clean, sizes, Dtype::bf16);
  return {red.worst, coarse.worst};
}

}  // namespace adder::measure
