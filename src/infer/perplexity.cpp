#include "infer/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/contents.h"
#include "core/error.h"

namespace adder {
namespace {

// Tokens of one call over a batch of windows, and between two calls of `progress`.
constexpr int64_t kCallTokens = 4096;

Perplexity carried(std::shared_ptr<const LanguageModel<float>> model, std::span<const int32_t> ids,
                   const PerplexityOptions& options, const ScoreProgress& progress) {
  EngineOptions engine_options;
  engine_options.threads = options.threads;
  Engine engine(std::move(model), engine_options);
  Perplexity sum;
  std::vector<double> nats(static_cast<size_t>(kCallTokens));
  const int64_t count = static_cast<int64_t>(ids.size()) - 1;
  for (int64_t first = 0; first < count; first += kCallTokens) {
    const size_t n = static_cast<size_t>(std::min(kCallTokens, count - first));
    engine.score(0, ids.subspan(static_cast<size_t>(first), n),
                 ids.subspan(static_cast<size_t>(first) + 1, n), nats.data());
    for (size_t i = 0; i < n; ++i) sum.total_nats += nats[i];
    sum.tokens += static_cast<int64_t>(n);
    if (progress) progress(sum.tokens);
  }
  return sum;
}

Perplexity windowed(const LanguageModel<float>& model, std::span<const int32_t> ids,
                    const PerplexityOptions& options, const ScoreProgress& progress) {
  const int64_t count = static_cast<int64_t>(ids.size()) - 1;
  const int64_t most = std::max<int64_t>(1, kCallTokens / options.window);
  ModelRunner<float> runner(model, with_threads(model.store().context(), options.threads), "eval");
  Perplexity sum;
  while (sum.tokens < count) {
    const int64_t rest = count - sum.tokens;
    const int64_t window = std::min(options.window, rest);
    const int64_t windows = std::min(most, rest / window);
    CallInput input;
    input.batch = windows;
    input.len = window;
    input.ids = ids.subspan(static_cast<size_t>(sum.tokens), static_cast<size_t>(input.rows()));
    // Windows follow each other, so their targets are one array too.
    input.targets =
        ids.subspan(static_cast<size_t>(sum.tokens) + 1, static_cast<size_t>(input.rows()));
    for (const double value : runner.losses(input)) sum.total_nats += value;
    sum.tokens += windows * window;
    if (progress) progress(sum.tokens);
  }
  return sum;
}

}  // namespace

double Perplexity::perplexity() const { return std::exp(nats_per_token()); }

double Perplexity::bits_per_byte(double bytes) const {
  return total_nats / (std::numbers::ln2 * bytes);
}

Perplexity measure_perplexity(std::shared_ptr<const LanguageModel<float>> model,
                              std::span<const int32_t> ids, const PerplexityOptions& options,
                              const ScoreProgress& progress) {
  if (options.window < 0) {
    throw Error({"out of range", "eval: window", ">= 0", std::to_string(options.window)});
  }
  check_ids(ids, model->config().vocab_size, "eval");
  if (ids.size() < 2) return {};
  if (options.window > 0) return windowed(*model, ids, options, progress);
  return carried(std::move(model), ids, options, progress);
}

}  // namespace adder
