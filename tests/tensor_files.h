// Small tensors as tests write and compare them: everything as double.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "formats/json.h"
#include "formats/safetensors.h"

namespace adder::tests {

struct Tensor {
  std::vector<int64_t> shape;
  std::vector<double> data;
};
using Tensors = std::map<std::string, Tensor>;

inline int64_t count_of(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

inline Tensor filled(std::vector<int64_t> shape, double value) {
  const auto count = static_cast<size_t>(count_of(shape));
  return {std::move(shape), std::vector<double>(count, value)};
}

/// Deterministic values in [-1, 1].
inline Tensor wave(std::vector<int64_t> shape, double frequency) {
  Tensor tensor = filled(std::move(shape), 0);
  for (size_t i = 0; i < tensor.data.size(); ++i) {
    tensor.data[i] = std::sin(frequency * static_cast<double>(i + 1));
  }
  return tensor;
}

/// All tensors of a file.
inline Tensors read_tensors(const std::string& path) {
  const SafetensorsFile file(path);
  Tensors tensors;
  for (const auto& [name, info] : file.tensors()) {
    Tensor tensor = filled(info.shape, 0);
    if (info.dtype == Dtype::i64 || info.dtype == Dtype::i32) {
      std::vector<int64_t> values(tensor.data.size());
      file.read_as(name, values.data());
      for (size_t i = 0; i < values.size(); ++i) tensor.data[i] = static_cast<double>(values[i]);
    } else {
      file.read_as(name, tensor.data.data());
    }
    tensors[name] = std::move(tensor);
  }
  return tensors;
}

/// Writes F64, and the names in `integers` as I64.
inline void write_tensors(const std::string& path, const Tensors& tensors,
                          const std::set<std::string>& integers = {}) {
  std::map<std::string, std::vector<int64_t>> whole;
  std::vector<TensorSource> sources;
  for (const auto& [name, tensor] : tensors) {
    if (integers.count(name) == 0) {
      sources.push_back(tensor_source(name, tensor.shape, tensor.data.data()));
      continue;
    }
    std::vector<int64_t>& values = whole[name];
    for (const double x : tensor.data) values.push_back(static_cast<int64_t>(x));
    sources.push_back(tensor_source(name, tensor.shape, values.data()));
  }
  write_safetensors(path, sources);
}

/// Largest difference relative to the largest expected entry; infinity for NaN or another shape.
inline double relative_error(const Tensor& got, const Tensor& expected) {
  if (got.shape != expected.shape) return HUGE_VAL;
  double largest = 0;
  double worst = 0;
  for (size_t i = 0; i < expected.data.size(); ++i) {
    const double difference = std::abs(got.data[i] - expected.data[i]);
    if (std::isnan(difference)) return HUGE_VAL;
    worst = std::max(worst, difference);
    largest = std::max(largest, std::abs(expected.data[i]));
  }
  return worst == 0 ? 0 : worst / largest;
}

/// {"data": nested or flat, "shape": ...} or a bare nested array.
inline void flatten(const JsonValue& value, Tensor& tensor, size_t depth) {
  if (!value.is_array()) {
    tensor.data.push_back(value.as_double());
    return;
  }
  const auto& entries = value.as_array();
  if (tensor.shape.size() == depth) tensor.shape.push_back(static_cast<int64_t>(entries.size()));
  for (const JsonValue& entry : entries) flatten(entry, tensor, depth + 1);
}

inline Tensor tensor_of(const JsonValue& value) {
  Tensor tensor;
  if (!value.is_object()) {
    flatten(value, tensor, 0);
    return tensor;
  }
  flatten(*value.find("data"), tensor, 0);
  tensor.shape.clear();
  for (const JsonValue& size : value.find("shape")->as_array())
    tensor.shape.push_back(size.as_int());
  return tensor;
}

/// The names of the lines of a family in one type, from `adder info kernels --json`.
inline std::vector<std::string> line_names(const std::string& info_json, const std::string& family,
                                           const std::string& types) {
  std::vector<std::string> names;
  const JsonValue json = parse_json(info_json, "info kernels");
  for (const JsonValue& row : json.find("kernels")->as_array()) {
    if (row.find("family")->as_string() == family && row.find("types")->as_string() == types) {
      names.push_back(row.find("name")->as_string());
    }
  }
  return names;
}

}  // namespace adder::tests
