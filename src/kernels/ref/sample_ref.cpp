#include "kernels/ref/sample_ref.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

namespace adder::ref {
namespace {

struct Candidate {
  double logit;
  size_t id;
  double p;
};

// Divides by the sum.
void normalize(std::vector<Candidate>& candidates) {
  double sum = 0;
  for (const Candidate& c : candidates) sum += c.p;
  for (Candidate& c : candidates) c.p /= sum;
}

std::vector<Candidate> sorted_candidates(const SamplingOptions& options,
                                         std::span<const float> logits,
                                         std::span<const int32_t> previous) {
  const std::set<int32_t> seen(previous.begin(), previous.end());
  std::vector<Candidate> candidates;
  for (size_t id = 0; id < logits.size(); ++id) {
    float x = logits[id];
    if (std::isnan(x)) continue;
    if (seen.contains(static_cast<int32_t>(id))) {
      const auto penalty = static_cast<float>(options.repetition_penalty);
      x = x > 0 ? x / penalty : x * penalty;
    }
    candidates.push_back({x, id, 0});
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  });
  return candidates;
}

void cut_to_mass(std::vector<Candidate>& candidates, double share) {
  double mass = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    mass += candidates[i].p;
    if (mass >= share) {
      candidates.resize(i + 1);
      return;
    }
  }
}

}  // namespace

std::vector<double> sampling_distribution(const SamplingOptions& options,
                                          std::span<const float> logits,
                                          std::span<const int32_t> previous) {
  std::vector<Candidate> candidates = sorted_candidates(options, logits, previous);
  std::vector<double> probability(logits.size(), 0.0);
  const bool greedy = options.temperature == 0 || options.top_k == 1;
  const size_t most = greedy ? 1 : static_cast<size_t>(options.top_k);
  if (most > 0 && most < candidates.size()) candidates.resize(most);
  for (Candidate& c : candidates) {
    c.p = greedy ? 1 : std::exp((c.logit - candidates[0].logit) / options.temperature);
  }
  normalize(candidates);
  if (options.top_p < 1) cut_to_mass(candidates, options.top_p);
  const double least = options.min_p * candidates[0].p;
  std::erase_if(candidates, [&](const Candidate& c) { return c.p < least; });
  normalize(candidates);
  for (const Candidate& c : candidates) probability[c.id] = c.p;
  return probability;
}

}  // namespace adder::ref
