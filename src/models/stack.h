// The residual stack behind LanguageModel, for one storage type T and residual type R.
#pragma once

#include "layers/head.h"
#include "layers/residual_norm.h"
#include "models/language_model.h"

namespace adder {

/// One residual branch: r += x; x = mixer(norm(r)).
template <class T>
struct Branch {
  ResidualNorm<T> norm;
  std::string mixer_prefix;  // "backbone.layers.0.mixer."
  std::unique_ptr<Mixer<T>> mixer;
};

/// T: activations; R: the residual stream, accumulate_t<T> or T (residual_in_fp32).
template <class T, class R>
class Stack final : public LanguageModel<accumulate_t<T>> {
 public:
  using Acc = accumulate_t<T>;
  Stack(const ModelConfig& config, const ModelBuild& build);

  void train_batch(Context& context, const TokenBatch& batch, const LossOptions& options,
                   const double* gradient_scale, double* row_loss) override;
  void evaluate(Context& context, const TokenBatch& batch, const LossOptions& options,
                double* row_loss) const override;
  void logits(Context& context, const TokenBatch& batch, DecodeState* state,
              Acc* out) const override;

 protected:
  std::vector<std::vector<StatePart>> state_parts() const override;
  void bind() override;

 private:
  struct Saved;
  using NormSaved = ResidualNormSaved<T, R>;
  using Base = LanguageModel<Acc>;
  void visit(ParamVisitor<Acc>& visitor);
  HeadLoss<T> head_of(const TokenBatch& batch, const LossOptions& options, const T* hidden,
                      double* row_loss) const;
  void backward(Context& context, const TokenBatch& batch, const Saved& saved, T* dhidden);
  const T* hidden(Context& context, const TokenBatch& batch, DecodeState* state) const;

  std::vector<Branch<T>> branches_;
  ResidualNorm<T> last_;  // norm_f
  Matrix embedding_;
  Matrix head_;
  MatrixGrad<Acc> embedding_grad_;
  MatrixGrad<Acc> head_grad_;
};

/// The residual branches that a config asks for: the one place that names mixers.
template <class T>
std::vector<Branch<T>> make_branches(const ModelConfig& config);

}  // namespace adder
