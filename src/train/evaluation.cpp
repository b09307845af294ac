#include "train/evaluation.h"

#include <algorithm>
#include <numbers>
#include <vector>

#include "kernels/loss/loss.h"

namespace adder {
namespace {

struct Rows {
  Rows(int64_t batch, int64_t len)
      : ids(static_cast<size_t>(batch * len)),
        targets(static_cast<size_t>(batch * len), kIgnoreIndex),
        loss(static_cast<size_t>(batch * len)) {
    view.layout.batch = batch;
    view.layout.len = len;
    view.ids = ids.data();
    view.targets = targets.data();
  }
  std::vector<int32_t> ids, targets;
  std::vector<double> loss;
  TokenBatch view;
};

struct Sum {
  double loss = 0;
  int64_t tokens = 0;
  void add(const Sum& other) {
    loss += other.loss;
    tokens += other.tokens;
  }
  double mean() const { return tokens > 0 ? loss / static_cast<double>(tokens) : 0; }
};

Sum window_sum(const Rows& rows, int64_t row, int64_t len) {
  Sum sum;
  for (int64_t i = row * len; i < (row + 1) * len; ++i) {
    const auto index = static_cast<size_t>(i);
    if (rows.targets[index] != kIgnoreIndex) sum.add({rows.loss[index], 1});
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

Evaluation evaluate(const LanguageModel<float>& model, Context& context, const EvalSource& source,
                    const EvalOptions& options) {
  const int64_t len = source.len();
  const int64_t windows = source.windows();
  const int64_t count = capped(options.max_windows, windows);
  const int64_t compared = capped(options.compare_windows, count);
  Rows rows(options.batch, len);
  Sum all, compare;
  int64_t next = 0;  // of the windows to compare
  for (int64_t first = 0; first < count; first += options.batch) {
    for (int64_t row = 0; row < options.batch; ++row) {
      int32_t* targets = rows.targets.data() + row * len;
      if (first + row < count) {
        source.fill(spread_window(first + row, count, windows), rows.ids.data() + row * len,
                    targets);
      } else {
        std::fill(targets, targets + len, kIgnoreIndex);
      }
    }
    const Arena::Scope scope(*context.arena);
    model.evaluate(context, rows.view, {}, rows.loss.data());
    for (int64_t row = 0; row < options.batch && first + row < count; ++row) {
      const Sum sum = window_sum(rows, row, len);
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

int64_t plan_evaluation_bytes(const LanguageModel<float>& model, const Context& context,
                              int64_t batch, int64_t len) {
  return plan_bytes(context, [&](Context& plan) {
    Rows rows(batch, len);
    model.evaluate(plan, rows.view, {}, rows.loss.data());
  });
}

}  // namespace adder
