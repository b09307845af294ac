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

double mean_over_targets(const TokenBatch& batch, const std::vector<double>& row_loss) {
  double sum = 0;
  int64_t valid = 0;
  for (int64_t i = 0; i < batch.layout.rows(); ++i) {
    sum += row_loss[static_cast<size_t>(i)];
    valid += batch.targets[i] != kIgnoreIndex;
  }
  return sum / static_cast<double>(valid);
}

}  // namespace

Dtype compute_dtype(Precision precision) {
  return precision == Precision::bf16 ? Dtype::bf16 : Dtype::f32;
}

Model::Impl::Impl(OpenedModel opened, const ModelOptions& options)
    : model(std::move(opened.model)), generation(std::move(opened.generation)) {
  if (options.threads < 0) {
    throw Error({"out of range", "ModelOptions: threads", ">= 0", std::to_string(options.threads)});
  }
  threads = options.threads > 0 ? options.threads : available_threads();
  spec = spec_of(model->config(), generation);
}

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

void Model::Impl::enable_training() {
  if (!training) model->enable_training();
  training = true;
}

void Model::Impl::refresh() {
  run_planned(threads, [&](Context& context) { model->refresh_weights(context); });
}

TokenLayout Model::Impl::layout(std::span<const int32_t> ids, int64_t batch) const {
  const int64_t count = static_cast<int64_t>(ids.size());
  if (batch < 1 || count < 1 || count % batch != 0) {
    throw Error({"ids do not divide into rows", "model", std::to_string(batch) + " equal rows",
                 std::to_string(count) + " ids"});
  }
  check_token_ids(ids, spec.vocab_size);
  TokenLayout layout;
  layout.batch = batch;
  layout.len = count / batch;
  return layout;
}

TokenBatch Model::Impl::batch(std::span<const int32_t> ids, std::span<const int32_t> targets,
                              int64_t batch) const {
  TokenBatch result;
  result.layout = layout(ids, batch);
  if (targets.size() != ids.size()) {
    throw Error({"one target for each id", "model", std::to_string(ids.size()),
                 std::to_string(targets.size())});
  }
  bool any = false;
  for (size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] == kIgnoreIndex) continue;
    check_token_ids(targets.subspan(i, 1), spec.vocab_size, static_cast<int64_t>(i));
    any = true;
  }
  if (!any) throw Error({"no target", "model", "at least one that is not -100", "none"});
  result.ids = ids.data();
  result.targets = targets.data();
  return result;
}

double Model::Impl::loss_and_gradients(const TokenBatch& batch) {
  enable_training();
  model->zero_grads();
  int64_t valid = 0;
  for (int64_t i = 0; i < batch.layout.rows(); ++i) valid += batch.targets[i] != kIgnoreIndex;
  std::vector<double> row_loss(static_cast<size_t>(batch.layout.rows()));
  run_planned(threads, [&](Context& context) {
    model->train_batch(context, batch, {}, 1.0 / static_cast<double>(valid), row_loss.data());
  });
  return mean_over_targets(batch, row_loss);
}

Model::Model(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;
Model::~Model() = default;

Model Model::load(const std::string& directory, const ModelOptions& options) {
  return Model(
      std::make_shared<Impl>(open_model(directory, compute_dtype(options.precision)), options));
}

Model Model::create(const ModelSpec& spec, uint64_t seed, const ModelOptions& options) {
  OpenedModel opened;
  opened.model = make_model<float>(config_of(spec), compute_dtype(options.precision));
  opened.model->initialize(seed);
  opened.generation.bos_token_id = opened.model->config().bos_token_id;
  opened.generation.eos_token_ids = opened.model->config().eos_token_ids;
  auto impl = std::make_shared<Impl>(std::move(opened), options);
  impl->refresh();
  return Model(std::move(impl));
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

std::span<float> Model::parameter(std::string_view name) {
  const int64_t index = impl_->parameter_index(name);
  const ParamTable& table = impl_->model->params();
  return {impl_->model->value(index), static_cast<size_t>(table.info(index).count())};
}

std::span<const float> Model::parameter(std::string_view name) const {
  return const_cast<Model*>(this)->parameter(name);
}

void Model::parameters_changed() { impl_->refresh(); }

std::vector<float> Model::forward(std::span<const int32_t> ids, int64_t batch) const {
  const TokenLayout layout = impl_->layout(ids, batch);
  const size_t columns = static_cast<size_t>(impl_->model->padded_vocab());
  const size_t vocab = static_cast<size_t>(impl_->spec.vocab_size);
  std::vector<float> logits(ids.size() * columns);
  run_planned(impl_->threads, [&](Context& context) {
    impl_->model->logits(context, layout, ids.data(), nullptr, false, logits.data());
  });
  if (columns == vocab) return logits;
  for (size_t row = 1; row < ids.size(); ++row) {
    std::copy_n(logits.begin() + static_cast<int64_t>(row * columns), vocab,
                logits.begin() + static_cast<int64_t>(row * vocab));
  }
  logits.resize(ids.size() * vocab);
  return logits;
}

double Model::loss(std::span<const int32_t> ids, std::span<const int32_t> targets,
                   int64_t batch) const {
  const TokenBatch call = impl_->batch(ids, targets, batch);
  std::vector<double> row_loss(ids.size());
  run_planned(impl_->threads, [&](Context& context) {
    impl_->model->evaluate(context, call, {}, row_loss.data());
  });
  return mean_over_targets(call, row_loss);
}

double Model::loss_and_gradients(std::span<const int32_t> ids, std::span<const int32_t> targets,
                                 int64_t batch) {
  return impl_->loss_and_gradients(impl_->batch(ids, targets, batch));
}

std::span<const float> Model::gradient(std::string_view name) const {
  const int64_t index = impl_->parameter_index(name);
  if (!impl_->training) {
    throw Error({"no gradients yet", "model: gradient", "a call of loss_and_gradients", ""});
  }
  const ParamTable& table = impl_->model->params();
  return {impl_->model->grad(index), static_cast<size_t>(table.info(index).count())};
}

int64_t Model::freeze(const std::string& pattern) {
  if (impl_->training) {
    throw Error({"too late to freeze", "model", "freeze before the first gradient", pattern});
  }
  return impl_->model->freeze(pattern);
}

std::string Model::save(const std::string& directory) const {
  return save_model(*impl_->model, directory);
}

const char* v0::version() { return ADDER_VERSION; }

}  // namespace adder
