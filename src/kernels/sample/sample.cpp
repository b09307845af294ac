#include "kernels/sample/sample.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/rng.h"
#include "kernels/sample/weights.h"

namespace adder {
namespace {

// Reused from token to token: a vocabulary of 50280 needs 0.8 MB.
struct Workspace {
  std::vector<float> logits;      // after the repetition penalty
  std::vector<int32_t> previous;  // distinct previous ids
  std::vector<double> weights;    // by id
  std::vector<int32_t> kept;      // candidate ids, in the order of the draw
  std::vector<int32_t> edge;      // candidates among which the cut of top_p falls
};

Workspace& workspace_of_thread() {
  thread_local Workspace workspace;
  return workspace;
}

void require(bool good, const char* option, const char* expected, double got) {
  if (!good) {
    throw Error({"option out of range", fmt::format("sampling {}", option), expected,
                 fmt::format("{}", got)});
  }
}

// The logits that are drawn from: a copy when the penalty changes any.
std::span<const float> penalized(const SamplingOptions& options, std::span<const float> logits,
                                 std::span<const int32_t> previous, Workspace& workspace) {
  if (options.repetition_penalty == 1.0 || previous.empty()) return logits;
  workspace.logits.assign(logits.begin(), logits.end());
  workspace.previous.assign(previous.begin(), previous.end());
  auto& ids = workspace.previous;
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  const auto penalty = static_cast<float>(options.repetition_penalty);
  for (const int32_t id : ids) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) {
      throw Error({"previous id out of range", "sampling",
                   fmt::format("an id below the vocabulary of {}", logits.size()),
                   std::to_string(id)});
    }
    float& x = workspace.logits[static_cast<size_t>(id)];
    x = x > 0 ? x / penalty : x * penalty;
  }
  return workspace.logits;
}

float largest_of(std::span<const float> logits) {
  const float most = largest_logit(logits.data(), static_cast<int64_t>(logits.size()));
  if (most == -std::numeric_limits<float>::infinity()) {
    throw Error({"no token can be drawn", "sampling", "a logit above -inf",
                 fmt::format("{} logits, all -inf or NaN", logits.size())});
  }
  return most;
}

bool greedy(const SamplingOptions& options) {
  return options.temperature == 0 || options.top_k == 1;
}

int32_t first_at(std::span<const float> logits, float value) {
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), value) - logits.begin());
}

// Falling logits, ties by rising id: the order of every cut.
struct Before {
  std::span<const float> logits;
  bool operator()(int32_t a, int32_t b) const {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  }
};

// Keeps the first `count` of more ids. A small part of many is taken by a heap that most ids fail
// to enter at one comparison. Sorted, so that the order of the draw is one everywhere.
void select_first(std::vector<int32_t>& ids, size_t count, const Before& before) {
  const auto middle = ids.begin() + static_cast<std::ptrdiff_t>(count);
  if (count * 16 <= ids.size()) {
    std::partial_sort(ids.begin(), middle, ids.end(), before);
  } else {
    std::nth_element(ids.begin(), middle, ids.end(), before);
    std::sort(ids.begin(), middle, before);
  }
  ids.resize(count);
}

// The smallest prefix of candidates, in falling order, that holds `share` of the mass: by classes
// of logits a sixteenth of an e-fold wide, so that only the class on the edge is sorted.
void cut_to_mass(const SamplingOptions& options, std::span<const float> logits, float most,
                 Workspace& workspace) {
  constexpr int kClasses = 512;
  const auto class_of = [&](int32_t id) {
    const float x = logits[static_cast<size_t>(id)];
    if (x == most) return 0;  // also where both are infinite
    const double folds = (static_cast<double>(most) - x) / options.temperature;
    return static_cast<int>(std::min<double>(kClasses - 1, folds * 16));
  };
  const auto weight = [&](int32_t id) { return workspace.weights[static_cast<size_t>(id)]; };
  std::array<double, kClasses> class_mass = {};
  for (const int32_t id : workspace.kept)
    class_mass[static_cast<size_t>(class_of(id))] += weight(id);
  double total = 0;
  for (const double mass : class_mass) total += mass;

  const double wanted = options.top_p * total;
  double mass = 0;
  int edge_class = 0;
  while (edge_class < kClasses - 1 && mass + class_mass[static_cast<size_t>(edge_class)] < wanted) {
    mass += class_mass[static_cast<size_t>(edge_class++)];
  }
  auto& edge = workspace.edge;
  edge.clear();
  std::erase_if(workspace.kept, [&](int32_t id) {
    const int at = class_of(id);
    if (at == edge_class) edge.push_back(id);
    return at >= edge_class;
  });
  std::sort(edge.begin(), edge.end(), Before{logits});
  for (const int32_t id : edge) {
    workspace.kept.push_back(id);
    mass += weight(id);
    if (mass >= wanted) return;
  }
}

// Fills weights (by id) and kept; what is not kept has no part in the draw.
void keep(const SamplingOptions& options, std::span<const float> logits, Workspace& workspace) {
  const float most = largest_of(logits);
  auto& weights = workspace.weights;
  weights.resize(logits.size());
  if (std::isinf(most)) {  // +inf beats all; its equals share
    for (size_t i = 0; i < logits.size(); ++i) weights[i] = logits[i] == most ? 1.0 : 0.0;
  } else {
    softmax_weights(logits.data(), static_cast<int64_t>(logits.size()), most, options.temperature,
                    weights.data());
  }
  auto& kept = workspace.kept;
  kept.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (weights[i] > 0) kept.push_back(static_cast<int32_t>(i));
  }
  const auto top_k = static_cast<size_t>(options.top_k);
  if (top_k > 0 && top_k < kept.size()) select_first(kept, top_k, Before{logits});
  if (options.top_p < 1) cut_to_mass(options, logits, most, workspace);
  if (options.min_p > 0) {  // the largest weight is 1
    std::erase_if(kept,
                  [&](int32_t id) { return weights[static_cast<size_t>(id)] < options.min_p; });
  }
}

double mass_of(const Workspace& workspace) {
  double mass = 0;
  for (const int32_t id : workspace.kept) mass += workspace.weights[static_cast<size_t>(id)];
  return mass;
}

}  // namespace

void SamplingOptions::check() const {
  require(std::isfinite(temperature) && temperature >= 0, "temperature", ">= 0", temperature);
  require(top_k >= 0, "top_k", ">= 0", static_cast<double>(top_k));
  require(top_p >= 0 && top_p <= 1, "top_p", "in [0, 1]", top_p);
  require(min_p >= 0 && min_p <= 1, "min_p", "in [0, 1]", min_p);
  require(std::isfinite(repetition_penalty) && repetition_penalty > 0, "repetition_penalty", "> 0",
          repetition_penalty);
}

int32_t sample_token(const SamplingOptions& options, std::span<const float> logits,
                     std::span<const int32_t> previous, uint64_t sequence, uint64_t position) {
  options.check();
  Workspace& workspace = workspace_of_thread();
  const auto drawn = penalized(options, logits, previous, workspace);
  if (greedy(options)) return first_at(drawn, largest_of(drawn));
  keep(options, drawn, workspace);
  const double at = uniform01(options.seed, sequence, position) * mass_of(workspace);
  double mass = 0;
  for (const int32_t id : workspace.kept) {
    mass += workspace.weights[static_cast<size_t>(id)];
    if (mass > at) return id;
  }
  return workspace.kept.back();
}

std::vector<double> sampling_distribution(const SamplingOptions& options,
                                          std::span<const float> logits,
                                          std::span<const int32_t> previous) {
  options.check();
  Workspace& workspace = workspace_of_thread();
  const auto drawn = penalized(options, logits, previous, workspace);
  std::vector<double> probability(logits.size(), 0.0);
  if (greedy(options)) {
    probability[static_cast<size_t>(first_at(drawn, largest_of(drawn)))] = 1;
    return probability;
  }
  keep(options, drawn, workspace);
  const double mass = mass_of(workspace);
  for (const int32_t id : workspace.kept) {
    probability[static_cast<size_t>(id)] = workspace.weights[static_cast<size_t>(id)] / mass;
  }
  return probability;
}

}  // namespace adder
