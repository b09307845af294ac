// Parameters: what a layer lists once and everything else reads (design.md 1.4).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace adder {

enum class ParamKind : uint8_t { matrix, embedding, conv, vector, decay };

/// The start values of a parameter (math.md 7.7). The random stream is the parameter's name.
struct InitSpec {
  enum class Kind : uint8_t {
    zeros,
    ones,
    constant,       // a
    normal,         // N(0, a^2)
    uniform,        // U(-a, a)
    a_log_range,    // log(column + 1): S4D-Real
    a_log_uniform,  // log U(a, b): Mamba-2
    dt_bias,        // inverse softplus of max(exp(U(log a, log b)), floor)
  };
  Kind kind = Kind::zeros;
  double a = 0;
  double b = 0;
  double floor = 0;
};

struct ParamInfo {
  std::string name;            // full name in the file layout: "backbone.layers.0.mixer.D"
  std::vector<int64_t> shape;  // as in the file
  ParamKind kind = ParamKind::vector;
  InitSpec init;
  bool decay = false;  // weight decay applies
  bool trainable = true;
  bool keep_fp32 = true;  // never stored narrower than fp32 while training
  bool quantizable = false;
  int split_axis = -1;     // tensor parallelism: axis to cut, -1 none
  int64_t split_unit = 1;  // ... in multiples of this
  std::string alias_of;    // shares the storage of that parameter (tied head)

  int64_t count() const {
    int64_t product = 1;
    for (const int64_t extent : shape) product *= extent;
    return product;
  }
};

/// The bound of PyTorch's default start values of a linear layer: 1 / sqrt(fan_in).
double fan_in_bound(int64_t fan_in);
/// A product weight (rows, cols), uniform in [-bound, bound]: decayed, quantizable.
ParamInfo matrix_param(std::string name, int64_t rows, int64_t cols, double bound);
/// A parameter that stays in fp32 and is not decayed.
ParamInfo vector_param(std::string name, std::vector<int64_t> shape, InitSpec init,
                       ParamKind kind = ParamKind::vector);

struct LowRankAdapter;

/// A product weight (rows = outputs, columns = inputs). layers/linear is the only reader, and the
/// only place that looks at its type.
struct Matrix {
  const void* data = nullptr;
  Dtype type = Dtype::f32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;                       // elements between rows
  const LowRankAdapter* adapter = nullptr;  // absent: none

  explicit operator bool() const { return data != nullptr; }
  template <class P>
  const P* as() const {
    return static_cast<const P*>(data);
  }
};

/// y = x W^T + (x down^T) up^T (LoRA, arXiv 2106.09685); the factor alpha / rank is part of `up`.
struct LowRankAdapter {
  Matrix down;  // (rank, cols)
  Matrix up;    // (rows, rank)
};

/// The gradient of a Matrix is added up here, in full precision; absent parts are frozen.
template <class Acc>
struct MatrixGrad {
  Acc* data = nullptr;  // (rows, cols), dense
  Acc* down = nullptr;  // (rank, cols), of the adapter
  Acc* up = nullptr;    // (rows, rank)
};

/// Elements that parameters are padded to: 64 bytes of f32.
inline constexpr int64_t kParamUnit = 16;
constexpr int64_t padded_count(int64_t count) {
  return (count + kParamUnit - 1) / kParamUnit * kParamUnit;
}

/// The parameters of a model and where each lies in a flat array (offsets in elements, each a
/// multiple of kParamUnit). Aliases have the offset of what they alias.
class ParamTable {
 public:
  /// Throws Error on a duplicate name or an alias of nothing.
  int64_t add(ParamInfo info);
  /// Index or -1.
  int64_t find(const std::string& name) const;
  const std::vector<ParamInfo>& infos() const { return infos_; }
  ParamInfo& info(int64_t index) { return infos_[static_cast<size_t>(index)]; }
  const ParamInfo& info(int64_t index) const { return infos_[static_cast<size_t>(index)]; }
  int64_t offset(int64_t index) const { return offsets_[static_cast<size_t>(index)]; }
  int64_t size() const { return static_cast<int64_t>(infos_.size()); }
  /// Elements of the flat array.
  int64_t total() const { return total_; }
  /// Parameters, aliases counted once and padding not at all.
  int64_t parameter_count() const;

 private:
  std::vector<ParamInfo> infos_;
  std::vector<int64_t> offsets_;
  int64_t total_ = 0;
};

/// Start values [first, first + count) of a parameter, into host memory: the same for every device
/// and thread count.
template <class Acc>
void start_values(const ParamInfo& info, uint64_t seed, int64_t first, int64_t count, Acc* out);

/// A layer shows its field list to a visitor: once to declare (build the table), then to bind (set
/// the pointers, which lie in the memory of the device).
template <class Acc>
class ParamVisitor {
 public:
  virtual ~ParamVisitor() = default;
  virtual void matrix(Matrix& weight, MatrixGrad<Acc>& grad, ParamInfo info) = 0;
  virtual void vector(const Acc*& weight, Acc*& grad, ParamInfo info) = 0;
  /// A derived array that is made anew after every change of its parameter: A = -exp(A_log).
  virtual void decay(const Acc*& derived, const std::string& log_name) = 0;
};

}  // namespace adder
