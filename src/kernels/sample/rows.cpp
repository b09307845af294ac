#include "kernels/sample/rows.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "core/rng.h"
#include "core/threads.h"

namespace adder {
namespace {

// Rows that are drawn at once; each needs a Space of its own.
constexpr int64_t kItems = 16;

int64_t items_of(const SampleShape& shape) { return std::min(shape.rows, kItems); }

// Ids in the order of the draw.
struct Ids {
  int32_t* data = nullptr;
  int64_t count = 0;

  int32_t* begin() const { return data; }
  int32_t* end() const { return data + count; }
  void add(int32_t id) { data[count++] = id; }
  template <class Drop>
  void drop_if(const Drop& drop) {
    count = std::remove_if(begin(), end(), drop) - data;
  }
};

// Each array has room for the vocabulary: 1 MB in all for 50280 ids.
struct Space {
  float* logits;    // after the repetition penalty
  double* weights;  // by id
  Ids kept;         // candidates
  Ids edge;         // candidates among which the cut of top_p falls
};

// The logits that are drawn from: a copy when the penalty changes any.
const float* penalized(const SampleShape& shape, const SampleRow& row, const float* logits,
                       const int32_t* previous, Space& space) {
  if (row.options.repetition_penalty == 1.0 || previous == nullptr || row.previous_count == 0) {
    return logits;
  }
  std::copy(logits, logits + shape.vocab, space.logits);
  const auto penalty = static_cast<float>(row.options.repetition_penalty);
  const int32_t* first = previous + row.previous_begin;
  double* seen = space.weights;  // not in use yet
  std::fill(seen, seen + shape.vocab, 0.0);
  for (int64_t i = 0; i < row.previous_count; ++i) {
    if (std::exchange(seen[first[i]], 1.0) != 0) continue;
    float& x = space.logits[first[i]];
    x = x > 0 ? x / penalty : x * penalty;
  }
  return space.logits;
}

// Falling logits, ties by rising id: the order of every cut.
struct Before {
  const float* logits;
  bool operator()(int32_t a, int32_t b) const {
    const float x = logits[a], y = logits[b];
    return x != y ? x > y : a < b;
  }
};

// Keeps the first `count` of more ids. A small part of many is taken by a heap that most ids fail
// to enter at one comparison. Sorted, so that the order of the draw is one everywhere.
void select_first(Ids& ids, int64_t count, const Before& before) {
  int32_t* middle = ids.begin() + count;
  if (count * 16 <= ids.count) {
    std::partial_sort(ids.begin(), middle, ids.end(), before);
  } else {
    std::nth_element(ids.begin(), middle, ids.end(), before);
    std::sort(ids.begin(), middle, before);
  }
  ids.count = count;
}

// The smallest prefix of candidates, in falling order, that holds `share` of the mass: by classes
// of logits a sixteenth of an e-fold wide, so that only the class on the edge is sorted.
void cut_to_mass(const SamplingOptions& options, const float* logits, float most, Space& space) {
  constexpr int kClasses = 512;
  const auto class_of = [&](int32_t id) {
    const float x = logits[id];
    if (x == most) return 0;  // also where both are infinite
    const double folds = (static_cast<double>(most) - x) / options.temperature;
    return static_cast<int>(std::min<double>(kClasses - 1, folds * 16));
  };
  std::array<double, kClasses> class_mass = {};
  for (const int32_t id : space.kept) {
    class_mass[static_cast<size_t>(class_of(id))] += space.weights[id];
  }
  double total = 0;
  for (const double mass : class_mass) total += mass;

  const double wanted = options.top_p * total;
  double mass = 0;
  int edge_class = 0;
  while (edge_class < kClasses - 1 && mass + class_mass[static_cast<size_t>(edge_class)] < wanted) {
    mass += class_mass[static_cast<size_t>(edge_class++)];
  }
  space.edge.count = 0;
  for (const int32_t id : space.kept) {
    if (class_of(id) == edge_class) space.edge.add(id);
  }
  space.kept.drop_if([&](int32_t id) { return class_of(id) >= edge_class; });
  std::sort(space.edge.begin(), space.edge.end(), Before{logits});
  for (const int32_t id : space.edge) {
    space.kept.add(id);
    mass += space.weights[id];
    if (mass >= wanted) return;
  }
}

// Fills weights and kept; what is not kept has no part in the draw.
void keep(const SampleShape& shape, const SamplingOptions& options, const float* logits, float most,
          Space& space) {
  double* weights = space.weights;
  if (std::isinf(most)) {  // +inf beats all; its equals share
    for (int64_t i = 0; i < shape.vocab; ++i) weights[i] = logits[i] == most ? 1.0 : 0.0;
  } else {
    softmax_weights(logits, shape.vocab, most, options.temperature, weights);
  }
  Ids& kept = space.kept;
  kept.count = 0;
  for (int64_t i = 0; i < shape.vocab; ++i) {
    if (weights[i] > 0) kept.add(static_cast<int32_t>(i));
  }
  if (options.top_k > 0 && options.top_k < kept.count) {
    select_first(kept, options.top_k, Before{logits});
  }
  if (options.top_p < 1) cut_to_mass(options, logits, most, space);
  // The largest weight is 1.
  if (options.min_p > 0) kept.drop_if([&](int32_t id) { return weights[id] < options.min_p; });
}

int32_t draw(const SampleRow& row, const Space& space, double total) {
  const double at = uniform01(row.options.seed, row.sequence, row.position) * total;
  double mass = 0;
  for (const int32_t id : space.kept) {
    mass += space.weights[id];
    if (mass > at) return id;
  }
  return space.kept.end()[-1];
}

void sample_row(const SampleShape& shape, const SampleArgs& args, int64_t index, Space& space) {
  const SampleRow& row = args.options[index];
  const float* logits =
      penalized(shape, row, args.logits + index * args.logit_stride, args.previous, space);
  double* probability =
      args.probability == nullptr ? nullptr : args.probability + index * shape.vocab;
  if (probability != nullptr) std::fill(probability, probability + shape.vocab, 0.0);
  int32_t& id = args.ids[index];
  id = kNoToken;
  const float most = largest_logit(logits, shape.vocab);
  if (most == -std::numeric_limits<float>::infinity()) return;
  if (row.options.temperature == 0 || row.options.top_k == 1) {
    id = static_cast<int32_t>(std::find(logits, logits + shape.vocab, most) - logits);
    if (probability != nullptr) probability[id] = 1;
    return;
  }
  keep(shape, row.options, logits, most, space);
  double total = 0;
  for (const int32_t kept : space.kept) total += space.weights[kept];
  id = draw(row, space, total);
  if (probability == nullptr) return;
  for (const int32_t kept : space.kept) probability[kept] = space.weights[kept] / total;
}

}  // namespace

int64_t sample_rows_scratch(const Caps&, const SampleShape& shape, Direction) {
  constexpr auto kWord = static_cast<int64_t>(sizeof(int32_t));
  return items_of(shape) * (align_up(shape.vocab * static_cast<int64_t>(sizeof(float))) +
                            align_up(shape.vocab * static_cast<int64_t>(sizeof(double))) +
                            2 * align_up(shape.vocab * kWord));
}

void sample_rows(const SampleShape& shape, const SampleArgs& args, Exec exec) {
  std::array<Space, kItems> spaces;
  const int64_t items = items_of(shape);
  for (int64_t item = 0; item < items; ++item) {
    Space& space = spaces[static_cast<size_t>(item)];
    space.logits = exec.carve<float>(shape.vocab);
    space.weights = exec.carve<double>(shape.vocab);
    space.kept.data = exec.carve<int32_t>(shape.vocab);
    space.edge.data = exec.carve<int32_t>(shape.vocab);
  }
  parallel_for(exec.threads, items, [&](int64_t item) {
    for (int64_t index = item; index < shape.rows; index += items) {
      sample_row(shape, args, index, spaces[static_cast<size_t>(item)]);
    }
  });
}

}  // namespace adder
