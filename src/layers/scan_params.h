// The parameters that the scans of both Mamba blocks have: decay, skip and the bias of the step
// size, with the limits of delta (math.md 3.2, 4.1). Thread-safe once bound.
#pragma once

#include <limits>
#include <string>

#include "kernels/pointwise/pointwise.h"
#include "layers/mixer.h"

namespace adder {

/// The start values of the step sizes (math.md 7.7) and their limits; 0 and infinity: none.
struct DtConfig {
  double limit_low = 0;
  double limit_high = std::numeric_limits<double>::infinity();
  double min = 1e-3;
  double max = 0.1;
  double init_floor = 1e-4;

  InitSpec init() const { return {InitSpec::Kind::dt_bias, min, max, init_floor}; }
};

template <class T>
class ScanParams {
 public:
  using Acc = accumulate_t<T>;
  explicit ScanParams(const DtConfig& dt) : dt_(dt) {}

  /// PREFIXA_log, of `shape`, and what is derived from it.
  void visit_decay(ParamVisitor<Acc>& v, const std::string& prefix, std::vector<int64_t> shape,
                   const InitSpec& init) {
    const ParamInfo info = vector_param(prefix + "A_log", std::move(shape), init, ParamKind::decay);
    decays_ = info.count();
    v.vector(A_log_, dA_log_, info);
    v.decay(A_, info.name);
  }
  void visit_skip(ParamVisitor<Acc>& v, const std::string& name, int64_t count) {
    v.vector(D_, dD_, vector_param(name, {count}, {InitSpec::Kind::ones}));
  }
  void visit_dt_bias(ParamVisitor<Acc>& v, const std::string& name, int64_t count) {
    v.vector(dt_bias_, ddt_bias_, vector_param(name, {count}, dt_.init()));
  }

  /// Fills in what the inputs of a scan take from here and from the layout.
  template <class Inputs>
  void enter(const TokenLayout& layout, Inputs& in) const {
    in.A = A_;
    in.D = D_;
    in.dt_bias = dt_bias_;
    if (dt_.limit_low > 0) in.dt_min = static_cast<Acc>(dt_.limit_low);
    in.dt_max = static_cast<Acc>(dt_.limit_high);
    in.cu_seqlens = layout.cu_seqlens;
    in.state_index = layout.state_index;
  }
  /// Runs `backward(args)` with the gradients of these parameters added to.
  template <class Args, class Backward>
  void run_backward(Context& context, Args& args, const Backward& backward) const {
    Arena::Scope scope(*context.arena);
    args.dD = dD_;
    args.ddt_bias = ddt_bias_;
    args.accumulate = true;
    if (dA_log_ != nullptr) {
      args.dA = context.arena->template take<Acc>(decays_);
      zero_elements(context, args.dA, decays_);
    }
    backward(args);
    if (dA_log_ != nullptr) {
      decay_backward<Acc>(context, {1, decays_}, {A_, args.dA, dA_log_, true});
    }
  }

 private:
  DtConfig dt_;
  int64_t decays_ = 0;
  const Acc* A_log_ = nullptr;
  const Acc* A_ = nullptr;  // -exp(A_log)
  const Acc* D_ = nullptr;
  const Acc* dt_bias_ = nullptr;
  Acc* dA_log_ = nullptr;
  Acc* dD_ = nullptr;
  Acc* ddt_bias_ = nullptr;
};

}  // namespace adder
