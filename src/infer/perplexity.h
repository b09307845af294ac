// How well a model predicts a text: the measure behind `adder eval` and perplexity reports.
#pragma once

#include "infer/engine.h"

namespace adder {

struct PerplexityOptions {
  int threads = 0;
  /// 0: the state is carried through each document from its first token to its last. > 0: the
  /// state starts at zero every `window` predicted tokens, as in training; windows share one token,
  /// so that every token but the first is predicted exactly once either way.
  int64_t window = 0;
};

/// Sums over documents; add() them up in order.
struct Perplexity {
  int64_t tokens = 0;     // predicted
  double total_nats = 0;  // sum of cross-entropies

  double nats_per_token() const { return total_nats / static_cast<double>(tokens); }
  double perplexity() const;
  /// `bytes`: of the text of the predicted tokens.
  double bits_per_byte(double bytes) const;
  void add(const Perplexity& other) {
    tokens += other.tokens;
    total_nats += other.total_nats;
  }
};

/// Called now and then with the number of tokens that are done.
using ScoreProgress = std::function<void(int64_t)>;

/// Scores one document (ids[1..] given what stands before each). A document of fewer than two
/// tokens scores nothing. Throws Error on an id outside the vocabulary, naming its position.
Perplexity measure_perplexity(std::shared_ptr<const LanguageModel<float>> model,
                              std::span<const int32_t> ids, const PerplexityOptions& options,
                              const ScoreProgress& progress = {});

}  // namespace adder
