// Trains a language model on text as a recipe says: data, model, samples, and room train's loop.
#pragma once

#include <functional>
#include <string>

#include "tasks/recipe.h"
#include "train/loop.h"

namespace adder {

struct LanguageTraining {
  RecipeBuilder recipe;
  std::string out;    // folder of the run
  std::string title;  // of the plot; empty: from the model and data
  bool resume = false;
  std::function<bool()> stop_requested;
  TrainObserver* observer = nullptr;
};

/// The file that holds the effective recipe of the run in `out`.
std::string recipe_path(const std::string& out);

/// Opens the data, builds (or takes from train.init) the model, writes OUT/config.toml and trains.
/// Errors of [model] keys name where the key was given.
TrainResult train_language_model(const LanguageTraining& training);

}  // namespace adder
