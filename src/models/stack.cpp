#include "models/stack.h"

#include <cmath>
#include <cstring>

#include "layers/embedding.h"
#include "layers/linear.h"

namespace adder {
namespace {

constexpr const char* kEmbedding = "backbone.embeddings.weight";
constexpr const char* kHead = "lm_head.weight";

// First pass over the fields: fills the table.
template <class Acc>
class Declare final : public ParamVisitor<Acc> {
 public:
  explicit Declare(ParamTable& table) : table_(table) {}
  void matrix(Matrix&, Acc*&, ParamInfo info) override { table_.add(std::move(info)); }
  void vector(const Acc*&, Acc*&, ParamInfo info) override { table_.add(std::move(info)); }

 private:
  ParamTable& table_;
};

// Second pass: points weights into the value arrays and gradients into theirs.
template <class Acc>
class Bind final : public ParamVisitor<Acc> {
 public:
  Bind(const ParamTable& table, Acc* values, Acc* grads, void* compute, Dtype compute_type)
      : table_(table), values_(values), grads_(grads), compute_(compute), type_(compute_type) {}

  void matrix(Matrix& weight, Acc*& grad, ParamInfo info) override {
    const int64_t index = table_.find(info.name);
    const int64_t offset = table_.offset(index);
    weight.rows = info.shape[0];
    weight.cols = info.shape[1];
    weight.stride = info.shape[1];
    weight.type = type_;
    weight.data = static_cast<const std::byte*>(compute_) + offset * dtype_bytes(type_);
    grad = gradient(index);
  }
  void vector(const Acc*& weight, Acc*& grad, ParamInfo info) override {
    const int64_t index = table_.find(info.name);
    weight = values_ + table_.offset(index);
    grad = gradient(index);
  }

 private:
  Acc* gradient(int64_t index) const {
    const bool trained = grads_ != nullptr && table_.info(index).trainable;
    return trained ? grads_ + table_.offset(index) : nullptr;
  }
  const ParamTable& table_;
  Acc* values_;
  Acc* grads_;
  void* compute_;
  Dtype type_;
};

}  // namespace

template <class T, class R>
struct Stack<T, R>::Saved {
  std::vector<NormSaved> norms;  // one a branch, then the last norm
  std::vector<std::unique_ptr<MixerSaved>> mixers;
};

template <class T, class R>
Stack<T, R>::Stack(const ModelConfig& config)
    : Base(config, dtype_of<T>),
      branches_(make_branches<T>(config)),
      last_("backbone.norm_f", config.d_model, config.rms_norm, config.norm_eps) {
  this->padded_vocab_ = config.padded_vocab_size();
  Declare<Acc> declare(this->table_);
  visit(declare);
  this->values_ = Buffer(this->table_.total() * static_cast<int64_t>(sizeof(Acc)));
  if constexpr (!std::is_same_v<T, Acc>) {
    compute_weights_ = Buffer(this->table_.total() * static_cast<int64_t>(sizeof(T)));
  }
  bind();
}

template <class T, class R>
void Stack<T, R>::bind() {
  void* compute = std::is_same_v<T, Acc> ? this->values_.data() : compute_weights_.data();
  Bind<Acc> binder(this->table_, this->values_.template as<Acc>(), this->grads_.template as<Acc>(),
                   compute, dtype_of<T>);
  visit(binder);
}

template <class T, class R>
void Stack<T, R>::visit(ParamVisitor<Acc>& visitor) {
  ParamInfo info;
  info.name = kEmbedding;
  info.shape = {this->padded_vocab_, this->config_.d_model};
  info.kind = ParamKind::embedding;
  info.init = {InitSpec::Kind::normal, this->config_.initializer_range};
  info.decay = true;
  info.keep_fp32 = false;
  info.quantizable = true;
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
void Stack<T, R>::refresh_weights([[maybe_unused]] Context& context) {
  if constexpr (!std::is_same_v<T, Acc>) {
    for (int64_t i = 0; i < this->table_.size(); ++i) {
      const ParamInfo& info = this->table_.info(i);
      if (info.keep_fp32 || !info.alias_of.empty()) continue;
      round_weights<T>(context, info.count(), this->value(i),
                       compute_weights_.template as<T>() + this->table_.offset(i));
    }
  }
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
                              double gradient_scale, double* row_loss) {
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
  if (embedding_grad_ == nullptr) return;
  const Acc* g = nullptr;
  if constexpr (std::is_same_v<R, Acc>) {
    g = dr;
  } else {
    Acc* widened = arena.take<Acc>(elements);
    widen_activations(context, elements, dr, widened);
    g = widened;
  }
  embedding_backward<T>(context, rows, batch.ids, embedding_, g, embedding_grad_);
}

template <class T, class R>
const T* Stack<T, R>::hidden(Context& context, const TokenLayout& layout, const int32_t* ids,
                             DecodeState* state) const {
  const int64_t rows = layout.rows();
  T* x = context.arena->take<T>(rows * this->config_.d_model);
  // One for all branches: the residual is updated in place.
  const NormSaved s = last_.template carve_saved<R>(context, rows);
  embedding_forward(context, rows, ids, embedding_, x);
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
  const T* y = hidden(context, batch.layout, batch.ids, nullptr);
  head_loss(context, head_of(batch, options, y, row_loss));
}

template <class T, class R>
void Stack<T, R>::logits(Context& context, const TokenLayout& layout, const int32_t* ids,
                         DecodeState* state, bool last_only, Acc* out) const {
  Arena::Scope scope(*context.arena);
  const int64_t d = this->config_.d_model;
  const T* rows = hidden(context, layout, ids, state);
  if (!last_only || layout.len == 1) {
    return head_logits(context, layout.rows(), rows, head_, out);
  }
  ADDER_CHECK(layout.sequences == 0 && layout.len > 0);
  T* last = context.arena->take<T>(layout.batch * d);
  if (!context.arena->measuring()) {
    for (int64_t b = 0; b < layout.batch; ++b) {
      std::memcpy(last + b * d, rows + ((b + 1) * layout.len - 1) * d,
                  static_cast<size_t>(d) * sizeof(T));
    }
  }
  head_logits(context, layout.batch, last, head_, out);
}

template class Stack<double, double>;
template class Stack<float, float>;
template class Stack<Bf16, float>;
template class Stack<Bf16, Bf16>;

template <>
std::unique_ptr<LanguageModel<double>> make_model<double>(const ModelConfig& config,
                                                          Dtype compute) {
  if (compute != Dtype::f64)
    throw Error({"no such compute type", "model", "f64", std::string(dtype_name(compute))});
  ModelConfig resolved = config;
  resolve(resolved, "model config");
  return std::make_unique<Stack<double, double>>(resolved);
}

template <>
std::unique_ptr<LanguageModel<float>> make_model<float>(const ModelConfig& config, Dtype compute) {
  ModelConfig resolved = config;
  resolve(resolved, "model config");
  if (compute == Dtype::f32) return std::make_unique<Stack<float, float>>(resolved);
  if (compute != Dtype::bf16) {
    throw Error({"no such compute type", "model", "f32 or bf16", std::string(dtype_name(compute))});
  }
  if (resolved.residual_in_fp32) return std::make_unique<Stack<Bf16, float>>(resolved);
  return std::make_unique<Stack<Bf16, Bf16>>(resolved);
}

}  // namespace adder
