// Two kinds of failure: Error for the outside world (files, flags, requests, shapes, devices),
// ADDER_CHECK for our own bugs.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace adder {

/// What went wrong, where, what was expected and what was found; what() joins them:
/// "WHERE: WHAT: expected EXPECTED, got GOT" with absent parts left out.
class Error : public std::runtime_error {
 public:
  struct Parts {
    std::string what;      // "wrong shape"
    std::string where;     // "model.safetensors: tensor 'backbone.norm_f.weight'"
    std::string expected;  // "[256]"
    std::string got;       // "[255]"
  };
  explicit Error(Parts parts);
  explicit Error(std::string what) : Error(Parts{std::move(what), {}, {}, {}}) {}
  const Parts& parts() const { return parts_; }

 private:
  Parts parts_;
};

/// The command line was wrong: exit code 2 instead of 1.
class UsageError : public Error {
 public:
  using Error::Error;
};

[[noreturn]] void check_failed(const char* condition, const char* file, int line);

/// The entry of `known` nearest to `word` by edit distance, empty if none is near: for
/// "unknown key 'lerning_rate', did you mean 'learning_rate'?".
template <class Range>
std::string nearest_name(std::string_view word, const Range& known);
int edit_distance(std::string_view a, std::string_view b);

template <class Range>
std::string nearest_name(std::string_view word, const Range& known) {
  std::string best;
  int best_distance = static_cast<int>(word.size()) / 2 + 2;
  for (const auto& name : known) {
    const int distance = edit_distance(word, name);
    if (distance < best_distance) {
      best_distance = distance;
      best = std::string(name);
    }
  }
  return best;
}

}  // namespace adder

/// A broken invariant of ours: prints and aborts, in release builds too. Never for input.
#define ADDER_CHECK(condition) \
  ((condition) ? (void)0 : ::adder::check_failed(#condition, __FILE__, __LINE__))
