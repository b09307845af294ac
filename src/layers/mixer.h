// A mixer: what stands between a norm and the residual add (Mamba-1, Mamba-2, a gated MLP). One
// object a layer; it owns the pointers to its weights, nothing else, and every call is const:
// activations, state and gradients come from the caller. Thread-safe after binding.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/context.h"
#include "layers/params.h"

namespace adder {

/// A call covers these tokens: `batch` rows of `len`, or one row of packed sequences.
struct TokenLayout {
  int64_t batch = 1;
  int64_t len = 0;
  int64_t sequences = 0;                 // > 0: packed; batch is 1
  const int32_t* cu_seqlens = nullptr;   // (sequences + 1)
  const int32_t* state_index = nullptr;  // (state_rows()): slot of each row's state; absent: row

  int64_t rows() const { return batch * len; }
  int64_t state_rows() const { return sequences > 0 ? sequences : batch; }
};

/// One array of the decoding state of one layer: `elements` of `dtype` for each slot.
struct StatePart {
  std::string name;  // "conv", "ssm"
  Dtype dtype = Dtype::f32;
  int64_t elements = 0;
  void* data = nullptr;  // (slots, elements)
};

/// Activations kept for backward; each mixer has its own.
struct MixerSaved {
  virtual ~MixerSaved() = default;
};

template <class T>
class Mixer {
 public:
  using Acc = accumulate_t<T>;
  virtual ~Mixer() = default;

  /// Lists every parameter once, in file order, under `prefix` ("backbone.layers.0.mixer.").
  virtual void visit(const std::string& prefix, ParamVisitor<Acc>& visitor) = 0;

  /// The arrays of one slot of decoding state, data unset.
  virtual std::vector<StatePart> state_parts() const = 0;

  /// Room for the activations of one forward over `layout`, from context.arena.
  virtual std::unique_ptr<MixerSaved> carve_saved(Context& context,
                                                  const TokenLayout& layout) const = 0;

  /// out = mixer(x), both (rows, d_model). `saved`: kept for backward (absent: inference).
  /// `state`: read as the entering state and replaced by the final one (empty: zero, dropped).
  virtual void forward(Context& context, const TokenLayout& layout, const T* x, T* out,
                       MixerSaved* saved, std::span<const StatePart> state) const = 0;

  /// dx = gradient of x (written); parameter gradients are added to. `x` as forward had it; `gout`
  /// may be overwritten by nobody and dx must not alias it.
  virtual void backward(Context& context, const TokenLayout& layout, const T* x, const T* gout,
                        const MixerSaved& saved, T* dx) const = 0;
};

}  // namespace adder
