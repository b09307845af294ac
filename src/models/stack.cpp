#include "models/stack.h"

#include "layers/embedding.h"

namespace adder {
namespace {

constexpr const char* kEmbedding = "backbone.embeddings.weight";
constexpr const char* kHead = "lm_head.weight";

// First pass over the fields: fills the table.
template <class Acc>
class Declare final : public ParamVisitor<Acc> {
 public:
  explicit Declare(ParamStore<Acc>& store) : store_(store) {}
  void matrix(Matrix&, MatrixGrad<Acc>&, ParamInfo info) override {
    store_.table().add(std::move(info));
  }
  void vector(const Acc*&, Acc*&, ParamInfo info) override { store_.table().add(std::move(info)); }
  void decay(const Acc*&, const std::string& log_name) override { store_.declare_decay(log_name); }

 private:
  ParamStore<Acc>& store_;
};

// Second pass: points weights and gradients into the store.
template <class Acc>
class Bind final : public ParamVisitor<Acc> {
 public:
  explicit Bind(const ParamStore<Acc>& store) : store_(store) {}

  void matrix(Matrix& weight, MatrixGrad<Acc>& grad, ParamInfo info) override {
    const int64_t index = store_.table().find(info.name);
    weight = store_.matrix(index);
    grad.data = store_.gradient(index);
  }
  void vector(const Acc*& weight, Acc*& grad, ParamInfo info) override {
    const int64_t index = store_.table().find(info.name);
    weight = store_.vector(index);
    grad = store_.gradient(index);
  }
  void decay(const Acc*& derived, const std::string& log_name) override {
    derived = store_.decay(log_name);
  }

 private:
  const ParamStore<Acc>& store_;
};

}  // namespace

template <class T, class R>
struct Stack<T, R>::Saved {
  std::vector<NormSaved> norms;  // one a branch, then the last norm
  std::vector<std::unique_ptr<MixerSaved>> mixers;
};

template <class T, class R>
Stack<T, R>::Stack(const ModelConfig& config, const ModelBuild& build)
    : Base(config, build),
      branches_(make_branches<T>(config)),
      last_("backbone.norm_f", config.d_model, config.rms_norm, config.norm_eps) {
  this->padded_vocab_ = config.padded_vocab_size();
  Declare<Acc> declare(this->store_);
  visit(declare);
  this->store_.allocate();
  bind();
}

template <class T, class R>
void Stack<T, R>::bind() {
  Bind<Acc> binder(this->store_);
  visit(binder);
}

template <class T, class R>
void Stack<T, R>::visit(ParamVisitor<Acc>& visitor) {
  ParamInfo info = matrix_param(kEmbedding, this->padded_vocab_, this->config_.d_model, 0);
  info.kind = ParamKind::embedding;
  info.init = {InitSpec::Kind::normal, this->config_.initializer_range};
  visitor.matrix(embedding_, embedding_grad_, info);
  for (Branch<T>& branch : branches_) {
    branch.norm.visit(visitor);
    branch.mixer->visit(branch.mixer_prefix, visitor);
  }
  last_.visit(visitor);
  info.name = kHead;
  if (this->config_.tie_embeddings) info.alias_of = kEmbedding;
  visitor.matrix(head_, head_grad_, info);
}

template <class T, class R>
std::vector<std::vector<StatePart>> Stack<T, R>::state_parts() const {
  std::vector<std::vector<StatePart>> parts;
  for (const Branch<T>& branch : branches_) parts.push_back(branch.mixer->state_parts());
  return parts;
}

template <class T, class R>
HeadLoss<T> Stack<T, R>::head_of(const TokenBatch& batch, const LossOptions& options,
                                 const T* hidden, double* row_loss) const {
  HeadLoss<T> head;
  head.rows = batch.layout.rows();
  head.d_model = this->config_.d_model;
  head.vocab = this->config_.vocab_size;
  head.hidden = hidden;
  head.weight = head_;
  head.targets = batch.targets;
  head.label_smoothing = options.label_smoothing;
  head.z_loss = options.z_loss;
  head.row_loss = row_loss;
  return head;
}

template <class T, class R>
void Stack<T, R>::train_batch(Context& context, const TokenBatch& batch, const LossOptions& options,
                              const double* gradient_scale, double* row_loss) {
  Arena::Scope scope(*context.arena);
  const TokenLayout& layout = batch.layout;
  const int64_t rows = layout.rows();
  T* x = context.arena->take<T>(rows * this->config_.d_model);
  embedding_forward(context, rows, batch.ids, embedding_, x);
  Saved saved;
  const R* residual = nullptr;
  for (const Branch<T>& branch : branches_) {
    saved.norms.push_back(branch.norm.template carve_saved<R>(context, rows));
    saved.mixers.push_back(branch.mixer->carve_saved(context, layout));
    const NormSaved& s = saved.norms.back();
    branch.norm.forward(context, rows, x, residual, s);
    branch.mixer->forward(context, layout, s.y, x, saved.mixers.back().get(), {});
    residual = s.r;
  }
  saved.norms.push_back(last_.template carve_saved<R>(context, rows));
  last_.forward(context, rows, x, residual, saved.norms.back());

  HeadLoss<T> head = head_of(batch, options, saved.norms.back().y, row_loss);
  head.gradient_scale = gradient_scale;
  head.dhidden = x;
  head.dweight = head_grad_;
  head_loss(context, head);
  backward(context, batch, saved, x);
}

template <class T, class R>
void Stack<T, R>::backward(Context& context, const TokenBatch& batch, const Saved& saved,
                           T* dhidden) {
  Arena& arena = *context.arena;
  const int64_t rows = batch.layout.rows();
  const int64_t elements = rows * this->config_.d_model;
  R* dr = arena.take<R>(elements);
  // The gradient of a branch's output is dr in T: its own rounded copy unless they are one type.
  T* rounded = std::is_same_v<T, R> ? nullptr : arena.take<T>(elements);
  const T* gout = rounded;
  if constexpr (std::is_same_v<T, R>) gout = dr;
  last_.backward(context, rows, saved.norms.back(), {dhidden, false, dr, rounded});
  for (size_t i = branches_.size(); i-- > 0;) {
    const NormSaved& s = saved.norms[i];
    branches_[i].mixer->backward(context, batch.layout, s.y, gout, *saved.mixers[i], dhidden);
    branches_[i].norm.backward(context, rows, s, {dhidden, true, dr, rounded});
  }
  if (embedding_grad_.data == nullptr) return;
  embedding_backward<T, R>(context, rows, batch.ids, embedding_, dr, embedding_grad_.data);
}

template <class T, class R>
const T* Stack<T, R>::hidden(Context& context, const TokenBatch& batch, DecodeState* state) const {
  const TokenLayout& layout = batch.layout;
  const int64_t rows = layout.rows();
  T* x = context.arena->take<T>(rows * this->config_.d_model);
  // One for all branches: the residual is updated in place.
  const NormSaved s = last_.template carve_saved<R>(context, rows);
  embedding_forward(context, rows, batch.ids, embedding_, x);
  const R* residual = nullptr;
  for (size_t i = 0; i < branches_.size(); ++i) {
    branches_[i].norm.forward(context, rows, x, residual, s);
    const auto parts = state != nullptr ? state->layer(i) : std::span<const StatePart>{};
    branches_[i].mixer->forward(context, layout, s.y, x, nullptr, parts);
    residual = s.r;
  }
  last_.forward(context, rows, x, residual, s);
  return s.y;
}

template <class T, class R>
void Stack<T, R>::evaluate(Context& context, const TokenBatch& batch, const LossOptions& options,
                           double* row_loss) const {
  Arena::Scope scope(*context.arena);
  const T* y = hidden(context, batch, nullptr);
  head_loss(context, head_of(batch, options, y, row_loss));
}

template <class T, class R>
void Stack<T, R>::logits(Context& context, const TokenBatch& batch, DecodeState* state,
                         Acc* out) const {
  Arena::Scope scope(*context.arena);
  const T* rows = hidden(context, batch, state);
  if (batch.wanted != nullptr) {
    T* wanted = context.arena->take<T>(batch.wanted_rows * this->config_.d_model);
    gather_rows(context, batch.layout.rows(), this->config_.d_model, rows, batch.wanted_rows,
                batch.wanted, wanted);
    rows = wanted;
  }
  head_logits(context, batch.logit_rows(), rows, head_, out);
}

template class Stack<double, double>;
template class Stack<float, float>;
template class Stack<Bf16, float>;
template class Stack<Bf16, Bf16>;

template <>
std::unique_ptr<LanguageModel<double>> make_model<double>(const ModelConfig& config,
                                                          const ModelBuild& build) {
  if (build.compute != Dtype::f64) {
    throw Error({"no such compute type", "model", "f64", std::string(dtype_name(build.compute))});
  }
  ModelConfig resolved = config;
  resolve(resolved, "model config");
  return std::make_unique<Stack<double, double>>(resolved, build);
}

template <>
std::unique_ptr<LanguageModel<float>> make_model<float>(const ModelConfig& config,
                                                        const ModelBuild& build) {
  ModelConfig resolved = config;
  resolve(resolved, "model config");
  if (build.compute == Dtype::f32) return std::make_unique<Stack<float, float>>(resolved, build);
  if (build.compute != Dtype::bf16) {
    throw Error(
        {"no such compute type", "model", "f32 or bf16", std::string(dtype_name(build.compute))});
  }
  if (resolved.residual_in_fp32) return std::make_unique<Stack<Bf16, float>>(resolved, build);
  return std::make_unique<Stack<Bf16, Bf16>>(resolved, build);
}

}  // namespace adder
