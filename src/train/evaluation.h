// Scores a model: its mean loss over fixed windows.
#pragma once

#include <cstdint>

#include "models/model_runner.h"
#include "train/batch_source.h"

namespace adder {

struct EvalOptions {
  int64_t batch = 8;            // windows of one call
  int64_t max_windows = 0;      // evenly spread over all; 0: all
  int64_t compare_windows = 0;  // what compare_loss is taken over, as max_windows
};

struct Evaluation {
  double loss = 0;     // nats a token
  int64_t tokens = 0;  // scored
  double bits_per_byte = 0;
  /// The loss over compare_windows windows alone, so that a full evaluation compares with capped
  /// ones; it is `loss` when those are the windows that were scored.
  double compare_loss = 0;
};

/// Nats a token -> bits a byte.
double bits_per_byte(double nats_per_token, double bytes_per_token);

/// The windows that a cap leaves: `count` of `windows`, evenly spread, in order. Window 0 is among
/// them.
int64_t spread_window(int64_t index, int64_t count, int64_t windows);

/// Scores windows in index order; sums in double in that order. compare_windows needs max_windows 0
/// or the same.
Evaluation evaluate(ModelRunner<float>& runner, const EvalSource& source,
                    const EvalOptions& options);

}  // namespace adder
