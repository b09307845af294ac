#include "tasks/language_training.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "core/atomic_file.h"
#include "core/error.h"
#include "formats/checkpoint.h"
#include "formats/model_files.h"
#include "infer/engine.h"
#include "models/model_io.h"
#include "tasks/recipe_keys.h"
#include "tasks/text_data.h"
#include "text/utf8.h"
#include "train/run_folder.h"

namespace adder {
namespace {

using Model = LanguageModel<float>;

// Steps may be added, files may have moved (their fingerprint may not differ), and nothing in [log]
// or about threads changes a weight.
const std::vector<std::string> kMayChange = {"log.*",          "train.steps", "train.decay_steps",
                                             "train.threads",  "train.init",  "data.path",
                                             "data.validation"};

// resolve() speaks of fields; the user wants to know where the key was given.
void resolve_at_keys(ModelConfig& config, const RecipeBuilder& builder) {
  try {
    resolve(config, "[model]");
  } catch (const Error& error) {
    Error::Parts parts = error.parts();
    const std::string field = parts.where.substr(parts.where.rfind(' ') + 1);
    const std::string given = builder.where("model." + field);
    if (!given.empty()) parts.where = fmt::format("{}: model.{}", given, field);
    throw Error(parts);
  }
}

// What the user asked of the model must be what train.init is; the default recipe asks nothing.
void refuse_other_model(const ModelConfig& asked, const ModelConfig& stored,
                        const RecipeBuilder& builder, const std::string& init) {
  Recipe a, b;
  a.model = asked;
  b.model = stored;
  const JsonValue left = recipe_json(a), right = recipe_json(b);
  for (const JsonMember& member : left.as_object()) {
    if (member.key.rfind("model.", 0) != 0) continue;
    const std::string given = builder.where(member.key);
    if (given.empty() || is_default_recipe(given)) continue;
    const JsonValue* other = right.find(member.key);
    if (other != nullptr && *other == member.value) continue;
    throw Error({fmt::format("'{}' differs from the model of train.init ({})", member.key, init),
                 given, write_json(*other, {.indent = 0}),
                 write_json(member.value, {.indent = 0})});
  }
}

// The model's config: of train.init, or of [model] with the tokenizer's vocabulary.
void settle_model(Recipe& recipe, const RecipeBuilder& builder, const TextData& data) {
  const int64_t vocab = data.tokenizer->vocab_size();
  if (!recipe.train.init.empty()) {
    ModelConfig stored = ModelFiles(recipe.train.init).config();
    resolve(stored, recipe.train.init);
    refuse_other_model(recipe.model, stored, builder, recipe.train.init);
    recipe.model = stored;
  } else {
    if (recipe.model.vocab_size == 0) recipe.model.vocab_size = vocab;
    if (vocab > 256 && recipe.model.eos_token_ids.empty()) {
      recipe.model.eos_token_ids = {vocab - 1};  // the end of a document
    }
    resolve_at_keys(recipe.model, builder);
  }
  if (recipe.model.vocab_size < vocab) {
    const std::string given = builder.where("model.vocab_size");
    throw Error({"the vocabulary is smaller than the tokenizer's",
                 given.empty() ? "model.vocab_size" : given, fmt::format("at least {}", vocab),
                 fmt::to_string(recipe.model.vocab_size)});
  }
}

std::shared_ptr<Model> start_model(const Recipe& recipe) {
  ModelBuild build;
  build.compute = dtype_from_name(recipe.train.precision);
  build.context = with_threads({}, recipe.train.threads);
  std::shared_ptr<Model> model = make_model<float>(recipe.model, build);
  if (recipe.train.init.empty()) {
    model->initialize(static_cast<uint64_t>(recipe.train.seed));
  } else {
    load_parameters(recipe.train.init, *model);
  }
  return model;
}

// Writes a text with the model as it stands; the draw depends on (seed, step) alone.
class TextSampler {
 public:
  TextSampler(std::shared_ptr<const Model> model, const Tokenizer& tokenizer, const Recipe& recipe)
      : model_(std::move(model)), tokenizer_(tokenizer), recipe_(recipe) {}

  std::string operator()(int64_t step, bool last) const {
    const LogConfig& log = recipe_.log;
    EngineOptions options;
    options.threads = static_cast<int>(recipe_.train.threads);
    Engine engine(model_, options);
    Generation generation;
    generation.max_tokens = last ? log.final_sample_tokens : log.sample_tokens;
    generation.sampling.temperature = log.temperature;
    generation.sampling.top_k = log.top_k;
    generation.sampling.top_p = log.top_p;
    generation.sampling.seed = static_cast<uint64_t>(recipe_.train.seed);
    generation.sequence = static_cast<uint64_t>(step);
    for (const int64_t id : recipe_.model.eos_token_ids) {
      generation.end_ids.push_back(static_cast<int32_t>(id));
    }
    const std::string prompt = log.sample_prompt.empty() ? "\n" : log.sample_prompt;
    const int64_t vocab = tokenizer_.vocab_size();
    try {
      const GenerationResult result = engine.generate(0, tokenizer_.encode(prompt), generation);
      std::vector<int32_t> ids = result.ids;
      std::erase_if(ids, [vocab](int32_t id) { return id >= vocab; });
      return valid_utf8(prompt + tokenizer_.decode(ids));
    } catch (const Error& error) {
      return fmt::format("(no text: {})", error.what());  // all logits NaN: training goes on
    }
  }

 private:
  std::shared_ptr<const Model> model_;
  const Tokenizer& tokenizer_;
  const Recipe& recipe_;
};

std::string plot_title(const Recipe& recipe, int64_t parameters) {
  const std::string arch = recipe.model.is_mamba2() ? "Mamba-2" : "Mamba-1";
  return fmt::format("{} ({:.2f}M parameters) on {}", arch, static_cast<double>(parameters) * 1e-6,
                     std::filesystem::path(recipe.data.path).filename().string());
}

}  // namespace

std::string recipe_path(const std::string& out) { return out + "/config.toml"; }

TrainResult train_language_model(const LanguageTraining& training) {
  Recipe recipe = training.recipe.build();
  const RunLock lock(training.out);
  const bool resumes =
      training.resume && !find_checkpoints(checkpoint_folder(training.out)).empty();
  if (!training.resume) refuse_existing_run(training.out);
  // The checkpoint holds what the start gave, so a resumed run does not need it any more.
  if (resumes && !std::filesystem::exists(recipe.train.init)) recipe.train.init.clear();
  const TextData data = open_text_data(recipe.data, training.out + "/data", training.resume);
  settle_model(recipe, training.recipe, data);

  const BatchShape shape{recipe.train.batch, recipe.train.len, recipe.train.accumulation,
                         static_cast<uint64_t>(recipe.train.seed)};
  const ShardBatchSource batches(data.train, shape);
  std::unique_ptr<ShardEvalSource> validation;
  if (data.validation.shard) {
    const int64_t len = recipe.log.eval_len > 0 ? recipe.log.eval_len : recipe.train.len;
    validation = std::make_unique<ShardEvalSource>(data.validation, len);
  }
  const std::shared_ptr<Model> model = start_model(recipe);

  TrainRun run;
  run.model = model.get();
  run.batches = &batches;
  run.validation = validation.get();
  run.train = recipe.train;
  run.log = recipe.log;
  run.recipe = recipe_json(recipe);
  run.may_change = kMayChange;
  run.data = data.fingerprint;
  run.out = training.out;
  run.title = training.title.empty() ? plot_title(recipe, model->params().parameter_count())
                                     : training.title;
  run.loss_unit = data.tokenizer->name() == "bytes" ? "nats/byte" : "nats/token";
  run.resume = training.resume;
  if (recipe.log.sample) run.sample = TextSampler(model, *data.tokenizer, recipe);
  run.stop_requested = training.stop_requested;
  run.observer = training.observer;
  run.accepted = [&] { write_file_atomically(recipe_path(training.out), recipe_toml(recipe)); };
  return run_training(run);
}

}  // namespace adder
