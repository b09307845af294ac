// Runs a model from host arrays to host results: the arrays go over in one copy, the memory of a
// call is planned once for its shape, the results come back.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/device_array.h"
#include "core/workspace.h"
#include "models/language_model.h"

namespace adder {

/// The kinds of calls of models: the first number of their Workspace::Key.
enum class CallKind : int64_t { logits, losses, gradients, step };

/// Results stay valid until the next call. Not thread-safe; the model is only read, so runners can
/// share it. `where` begins the messages about ids, targets and slots that are out of range.
template <class Acc>
class ModelRunner {
 public:
  ModelRunner(const LanguageModel<Acc>& model, const Context& context, std::string where)
      : ModelRunner(model, std::make_unique<Workspace>(context), nullptr, std::move(where)) {}
  /// Works in the memory of another's workspace, which outlives it.
  ModelRunner(const LanguageModel<Acc>& model, Workspace& workspace, std::string where)
      : ModelRunner(model, nullptr, &workspace, std::move(where)) {}

  const Context& context() const { return workspace_.context(); }
  Workspace& workspace() { return workspace_; }
  const LanguageModel<Acc>& model() const { return model_; }
  /// Checks the arrays and brings them over; slots: those of the state that a call carries.
  TokenBatch load(const CallInput& input, int64_t slots = 0) { return arrays_.load(input, slots); }

  /// Logits (rows, padded_vocab) of every row, or of the last ones (input.last_only), in the memory
  /// of the device. `state` (may be null) is read and advanced.
  const Acc* enqueue_logits(const TokenBatch& batch, DecodeState* state = nullptr);
  /// `rows` of them, fetched.
  std::span<const Acc> fetch_logits(const Acc* logits, int64_t rows);
  /// Both.
  std::span<const Acc> logits(const CallInput& input, DecodeState* state = nullptr);

  /// Cross-entropy of every row in nats, 0 where ignored.
  std::span<const double> losses(const CallInput& input, const LossOptions& options = {});
  /// The same, and the gradients of scale * their sum are added to the store of `model`, which is
  /// the runner's own.
  std::span<const double> losses_and_gradients(LanguageModel<Acc>& model, const CallInput& input,
                                               double scale, const LossOptions& options = {});
  /// Holds what losses() of this shape takes.
  void reserve_losses(int64_t batch, int64_t len);
  /// `count` values of enqueued work, as soon as they are there.
  template <class T>
  void fetch(T* to, const T* from, int64_t count) const {
    fetch_elements(context(), to, from, count);
  }

 private:
  /// One of `own` and `shared` is given.
  ModelRunner(const LanguageModel<Acc>& model, std::unique_ptr<Workspace> own, Workspace* shared,
              std::string where);
  std::span<const double> fetch_losses(int64_t rows);
  template <class Call>
  void run(CallKind kind, const TokenBatch& batch, const Call& call);

  const LanguageModel<Acc>& model_;
  std::unique_ptr<Workspace> own_;
  Workspace& workspace_;
  CallArrays arrays_;
  DeviceArray<Acc> logits_;
  DeviceArray<double> row_loss_;
  DeviceArray<double> scale_;
  std::vector<Acc> host_logits_;
  std::vector<double> host_losses_;
};

}  // namespace adder
