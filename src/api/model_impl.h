// What stands behind adder::Model, shared by the files that implement include/adder.
#pragma once

#include <memory>
#include <string_view>

#include "adder/adder.h"
#include "infer/open_model.h"

namespace adder {

struct Model::Impl {
  std::shared_ptr<LanguageModel<float>> model;
  GenerationConfig generation;
  ModelSpec spec;
  int threads = 1;
  bool training = false;  // the gradient array is there

  Impl(OpenedModel opened, const ModelOptions& options);
  int64_t parameter_index(std::string_view name) const;
  void enable_training();
  void refresh();
  /// Forward and backward of the mean loss; gradients are written over what was there.
  double loss_and_gradients(const TokenBatch& batch);
  /// Checks ids, targets and their division into rows.
  TokenBatch batch(std::span<const int32_t> ids, std::span<const int32_t> targets,
                   int64_t batch) const;
  TokenLayout layout(std::span<const int32_t> ids, int64_t batch) const;
};

/// Runs `call(context)` over an arena planned for it.
template <class Call>
void run_planned(int threads, const Call& call) {
  Context context;
  context.threads = threads;
  Arena arena(plan_bytes(context, call));
  context.arena = &arena;
  call(context);
}

Dtype compute_dtype(Precision precision);

}  // namespace adder
