#include "train/evaluation.h"

#include <algorithm>
#include <numbers>
#include <span>
#include <vector>

#include "kernels/loss/loss.h"

namespace adder {
namespace {

struct Sum {
  double loss = 0;
  int64_t tokens = 0;
  void add(const Sum& other) {
    loss += other.loss;
    tokens += other.tokens;
  }
  double mean() const { return tokens > 0 ? loss / static_cast<double>(tokens) : 0; }
};

// Over one window of a call.
Sum window_sum(std::span<const int32_t> targets, std::span<const double> loss) {
  Sum sum;
  for (size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] != kIgnoreIndex) sum.add({loss[i], 1});
  }
  return sum;
}

int64_t capped(int64_t cap, int64_t windows) { return cap > 0 ? std::min(cap, windows) : windows; }

}  // namespace

double bits_per_byte(double nats_per_token, double bytes_per_token) {
  return nats_per_token / (std::numbers::ln2 * bytes_per_token);
}

int64_t spread_window(int64_t index, int64_t count, int64_t windows) {
  return index * windows / count;
}

Evaluation evaluate(ModelRunner<float>& runner, const EvalSource& source,
                    const EvalOptions& options) {
  const int64_t len = source.len();
  const int64_t windows = source.windows();
  const int64_t count = capped(options.max_windows, windows);
  const int64_t compared = capped(options.compare_windows, count);
  std::vector<int32_t> ids(static_cast<size_t>(options.batch * len)), targets(ids.size());
  Sum all, compare;
  int64_t next = 0;  // of the windows to compare
  for (int64_t first = 0; first < count; first += options.batch) {
    for (int64_t row = 0; row < options.batch; ++row) {
      int32_t* row_targets = targets.data() + row * len;
      if (first + row < count) {
        source.fill(spread_window(first + row, count, windows), ids.data() + row * len,
                    row_targets);
      } else {
        std::fill(row_targets, row_targets + len, kIgnoreIndex);
      }
    }
    const auto loss =
        runner.losses({.batch = options.batch, .len = len, .ids = ids, .targets = targets});
    for (int64_t row = 0; row < options.batch && first + row < count; ++row) {
      const auto at = static_cast<size_t>(row * len), size = static_cast<size_t>(len);
      const Sum sum = window_sum(std::span(targets).subspan(at, size), loss.subspan(at, size));
      all.add(sum);
      if (next < compared && first + row == spread_window(next, compared, count)) {
        compare.add(sum);
        ++next;
      }
    }
  }
  Evaluation result;
  result.loss = all.mean();
  result.tokens = all.tokens;
  result.bits_per_byte = bits_per_byte(result.loss, source.bytes_per_token());
  result.compare_loss = compare.mean();
  return result;
}

}  // namespace adder
