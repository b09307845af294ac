#include "infer/open_model.h"

#include "formats/model_files.h"
#include "models/model_io.h"

namespace adder {

OpenedModel open_model(const std::string& directory, const ModelBuild& build) {
  OpenedModel opened;
  opened.generation = ModelFiles(directory).generation();
  opened.model = load_model<float>(directory, build);
  return opened;
}

ModelBuild inference_build(const std::string& dtype, int threads) {
  ModelBuild build;
  build.compute = dtype_from_name(dtype);
  build.masters = false;
  build.context = with_threads({}, threads);
  return build;
}

Generation generation_defaults(const GenerationConfig& config, int64_t vocab) {
  Generation request;
  for (const int64_t id : config.eos_token_ids) {
    if (id >= 0 && id < vocab) request.end_ids.push_back(static_cast<int32_t>(id));
  }
  if (config.max_new_tokens) request.max_tokens = *config.max_new_tokens;
  SamplingOptions& sampling = request.sampling;
  sampling.repetition_penalty = config.repetition_penalty.value_or(1.0);
  if (!config.do_sample) {
    sampling.temperature = kDefaultTemperature;
  } else if (!*config.do_sample) {
    sampling.temperature = 0;
  } else {
    sampling.temperature = config.temperature.value_or(1.0);
    sampling.top_k = config.top_k.value_or(0);
    sampling.top_p = config.top_p.value_or(1.0);
    sampling.min_p = config.min_p.value_or(0.0);
  }
  return request;
}

}  // namespace adder
