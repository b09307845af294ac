// The implementation behind adder::Model. The files that implement include/adder share it.
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
  Context context;  // the threads of every call

  Impl(OpenedModel opened, const ModelOptions& options);
  int64_t parameter_index(std::string_view name) const;
  /// Forward and backward of the mean loss; gradients are written over what was there.
  double loss_and_gradients(const CallInput& input);
  /// The call that ids (and targets, unless empty) make as `batch` equal rows; with targets, at
  /// least one of them counts.
  CallInput input(std::span<const int32_t> ids, std::span<const int32_t> targets,
                  int64_t batch) const;
  CallInput input_with_targets(std::span<const int32_t> ids, std::span<const int32_t> targets,
                               int64_t batch) const;
};

ModelBuild model_build(const ModelOptions& options);

}  // namespace adder
