#include "train/train_config.h"

#include <fmt/format.h>

#include <cmath>
#include <initializer_list>

#include "core/error.h"

namespace adder {
namespace {

using Where = std::function<std::string(std::string_view)>;

[[noreturn]] void refuse(const Where& where, std::string_view key, std::string expected,
                         std::string got) {
  throw Error(
      {fmt::format("'{}' is out of range", key), where(key), std::move(expected), std::move(got)});
}

void at_least(const Where& where, std::string_view key, int64_t value, int64_t minimum) {
  if (value < minimum)
    refuse(where, key, fmt::format("at least {}", minimum), fmt::to_string(value));
}

// Finite and in [low, high].
void within(const Where& where, std::string_view key, double value, double low, double high) {
  if (!(value >= low && value <= high)) {
    refuse(where, key, fmt::format("{} to {}", low, high), fmt::to_string(value));
  }
}

void finite_from(const Where& where, std::string_view key, double value, double low) {
  if (!(value >= low) || !std::isfinite(value)) {
    refuse(where, key, fmt::format("a number of at least {}", low), fmt::to_string(value));
  }
}

void one_of(const Where& where, std::string_view key, const std::string& value,
            std::initializer_list<std::string_view> known) {
  std::string names;
  for (const std::string_view name : known) {
    if (value == name) return;
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  refuse(where, key, "one of " + names, "'" + value + "'");
}

}  // namespace

void TrainConfig::check(const Where& where) const {
  at_least(where, "steps", steps, 1);
  at_least(where, "batch", batch, 1);
  at_least(where, "len", len, 1);
  at_least(where, "accumulation", accumulation, 1);
  finite_from(where, "lr", lr, 0);
  finite_from(where, "min_lr", min_lr, 0);
  if (min_lr > lr) refuse(where, "min_lr", "at most train.lr", fmt::to_string(min_lr));
  at_least(where, "warmup", warmup, 0);
  one_of(where, "schedule", schedule, {"cosine", "wsd", "constant"});
  at_least(where, "decay_steps", decay_steps, 0);
  one_of(where, "decay_shape", decay_shape, {"linear", "sqrt"});
  within(where, "beta1", beta1, 0, 0.999999999);
  within(where, "beta2", beta2, 0, 0.999999999);
  finite_from(where, "eps", eps, 0);
  finite_from(where, "weight_decay", weight_decay, 0);
  finite_from(where, "clip", clip, 0);
  within(where, "label_smoothing", label_smoothing, 0, 1);
  finite_from(where, "z_loss", z_loss, 0);
  at_least(where, "seed", seed, 0);
  one_of(where, "precision", precision, {"f32", "bf16"});
  at_least(where, "threads", threads, 0);
}

void LogConfig::check(const Where& where) const {
  at_least(where, "every", every, 1);
  at_least(where, "eval_every", eval_every, 0);
  at_least(where, "eval_tokens", eval_tokens, 0);
  at_least(where, "eval_len", eval_len, 0);
  at_least(where, "checkpoint_every", checkpoint_every, 0);
  finite_from(where, "checkpoint_seconds", checkpoint_seconds, 0);
  at_least(where, "keep", keep, 1);
  at_least(where, "sample_tokens", sample_tokens, 0);
  at_least(where, "final_sample_tokens", final_sample_tokens, 0);
  finite_from(where, "temperature", temperature, 0);
  at_least(where, "top_k", top_k, 0);
  within(where, "top_p", top_p, 0, 1);
}

}  // namespace adder
