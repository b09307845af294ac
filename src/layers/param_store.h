// The store of the parameters of a model: their values, their copies in the type of products, what
// is derived from them, their gradients. All of it is memory of the device; the host reads and
// writes it by copies.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/context.h"
#include "layers/params.h"

namespace adder {

/// Acc: type of masters and gradients: float, or double.
///
/// Vectors are held in Acc. Matrices are held in the type of products; where that is narrower than
/// Acc, masters in Acc stand beside them if the model is to be trained or its parameters are wanted
/// exactly. Without masters a parameter reads back as it was rounded.
template <class Acc>
class ParamStore {
 public:
  /// Elements that one copy between host and device moves at most.
  static constexpr int64_t kPiece = 1 << 18;

  ParamStore(Dtype compute, const Context& context, bool masters);

  /// The device, and the threads for the store's own work.
  const Context& context() const { return context_; }
  const ParamTable& table() const { return table_; }
  ParamTable& table() { return table_; }
  /// Asks for the array A = -exp(A_log) of a parameter declared before.
  void declare_decay(const std::string& log_name);
  /// Makes room for all that was declared, uninitialised.
  void allocate();

  bool has_masters() const { return masters_ || !narrow(); }
  bool trains() const { return grads_.bytes() > 0; }
  /// Zero gradients, and zeros in the padding between parameters. Needs masters.
  void enable_training();
  void zero_gradients(const Context& context);

  // The host's side: count elements of parameter `index` from `first` on. What is derived follows.
  void write(int64_t index, int64_t first, int64_t count, const Acc* from);
  void read(int64_t index, int64_t first, int64_t count, Acc* to) const;
  void read_gradient(int64_t index, int64_t first, int64_t count, Acc* to) const;
  std::vector<Acc> read(int64_t index) const;
  std::vector<Acc> read_gradient(int64_t index) const;

  // The device's side: addresses that layers and the optimizer hand to kernels.
  Matrix matrix(int64_t index) const;
  const Acc* vector(int64_t index) const { return value(index); }
  const Acc* decay(const std::string& log_name) const;
  /// Absent where frozen or not training.
  Acc* gradient(int64_t index) const;
  // Flat, at the offsets of the table; with masters only.
  Acc* values() const { return values_.as<Acc>(); }
  Acc* gradients() const { return grads_.as<Acc>(); }
  /// The rounded copies of matrices, at the offsets of the table; null where Acc is the type of
  /// products.
  Bf16* rounded() const { return narrow() ? compute_.as<Bf16>() : nullptr; }
  /// After values() changed in place: makes the derived arrays anew. Rounded copies are not
  /// touched: the optimizer writes them.
  void refresh_decays(Context& context) const;

  /// Bytes of values, copies, derived arrays and gradients.
  int64_t bytes() const;

 private:
  struct Place {
    int64_t value = -1;    // element of values_
    int64_t rounded = -1;  // element of compute_
  };
  struct Decay {
    int64_t log = 0;  // index of its parameter
    int64_t at = 0;   // element of derived_
  };
  bool narrow() const { return compute_type_ != dtype_of<Acc>; }
  const Place& place(int64_t index) const { return places_[static_cast<size_t>(index)]; }
  Acc* value(int64_t index) const { return values_.as<Acc>() + place(index).value; }
  Acc* derived(const Decay& decay) const { return derived_.as<Acc>() + decay.at; }
  int64_t offset_bytes(int64_t element) const { return element * int64_t{sizeof(Acc)}; }

  Dtype compute_type_;
  Context context_;
  bool masters_;
  ParamTable table_;
  std::vector<Place> places_;
  std::vector<Decay> decays_;
  int64_t derived_count_ = 0;
  Buffer values_, compute_, derived_, grads_;
};

}  // namespace adder
