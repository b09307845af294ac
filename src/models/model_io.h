// Models on disk: a directory with config.json, generation_config.json and model.safetensors.
#pragma once

#include <memory>
#include <string>

#include "models/language_model.h"

namespace adder {

/// Opens a model directory (Hugging Face or state-spaces layout). Every tensor of the model must be
/// there with its shape; a tensor that the model does not know is an error too. `bias` absent from
/// the config is read off the tensors. Throws Error naming file, tensor, expected and got.
template <class Acc>
std::unique_ptr<LanguageModel<Acc>> load_model(const std::string& directory,
                                               const ModelBuild& build);

/// Copies the parameters of DIR into an existing model of the same config (fine-tuning,
/// --init): every tensor must match.
template <class Acc>
void load_parameters(const std::string& directory, LanguageModel<Acc>& model);

/// Saves in the Hugging Face Mamba layout where that can express the model, else in Adder's native
/// one; returns why not Hugging Face, or "". Each file is written atomically. f32 tensors.
template <class Acc>
std::string save_model(const LanguageModel<Acc>& model, const std::string& directory);

}  // namespace adder
