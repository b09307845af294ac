#include "infer/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numbers>

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

// Windows of equal length in batches: ids[first + w * window ...] for w < batch.
class WindowBatch {
 public:
  WindowBatch(const LanguageModel<float>& model, int threads) : model_(model) {
    context_.threads = threads > 0 ? threads : available_threads();
    context_.arena = &arena_;
  }

  void score(const int32_t* ids, int64_t batch, int64_t window, double* nats) {
    TokenBatch call;
    call.layout.batch = batch;
    call.layout.len = window;
    call.ids = ids;
    call.targets = ids + 1;  // windows follow each other, so the targets are one array too
    const int64_t bytes = plan_bytes(
        context_, [&](Context& measuring) { model_.evaluate(measuring, call, {}, nats); });
    if (bytes > arena_.capacity()) arena_ = Arena(bytes);
    model_.evaluate(context_, call, {}, nats);
  }

 private:
  const LanguageModel<float>& model_;
  Context context_;
  Arena arena_{0};
};

Perplexity windowed(const LanguageModel<float>& model, std::span<const int32_t> ids,
                    const PerplexityOptions& options, const ScoreProgress& progress) {
  const int64_t count = static_cast<int64_t>(ids.size()) - 1;
  const int64_t most = std::max<int64_t>(1, kCallTokens / options.window);
  WindowBatch batch(model, options.threads);
  Perplexity sum;
  std::vector<double> nats;
  while (sum.tokens < count) {
    const int64_t rest = count - sum.tokens;
    const int64_t window = std::min(options.window, rest);
    const int64_t windows = std::min(most, rest / window);
    nats.resize(static_cast<size_t>(windows * window));
    batch.score(ids.data() + sum.tokens, windows, window, nats.data());
    for (const double value : nats) sum.total_nats += value;
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
  check_token_ids(ids, model->config().vocab_size);
  if (ids.size() < 2) return {};
  if (options.window > 0) return windowed(*model, ids, options, progress);
  return carried(std::move(model), ids, options, progress);
}

}  // namespace adder
