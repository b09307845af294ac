// One call of a kernel family: its shape, its options and its arrays, which have a host image and a
// device image. The doors work on the device images, the references on the host images, and both
// get their arguments from the same code. Every array is listed once; what uploads, compares,
// poisons, differentiates or stores arrays reads that list.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/kernel_table.h"
#include "core/workspace.h"
#include "measure/compare.h"
#include "measure/tensors.h"

namespace adder::measure {

enum class Role : uint8_t {
  input,     // read by the call
  upstream,  // gradient of an output, read by backward
  output,    // written by forward
  gradient,  // of an input, written by backward (added to, where the call says so)
};

/// One array of a call. `of` is the array whose gradient it is, or null.
struct Listed {
  const char* name = "";  // as in the arguments of the door
  Role role = Role::input;
  Array* array = nullptr;
  const Array* of = nullptr;
  int64_t token = 0;         // elements of one token of a dense array; 0: not by token
  int64_t row = 0;           // elements of one sequence of an array of states; 0: no states
  Dtype judged = Dtype::u8;  // the type whose roundoff is allowed
  bool compared = true;      // with the reference; else check_outputs() judges it

  bool written(Direction direction) const {
    return role == (direction == Direction::forward ? Role::output : Role::gradient);
  }
  Listed& by_token(int64_t elements) {
    token = elements;
    return *this;
  }
  Listed& by_row(int64_t elements) {
    row = elements;
    return *this;
  }
  Listed& not_compared() {
    compared = false;
    return *this;
  }
  Listed& judged_as(Dtype dtype) {
    judged = dtype;
    return *this;
  }
};

/// Collects the arrays that are there.
class ArrayList {
 public:
  Listed& input(const char* name, Array& array) { return add(name, Role::input, array); }
  Listed& output(const char* name, Array& array) { return add(name, Role::output, array); }
  Listed& upstream(const char* name, Array& array, const Array& of) {
    return add(name, Role::upstream, array, &of);
  }
  Listed& gradient(const char* name, Array& array, const Array& of) {
    return add(name, Role::gradient, array, &of);
  }
  std::vector<Listed> take() { return std::move(all_); }

 private:
  Listed& add(const char* name, Role role, Array& array, const Array* of = nullptr) {
    Listed& to = array.present() ? all_.emplace_back() : absent_;
    to.name = name;
    to.role = role;
    to.array = &array;
    to.of = of;
    to.judged = array.dtype();
    return to;
  }
  std::vector<Listed> all_;
  Listed absent_;
};

class Call {
 public:
  virtual ~Call() = default;

  virtual void list(ArrayList& arrays) = 0;
  /// The door of one direction, over device images. For Workspace::run.
  virtual void door(Context& context, Direction direction, const Choice& choice) = 0;
  /// Over host images. `line`: round as this line does; null: as the definition says.
  virtual void reference(Direction direction, bool absolute, const LineInfo* line) = 0;
  /// Host images only.
  virtual std::unique_ptr<Call> copy() const = 0;
  /// The same in double.
  virtual std::unique_ptr<Call> wide() = 0;
  /// Makes the arrays that forward leaves for backward, by the line of `choice`.
  virtual void prepare_backward(Workspace&, const Choice&) {}
  /// Before the first of many timed runs; the device images are there.
  virtual void prepare_timing(const Context&) {}
  /// Checks the outputs of `direction` beyond the tolerance rule.
  virtual void check_outputs(Direction, Comparison&) {}
  /// Coarsest type that the line rounds an operand to; f64: none that is coarser than its outputs.
  virtual Dtype product_type(const LineInfo&) const { return Dtype::f64; }

  std::vector<Listed> arrays();
  /// The array of this name, which must be there.
  Array& array(std::string_view name);
  void upload(const Context& context);
  void download();
  /// Uploads, runs the doors of these directions one after the other, downloads.
  void run(Workspace& workspace, const std::vector<Direction>& directions, const Choice& choice);
  /// Forward and backward on so many threads.
  void run_both(int threads, const Choice& choice = {});
  /// False where the table says that the line does not take the shape here. Uploads.
  bool accepted(Workspace& workspace, Direction direction, const Choice& choice);

 protected:
  Call() = default;
  Call(const Call&) = default;
  Call& operator=(const Call&) = default;
};

/// Both directions of a family's doors and references; a family of one direction leaves `backward`
/// out.
template <class Shape, class Forward, class Backward>
struct Doors {
  using RunForward = void (*)(Context&, const Shape&, const Forward&, const Choice&);
  using RunBackward = void (*)(Context&, const Shape&, const Backward&, const Choice&);
  RunForward forward = nullptr;
  RunBackward backward = nullptr;
  void (*forward_reference)(const Shape&, const Forward&, bool absolute) = nullptr;
  void (*backward_reference)(const Shape&, const Backward&, bool absolute) = nullptr;
};
struct NoBackward {};

/// The base of the families' calls. Self has
///   Given given              the shape, `given.shape`, and the options, with describe()
///   Self(Given, uint64_t seed)  inputs filled, outputs poisoned; Self(Given): nothing filled
///   Wide                     the same call in double
///   forward(Side), backward(Side)  arguments; a family of one direction has no backward
///   kDoors                   a Doors; a call that overrides reference() may leave those out
template <class Self>
class FamilyCall : public Call {
 public:
  void door(Context& context, Direction direction, const Choice& choice) override {
    if (direction == Direction::forward) {
      Self::kDoors.forward(context, self().given.shape, self().forward(Side::device), choice);
    } else if constexpr (requires(Self call) { call.backward(Side::device); }) {
      Self::kDoors.backward(context, self().given.shape, self().backward(Side::device), choice);
    }
  }
  void reference(Direction direction, bool absolute, const LineInfo*) override {
    if (direction == Direction::forward) {
      Self::kDoors.forward_reference(self().given.shape, self().forward(Side::host), absolute);
    } else if constexpr (requires(Self call) { call.backward(Side::host); }) {
      Self::kDoors.backward_reference(self().given.shape, self().backward(Side::host), absolute);
    }
  }
  std::unique_ptr<Call> copy() const override {
    return std::make_unique<Self>(static_cast<const Self&>(*this));
  }
  std::unique_ptr<Call> wide() override {
    auto out = std::make_unique<typename Self::Wide>(self().given);
    const auto to = out->arrays(), from = arrays();
    ADDER_CHECK(to.size() == from.size());
    for (size_t i = 0; i < to.size(); ++i) to[i].array->assign(*from[i].array);
    return out;
  }

 private:
  Self& self() { return static_cast<Self&>(*this); }
};

/// Compares what a kernel wrote with the reference: in double, in the dtype, on absolute values.
/// Elements that the reference left alone (the gaps of a strided slice) must be untouched. Integers
/// and bytes must be equal. `product`: see OutputCheck.
void compare_output(Comparison& comparison, const Listed& got, const Array& expected,
                    const Array& evaluated, const Array& absolute, Dtype product = Dtype::f64);

/// Options for running a variant.
struct RunOptions {
  int threads = 1;
  uint64_t seed = 1;
  Caps caps = cpu_caps();

  Context context() const { return {.caps = caps, .threads = threads}; }
};

using MakeCall = std::function<std::unique_ptr<Call>(uint64_t seed)>;

/// Runs the line on poisoned, misaligned, guarded memory and compares every output, element by
/// element, with the reference under the tolerance rule; on more than one thread, also with the
/// bits that one thread gives. A line that takes aligned rows only is checked on these.
Comparison check_call(const MakeCall& make, const LineInfo& line, Direction direction,
                      const RunOptions& options);

}  // namespace adder::measure
