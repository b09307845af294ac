#include "layers/params.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/rng.h"

namespace adder {
namespace {

double start_value(const InitSpec& init, uint64_t seed, uint64_t stream, int64_t index,
                   int64_t columns) {
  const auto i = static_cast<uint64_t>(index);
  switch (init.kind) {
    case InitSpec::Kind::zeros:
      return 0.0;
    case InitSpec::Kind::ones:
      return 1.0;
    case InitSpec::Kind::constant:
      return init.a;
    case InitSpec::Kind::normal:
      return init.a * normal(seed, stream, i);
    case InitSpec::Kind::uniform:
      return init.a * (2.0 * uniform01(seed, stream, i) - 1.0);
    case InitSpec::Kind::a_log_range:
      return std::log(static_cast<double>(index % columns + 1));
    case InitSpec::Kind::a_log_uniform:
      return std::log(init.a + (init.b - init.a) * uniform01(seed, stream, i));
    case InitSpec::Kind::dt_bias: {
      const double low = std::log(init.a);
      const double high = std::log(init.b);
      const double dt =
          std::max(std::exp(low + (high - low) * uniform01(seed, stream, i)), init.floor);
      return dt + std::log(-std::expm1(-dt));
    }
  }
  return 0.0;
}

}  // namespace

double fan_in_bound(int64_t fan_in) { return 1.0 / std::sqrt(static_cast<double>(fan_in)); }

ParamInfo matrix_param(std::string name, int64_t rows, int64_t cols, double bound) {
  ParamInfo info;
  info.name = std::move(name);
  info.shape = {rows, cols};
  info.kind = ParamKind::matrix;
  info.init = {InitSpec::Kind::uniform, bound};
  info.decay = true;
  info.keep_fp32 = false;
  info.quantizable = true;
  return info;
}

ParamInfo vector_param(std::string name, std::vector<int64_t> shape, InitSpec init,
                       ParamKind kind) {
  ParamInfo info;
  info.name = std::move(name);
  info.shape = std::move(shape);
  info.kind = kind;
  info.init = init;
  return info;
}

int64_t ParamTable::add(ParamInfo info) {
  if (find(info.name) >= 0) throw Error({"parameter declared twice", info.name, "", ""});
  int64_t offset = total_;
  if (!info.alias_of.empty()) {
    const int64_t target = find(info.alias_of);
    if (target < 0) throw Error({"alias of an unknown parameter", info.name, "", info.alias_of});
    offset = offsets_[static_cast<size_t>(target)];
  } else {
    total_ += padded_count(info.count());
  }
  offsets_.push_back(offset);
  infos_.push_back(std::move(info));
  return size() - 1;
}

int64_t ParamTable::find(const std::string& name) const {
  for (size_t i = 0; i < infos_.size(); ++i) {
    if (infos_[i].name == name) return static_cast<int64_t>(i);
  }
  return -1;
}

int64_t ParamTable::parameter_count() const {
  int64_t sum = 0;
  for (const ParamInfo& info : infos_) sum += info.alias_of.empty() ? info.count() : 0;
  return sum;
}

template <class Acc>
void start_values(const ParamInfo& info, uint64_t seed, int64_t first, int64_t count, Acc* out) {
  const uint64_t stream = stream_of(info.name.c_str());
  const int64_t columns = info.shape.empty() ? 1 : std::max<int64_t>(info.shape.back(), 1);
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<Acc>(start_value(info.init, seed, stream, first + i, columns));
  }
}

template void start_values<float>(const ParamInfo&, uint64_t, int64_t, int64_t, float*);
template void start_values<double>(const ParamInfo&, uint64_t, int64_t, int64_t, double*);

}  // namespace adder
