// A model directory made ready for inference.
#pragma once

#include <memory>
#include <string>

#include "formats/model_config.h"
#include "infer/engine.h"

namespace adder {

/// The temperature where neither the request nor the model says how to draw.
inline constexpr double kDefaultTemperature = 0.8;

struct OpenedModel {
  std::shared_ptr<LanguageModel<float>> model;
  GenerationConfig generation;  // generation_config.json over the token ids of config.json
};

/// Throws Error naming file, tensor, expected and got.
OpenedModel open_model(const std::string& directory, const ModelBuild& build);

/// How to open a model that is only read: dtype f32 or bf16, threads as EngineOptions has them.
ModelBuild inference_build(const std::string& dtype, int threads);

/// The request that a model asks for by itself (formats.md 3.6): its end tokens; its temperature,
/// top_k, top_p and min_p where do_sample is true; greedy where do_sample is false;
/// kDefaultTemperature where it is silent. Ids outside [0, vocab) are left out.
Generation generation_defaults(const GenerationConfig& config, int64_t vocab);

}  // namespace adder
