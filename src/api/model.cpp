#include <algorithm>

#include "api/model_impl.h"
#include "core/error.h"
#include "formats/model_config.h"
#include "kernels/loss/loss.h"
#include "models/model_io.h"

namespace adder {
namespace {

ModelConfig config_of(const ModelSpec& spec) {
  ModelConfig config = default_model_config(spec.arch);
  config.vocab_size = spec.vocab_size;
  config.pad_vocab_size_multiple = 1;
  config.d_model = spec.d_model;
  config.n_layer = spec.n_layer;
  config.d_state = spec.d_state;
  config.d_conv = spec.d_conv;
  config.d_inner = spec.d_inner;
  config.dt_rank = spec.dt_rank;
  config.headdim = spec.head_dim;
  config.ngroups = spec.groups;
  config.d_intermediate = spec.d_intermediate;
  if (spec.d_inner > 0 && spec.d_model > 0) {
    config.expand = static_cast<double>(spec.d_inner) / static_cast<double>(spec.d_model);
  }
  config.tie_embeddings = spec.tie_embeddings;
  config.bias = false;
  config.bos_token_id = spec.bos_token_id;
  config.eos_token_ids.assign(spec.eos_token_ids.begin(), spec.eos_token_ids.end());
  return config;
}

ModelSpec spec_of(const ModelConfig& config, const GenerationConfig& generation) {
  ModelSpec spec;
  spec.arch = config.arch;
  spec.vocab_size = config.vocab_size;
  spec.d_model = config.d_model;
  spec.n_layer = config.n_layer;
  spec.d_state = config.d_state;
  spec.d_conv = config.d_conv;
  spec.d_inner = config.d_inner;
  spec.dt_rank = config.dt_rank;
  spec.head_dim = config.headdim;
  spec.groups = config.ngroups;
  spec.d_intermediate = config.d_intermediate;
  spec.tie_embeddings = config.tie_embeddings;
  if (generation.bos_token_id) spec.bos_token_id = static_cast<int32_t>(*generation.bos_token_id);
  for (const int64_t id : generation.eos_token_ids) {
    spec.eos_token_ids.push_back(static_cast<int32_t>(id));
  }
  return spec;
}

double mean_over_targets(const CallInput& input, std::span<const double> row_loss) {
  double sum = 0;
  int64_t valid = 0;
  for (size_t i = 0; i < row_loss.size(); ++i) {
    sum += row_loss[i];
    valid += input.targets[i] != kIgnoreIndex;
  }
  return sum / static_cast<double>(valid);
}

}  // namespace

ModelBuild model_build(const ModelOptions& options) {
  if (options.threads < 0) {
    throw Error({"out of range", "ModelOptions: threads", ">= 0", std::to_string(options.threads)});
  }
  ModelBuild build;
  build.compute = options.precision == Precision::bf16 ? Dtype::bf16 : Dtype::f32;
  build.masters = !options.inference_only;
  build.context = with_threads({}, options.threads);
  return build;
}

Model::Impl::Impl(OpenedModel opened, const ModelOptions& options)
    : model(std::move(opened.model)),
      generation(std::move(opened.generation)),
      spec(spec_of(model->config(), generation)),
      context(model_build(options).context) {}

int64_t Model::Impl::parameter_index(std::string_view name) const {
  const ParamTable& table = model->params();
  const int64_t index = table.find(std::string(name));
  if (index >= 0) return index;
  std::vector<std::string> known;
  for (const auto& info : table.infos()) known.push_back(info.name);
  const std::string nearest = nearest_name(name, known);
  throw Error({"unknown parameter", "model", nearest.empty() ? "" : "'" + nearest + "'",
               "'" + std::string(name) + "'"});
}

CallInput Model::Impl::input(std::span<const int32_t> ids, std::span<const int32_t> targets,
                             int64_t batch) const {
  const auto count = static_cast<int64_t>(ids.size());
  if (batch < 1 || count < 1 || count % batch != 0) {
    throw Error({"ids do not divide into rows", "model", std::to_string(batch) + " equal rows",
                 std::to_string(count) + " ids"});
  }
  return {.batch = batch, .len = count / batch, .ids = ids, .targets = targets};
}

CallInput Model::Impl::input_with_targets(std::span<const int32_t> ids,
                                          std::span<const int32_t> targets, int64_t batch) const {
  const bool any = std::any_of(targets.begin(), targets.end(),
                               [](int32_t target) { return target != kIgnoreIndex; });
  if (targets.size() != ids.size()) {
    throw Error({"one target for each id", "model", std::to_string(ids.size()),
                 std::to_string(targets.size())});
  }
  if (!any) throw Error({"no target", "model", "at least one that is not -100", "none"});
  return input(ids, targets, batch);
}

double Model::Impl::loss_and_gradients(const CallInput& input) {
  model->enable_training();
  model->store().zero_gradients(context);
  const auto valid = std::count_if(input.targets.begin(), input.targets.end(),
                                   [](int32_t target) { return target != kIgnoreIndex; });
  ModelRunner<float> runner(*model, context, "model");
  return mean_over_targets(
      input, runner.losses_and_gradients(*model, input, 1.0 / static_cast<double>(valid)));
}

Model::Model(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;
Model::~Model() = default;

Model Model::load(const std::string& directory, const ModelOptions& options) {
  return Model(std::make_shared<Impl>(open_model(directory, model_build(options)), options));
}

Model Model::create(const ModelSpec& spec, uint64_t seed, const ModelOptions& options) {
  OpenedModel opened;
  opened.model = make_model<float>(config_of(spec), model_build(options));
  opened.model->initialize(seed);
  opened.generation.bos_token_id = opened.model->config().bos_token_id;
  opened.generation.eos_token_ids = opened.model->config().eos_token_ids;
  return Model(std::make_shared<Impl>(std::move(opened), options));
}

const ModelSpec& Model::spec() const { return impl_->spec; }

int64_t Model::parameter_count() const { return impl_->model->params().parameter_count(); }

std::vector<ParameterInfo> Model::parameters() const {
  std::vector<ParameterInfo> result;
  for (const ParamInfo& info : impl_->model->params().infos()) {
    if (info.alias_of.empty()) result.push_back({info.name, info.shape});
  }
  return result;
}

std::vector<float> Model::parameter(std::string_view name) const {
  return impl_->model->store().read(impl_->parameter_index(name));
}

void Model::set_parameter(std::string_view name, std::span<const float> values) {
  const int64_t index = impl_->parameter_index(name);
  const int64_t count = impl_->model->params().info(index).count();
  if (static_cast<int64_t>(values.size()) != count) {
    throw Error({"wrong number of elements", "model: parameter '" + std::string(name) + "'",
                 std::to_string(count), std::to_string(values.size())});
  }
  impl_->model->store().write(index, 0, count, values.data());
}

std::vector<float> Model::forward(std::span<const int32_t> ids, int64_t batch) const {
  ModelRunner<float> runner(*impl_->model, impl_->context, "model");
  const auto logits = runner.logits(impl_->input(ids, {}, batch));
  const auto columns = static_cast<size_t>(impl_->model->padded_vocab());
  const auto vocab = static_cast<size_t>(impl_->spec.vocab_size);
  std::vector<float> result;
  result.reserve(ids.size() * vocab);
  for (size_t row = 0; row < ids.size(); ++row) {
    const auto first = logits.begin() + static_cast<int64_t>(row * columns);
    result.insert(result.end(), first, first + static_cast<int64_t>(vocab));
  }
  return result;
}

double Model::loss(std::span<const int32_t> ids, std::span<const int32_t> targets,
                   int64_t batch) const {
  const CallInput input = impl_->input_with_targets(ids, targets, batch);
  ModelRunner<float> runner(*impl_->model, impl_->context, "model");
  return mean_over_targets(input, runner.losses(input));
}

double Model::loss_and_gradients(std::span<const int32_t> ids, std::span<const int32_t> targets,
                                 int64_t batch) {
  return impl_->loss_and_gradients(impl_->input_with_targets(ids, targets, batch));
}

std::vector<float> Model::gradient(std::string_view name) const {
  const int64_t index = impl_->parameter_index(name);
  if (!impl_->model->store().trains()) {
    throw Error({"no gradients yet", "model: gradient", "a call of loss_and_gradients", ""});
  }
  return impl_->model->store().read_gradient(index);
}

int64_t Model::freeze(const std::string& pattern) {
  if (impl_->model->store().trains()) {
    throw Error({"too late to freeze", "model", "freeze before the first gradient", pattern});
  }
  return impl_->model->freeze(pattern);
}

std::string Model::save(const std::string& directory) const {
  return save_model(*impl_->model, directory);
}

const char* v0::version() { return ADDER_VERSION; }

}  // namespace adder
