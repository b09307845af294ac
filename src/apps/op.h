// `adder op` runs one operator on tensors from a safetensors file. An operator is one file
// op_NAME.cpp with one function, and one line in op.cpp: it reads the shape and the options from
// the file and makes the family's call (measure/call.h), whose list of arrays says what else is
// read and written.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/buffer.h"
#include "core/context.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/kernel_table.h"
#include "core/workspace.h"
#include "formats/safetensors.h"
#include "measure/call.h"

namespace adder::apps {

/// A dense row-major tensor; data() is null only where the tensor is absent, also with no elements.
template <class T>
class OpArray {
 public:
  OpArray() = default;
  explicit OpArray(std::vector<int64_t> shape) : shape_(std::move(shape)), present_(true) {
    int64_t bytes = 0;
    if (!tensor_bytes(shape_, dtype_of<T>, &bytes)) {
      throw Error({"too large", "a tensor of shape " + shape_text(shape_), {}, {}});
    }
    count_ = bytes / static_cast<int64_t>(sizeof(T));
    buffer_ = Buffer(std::max<int64_t>(count_, 1) * static_cast<int64_t>(sizeof(T)));
    std::fill_n(data(), count_, T{});
  }
  bool present() const { return present_; }
  int64_t count() const { return present_ ? count_ : 0; }
  const std::vector<int64_t>& shape() const { return shape_; }
  T* data() const { return present_ ? buffer_.as<T>() : nullptr; }
  /// The memory, which stays where it is.
  Buffer release() { return std::move(buffer_); }

 private:
  std::vector<int64_t> shape_;
  int64_t count_ = 0;
  Buffer buffer_;
  bool present_ = false;
};

/// The input file. Every disagreement is an Error naming file, tensor, expected and got.
class OpInputs {
 public:
  explicit OpInputs(const std::string& path) : file_(path) {}

  bool has(std::string_view name);
  /// The sizes of a required tensor; `names` says what they are, e.g. {"batch", "len", "dim"}.
  std::vector<int64_t> sizes(std::string_view name, std::initializer_list<const char*> names);
  /// Dimensions of a required tensor.
  size_t rank(std::string_view name) const { return file_.info(name).shape.size(); }
  /// A required tensor of this shape, converted to T.
  template <class T>
  OpArray<T> read(std::string_view name, const std::vector<int64_t>& shape);
  /// A required tensor of this shape, converted to the type of the array, into its host image.
  void read_into(std::string_view name, const std::vector<int64_t>& shape, measure::Array& array);
  /// Absent if the file has none.
  template <class T>
  OpArray<T> read_if(std::string_view name, const std::vector<int64_t>& shape) {
    return has(name) ? read<T>(name, shape) : OpArray<T>();
  }
  /// One element, 0 or 1.
  bool flag(std::string_view name, bool fallback);
  /// `cu_seqlens` (sequences + 1): ascending from 0 to `len`; empty: not packed.
  std::vector<int32_t> sequence_starts(int64_t batch, int64_t len);

  [[noreturn]] void fail(std::string_view name, std::string what, std::string expected,
                         std::string got) const;
  /// Tensors that nobody asked for and that are no output, gradient or upstream gradient.
  std::vector<std::string> unknown_names() const;
  const std::vector<std::string>& asked() const { return asked_; }

 private:
  SafetensorsFile file_;
  std::vector<std::string> asked_;
};

extern template OpArray<double> OpInputs::read(std::string_view, const std::vector<int64_t>&);
extern template OpArray<float> OpInputs::read(std::string_view, const std::vector<int64_t>&);
extern template OpArray<Bf16> OpInputs::read(std::string_view, const std::vector<int64_t>&);
extern template OpArray<int32_t> OpInputs::read(std::string_view, const std::vector<int64_t>&);

/// The file's shape of each array of a call that the file may hold, by the array's name.
using OpShapes = std::map<std::string, std::vector<int64_t>, std::less<>>;

/// Collects what is to be written.
class OpOutputs {
 public:
  /// Room for one tensor, zeroed; stays valid until the outputs are gone.
  template <class T>
  T* add(std::string name, const std::vector<int64_t>& shape) {
    OpArray<T> array(shape);
    T* data = array.data();
    const auto bytes = static_cast<size_t>(array.count()) * sizeof(T);
    sources_.push_back(
        {std::move(name), dtype_of<T>, shape, {reinterpret_cast<const std::byte*>(data), bytes}});
    buffers_.push_back(array.release());
    return data;
  }
  /// The same if `wanted`, else null.
  template <class T>
  T* add_if(bool wanted, std::string name, const std::vector<int64_t>& shape) {
    return wanted ? add<T>(std::move(name), shape) : nullptr;
  }
  const std::vector<TensorSource>& tensors() const { return sources_; }

  /// The call's outputs, and with `grads` the gradients of its inputs as d_<input>.
  void add_call(std::unique_ptr<measure::Call> call, const OpShapes& shapes, bool grads);

  /// What ran, in the order of the calls.
  void add_line(std::string_view name) { lines_.emplace_back(name); }
  const std::vector<std::string>& lines() const { return lines_; }

 private:
  std::vector<TensorSource> sources_;
  std::vector<Buffer> buffers_;
  std::vector<std::unique_ptr<measure::Call>> calls_;
  std::vector<std::string> lines_;
};

struct OpRequest {
  Dtype dtype = Dtype::f64;
  bool grads = false;
  std::string impl;  // a line's name, "reference", or empty: the reference in f64, else any line
  int threads = 1;

  bool reference() const { return impl == kReference || (impl.empty() && dtype == Dtype::f64); }
  static constexpr std::string_view kReference = "reference";
};

/// Throws UsageError unless impl is empty, "reference" or the name of a line.
template <class L>
void check_impl(const OpRequest& request, std::span<const L> lines) {
  std::vector<std::string> known{std::string(OpRequest::kReference)};
  for (const L& line : lines) known.emplace_back(line.info.name);
  if (request.impl.empty() || std::find(known.begin(), known.end(), request.impl) != known.end()) {
    return;
  }
  std::string names;
  for (const std::string& name : known) names += (names.empty() ? "" : ", ") + name;
  throw UsageError({"unknown implementation", "--impl", names, request.impl});
}

/// Reads the arrays of `call` that `shapes` names: inputs that the call has, and with --grads the
/// upstream gradients that the file has.
void read_call(const OpRequest& request, OpInputs& in, const OpShapes& shapes, measure::Call& call);
/// Runs forward and, asked for gradients, backward, through the reference or the family's table;
/// `out` owns the call and its results from there on. Throws Error if no line serves the shape.
template <class C, class L>
void run_call(const char* family, std::span<const L> lines, const OpRequest& request,
              const OpShapes& shapes, std::unique_ptr<C> call, OpOutputs& out) {
  std::vector<Direction> directions{Direction::forward};
  if (request.grads) directions.push_back(Direction::backward);
  if (request.reference()) {
    out.add_line(OpRequest::kReference);
    for (const Direction direction : directions) call->reference(direction, false, nullptr);
  } else {
    Workspace workspace(request.threads);
    const Choice choice{.name = request.impl};
    for (const Direction direction : directions) {
      out.add_line(
          pick_line(family, lines, workspace.context().caps, call->given.shape, direction, choice)
              .info.name);
    }
    call->run(workspace, directions, choice);
  }
  out.add_call(std::move(call), shapes, request.grads);
}

/// Calls `run` with a value of the storage type.
template <class Run>
void with_storage_type(Dtype dtype, const Run& run) {
  switch (dtype) {
    case Dtype::f64:
      return run(double{});
    case Dtype::f32:
      return run(float{});
    case Dtype::bf16:
      return run(Bf16{});
    default:
      throw UsageError({"this operator has no such type", "--dtype", "f64, f32 or bf16",
                        std::string(dtype_name(dtype))});
  }
}

void run_s6_op(const OpRequest& request, OpInputs& in, OpOutputs& out);
void run_ssd_op(const OpRequest& request, OpInputs& in, OpOutputs& out);
void run_conv1d_op(const OpRequest& request, OpInputs& in, OpOutputs& out);

}  // namespace adder::apps
