// A workspace: a context together with the memory that its calls need. It plans a call, then runs
// it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <set>

#include "core/context.h"

namespace adder {

/// `call(context)` must take the same memory whenever its shapes are the same, and do nothing but
/// run doors and copies: while memory is planned it runs over a measuring arena, where both are
/// skipped. Not thread-safe.
class Workspace {
 public:
  /// The sizes that a plan depends on; calls of one key have the same shapes.
  using Key = std::array<int64_t, 4>;

  explicit Workspace(const Context& context) : context_(context) { context_.arena = &arena_; }
  /// A workspace of the CPU that runs on so many threads.
  explicit Workspace(int threads) : Workspace(Context{.threads = threads}) {}
  Workspace(const Workspace&) = delete;  // the context points into it
  Workspace& operator=(const Workspace&) = delete;

  const Context& context() const { return context_; }
  int64_t capacity() const { return arena_.capacity(); }

  /// The bytes that `call` needs.
  template <class Call>
  int64_t plan(const Call& call) const {
    Arena measuring;
    Context context = context_;
    context.arena = &measuring;
    call(context);
    return measuring.peak_bytes();
  }
  /// Holds at least what `call` needs from here on.
  template <class Call>
  void reserve(const Call& call) {
    grow(plan(call));
  }
  /// Plans `call`, makes sure of the memory, runs it.
  template <class Call>
  void run(const Call& call) {
    reserve(call);
    execute(call);
  }
  /// Does the same, but plans only when the key is new.
  template <class Call>
  void run(const Key& key, const Call& call) {
    if (!planned_.contains(key)) {
      reserve(call);
      planned_.insert(key);  // a call that throws while it is planned has no plan
    }
    execute(call);
  }

 private:
  template <class Call>
  void execute(const Call& call) {
    Arena::Scope scope(arena_);
    call(context_);
  }
  void grow(int64_t bytes) {
    if (bytes <= arena_.capacity()) return;
    ADDER_CHECK(arena_.used_bytes() == 0);                   // no call is running over it
    arena_ = Arena(0, context_.memory(MemoryKind::device));  // gives the old one back first
    arena_ = Arena(bytes, context_.memory(MemoryKind::device));
  }

  Context context_;
  Arena arena_{0, Memory{}};
  std::set<Key> planned_;
};

}  // namespace adder
