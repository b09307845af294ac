#include "models/language_model.h"

#include <algorithm>
#include <cstring>

namespace adder {

DecodeState::DecodeState(std::vector<std::vector<StatePart>> layers, int64_t slots)
    : layers_(std::move(layers)), slots_(slots) {
  int64_t bytes = 0;
  for (const auto& layer : layers_) {
    for (const StatePart& part : layer) {
      bytes += align_up(slots * part.elements * dtype_bytes(part.dtype));
    }
  }
  buffer_ = Buffer(bytes);
  if (bytes > 0) std::memset(buffer_.data(), 0, static_cast<size_t>(bytes));
  std::byte* next = buffer_.data();
  for (auto& layer : layers_) {
    for (StatePart& part : layer) {
      part.data = next;
      next += align_up(slots * part.elements * dtype_bytes(part.dtype));
    }
  }
}

void DecodeState::reset(int64_t slot) {
  ADDER_CHECK(slot >= 0 && slot < slots_);
  for (const auto& layer : layers_) {
    for (const StatePart& part : layer) {
      const int64_t bytes = part.elements * dtype_bytes(part.dtype);
      std::memset(static_cast<std::byte*>(part.data) + slot * bytes, 0, static_cast<size_t>(bytes));
    }
  }
}

template <class Acc>
LanguageModel<Acc>::LanguageModel(ModelConfig config, Dtype compute)
    : config_(std::move(config)), compute_(compute) {}

template <class Acc>
void LanguageModel<Acc>::initialize(uint64_t seed) {
  std::memset(values_.data(), 0, static_cast<size_t>(values_.bytes()));
  for (int64_t i = 0; i < table_.size(); ++i) {
    if (table_.info(i).alias_of.empty()) initialize_parameter(table_.info(i), seed, value(i));
  }
}

template <class Acc>
int64_t LanguageModel<Acc>::freeze(const std::string& pattern) {
  int64_t matches = 0;
  for (int64_t i = 0; i < table_.size(); ++i) {
    if (!glob_match(pattern, table_.info(i).name)) continue;
    table_.info(i).trainable = false;
    ++matches;
  }
  return matches;
}

template <class Acc>
void LanguageModel<Acc>::enable_training() {
  grads_ = Buffer(table_.total() * static_cast<int64_t>(sizeof(Acc)));
  zero_grads();
  bind();
}

template <class Acc>
void LanguageModel<Acc>::zero_grads() {
  std::memset(grads_.data(), 0, static_cast<size_t>(grads_.bytes()));
}

template <class Acc>
std::unique_ptr<DecodeState> LanguageModel<Acc>::make_state(int64_t slots) const {
  return std::make_unique<DecodeState>(state_parts(), slots);
}

bool glob_match(const std::string& pattern, const std::string& name) {
  size_t p = 0, n = 0, star = std::string::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (star != std::string::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

template class LanguageModel<float>;
template class LanguageModel<double>;

}  // namespace adder
