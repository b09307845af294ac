#include "layers/param_store.h"

#include <algorithm>

#include "core/error.h"
#include "core/workspace.h"
#include "kernels/pointwise/pointwise.h"

namespace adder {

template <class Acc>
ParamStore<Acc>::ParamStore(Dtype compute, const Context& context, bool masters)
    : compute_type_(compute), context_(context), masters_(masters) {
  context_.arena = nullptr;
}

template <class Acc>
void ParamStore<Acc>::declare_decay(const std::string& log_name) {
  const int64_t log = table_.find(log_name);
  ADDER_CHECK(log >= 0);
  decays_.push_back({log, derived_count_});
  derived_count_ += padded_count(table_.info(log).count());
}

template <class Acc>
void ParamStore<Acc>::allocate() {
  int64_t values = 0, rounded = 0;
  for (int64_t i = 0; i < table_.size(); ++i) {
    const ParamInfo& info = table_.info(i);
    Place place;
    if (!info.alias_of.empty()) {
      place = this->place(table_.find(info.alias_of));
    } else if (has_masters()) {
      place.value = table_.offset(i);
      if (narrow() && !info.keep_fp32) place.rounded = table_.offset(i);
    } else if (info.keep_fp32) {
      place.value = values;
      values += padded_count(info.count());
    } else {
      place.rounded = rounded;
      rounded += padded_count(info.count());
    }
    places_.push_back(place);
  }
  if (has_masters()) values = table_.total();
  if (has_masters() && narrow()) rounded = table_.total();
  const Memory memory = context_.memory(MemoryKind::device);
  values_ = Buffer(offset_bytes(values), memory);
  compute_ = Buffer(rounded * int64_t{sizeof(Bf16)}, memory);
  derived_ = Buffer(offset_bytes(derived_count_), memory);
}

template <class Acc>
void ParamStore<Acc>::enable_training() {
  if (!has_masters()) {
    throw Error({"cannot be trained", "model", "weights in full precision",
                 "weights in " + std::string(dtype_name(compute_type_)) + " only"});
  }
  if (trains()) return;
  for (int64_t i = 0; i < table_.size(); ++i) {
    const int64_t count = table_.info(i).count();
    if (!table_.info(i).alias_of.empty()) continue;
    zero_elements(context_, value(i) + count, padded_count(count) - count);
  }
  grads_ = Buffer(offset_bytes(table_.total()), context_.memory(MemoryKind::device));
  zero_gradients(context_);
  context_.backend().synchronize(context_.stream);
}

template <class Acc>
void ParamStore<Acc>::zero_gradients(const Context& context) {
  zero_elements(context, gradients(), table_.total());
}

// Derived arrays are made from the piece that has just arrived: in the masters, or in memory that
// holds it for as long as that takes.
template <class Acc>
void ParamStore<Acc>::write(int64_t index, int64_t first, int64_t count, const Acc* from) {
  const Place& at = place(index);
  Workspace workspace(context_);
  for (int64_t done = 0; done < count; done += kPiece) {
    const int64_t begin = first + done, n = std::min(kPiece, count - done);
    Buffer passing;
    const Acc* piece = nullptr;
    if (at.value >= 0) {
      values_.write(offset_bytes(at.value + begin), from + done, offset_bytes(n));
      piece = value(index) + begin;
    } else {
      passing = Buffer(offset_bytes(n), context_.memory(MemoryKind::device));
      passing.write(0, from + done, offset_bytes(n));
      piece = passing.as<Acc>();
    }
    workspace.run([&](Context& context) {
      if (at.rounded >= 0) {
        Bf16* to = compute_.as<Bf16>() + at.rounded + begin;
        convert<Acc, Bf16>(context, {1, n}, {piece, to});
      }
      for (const Decay& decay : decays_) {
        if (decay.log != index) continue;
        decay_forward<Acc>(context, {1, n}, {piece, derived(decay) + begin});
      }
    });
    context_.backend().synchronize(context_.stream);
  }
}

template <class Acc>
void ParamStore<Acc>::read(int64_t index, int64_t first, int64_t count, Acc* to) const {
  const Place& at = place(index);
  if (at.value >= 0) {
    values_.read(offset_bytes(at.value + first), to, offset_bytes(count));
    return;
  }
  std::vector<Bf16> stored(static_cast<size_t>(std::min(kPiece, count)));
  for (int64_t done = 0; done < count; done += kPiece) {
    const int64_t n = std::min(kPiece, count - done);
    compute_.read((at.rounded + first + done) * int64_t{sizeof(Bf16)}, stored.data(),
                  n * int64_t{sizeof(Bf16)});
    std::transform(stored.begin(), stored.begin() + n, to + done,
                   [](Bf16 x) { return static_cast<Acc>(x); });
  }
}

template <class Acc>
void ParamStore<Acc>::read_gradient(int64_t index, int64_t first, int64_t count, Acc* to) const {
  ADDER_CHECK(trains());
  grads_.read(offset_bytes(table_.offset(index) + first), to, offset_bytes(count));
}

template <class Acc>
std::vector<Acc> ParamStore<Acc>::read(int64_t index) const {
  std::vector<Acc> values(static_cast<size_t>(table_.info(index).count()));
  read(index, 0, table_.info(index).count(), values.data());
  return values;
}

template <class Acc>
std::vector<Acc> ParamStore<Acc>::read_gradient(int64_t index) const {
  std::vector<Acc> values(static_cast<size_t>(table_.info(index).count()));
  read_gradient(index, 0, table_.info(index).count(), values.data());
  return values;
}

template <class Acc>
Matrix ParamStore<Acc>::matrix(int64_t index) const {
  const ParamInfo& info = table_.info(index);
  Matrix matrix;
  matrix.rows = info.shape[0];
  matrix.cols = info.shape[1];
  matrix.stride = info.shape[1];
  if (place(index).rounded >= 0) {
    matrix.type = Dtype::bf16;
    matrix.data = compute_.as<Bf16>() + place(index).rounded;
  } else {
    matrix.type = dtype_of<Acc>;
    matrix.data = value(index);
  }
  return matrix;
}

template <class Acc>
const Acc* ParamStore<Acc>::decay(const std::string& log_name) const {
  for (const Decay& decay : decays_) {
    if (table_.info(decay.log).name == log_name) return derived(decay);
  }
  ADDER_CHECK(false);
  return nullptr;
}

template <class Acc>
Acc* ParamStore<Acc>::gradient(int64_t index) const {
  return trains() && table_.info(index).trainable ? gradients() + table_.offset(index) : nullptr;
}

template <class Acc>
void ParamStore<Acc>::refresh_decays(Context& context) const {
  for (const Decay& decay : decays_) {
    const int64_t count = table_.info(decay.log).count();
    decay_forward<Acc>(context, {1, count}, {value(decay.log), derived(decay)});
  }
}

template <class Acc>
int64_t ParamStore<Acc>::bytes() const {
  return values_.bytes() + compute_.bytes() + derived_.bytes() + grads_.bytes();
}

template class ParamStore<float>;
template class ParamStore<double>;

}  // namespace adder
