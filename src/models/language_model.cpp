#include "models/language_model.h"

#include <algorithm>

namespace adder {

DecodeState::DecodeState(std::vector<std::vector<StatePart>> layers, int64_t slots,
                         const Context& context)
    : layers_(std::move(layers)), slots_(slots) {
  int64_t bytes = 0;
  for (const auto& layer : layers_) {
    for (const StatePart& part : layer) {
      bytes += align_up(slots * part.elements * dtype_bytes(part.dtype));
    }
  }
  buffer_ = Buffer(bytes, context.memory(MemoryKind::device));
  buffer_.fill(0);
  std::byte* next = buffer_.data();
  for (auto& layer : layers_) {
    for (StatePart& part : layer) {
      part.data = next;
      next += align_up(slots * part.elements * dtype_bytes(part.dtype));
    }
  }
}

void DecodeState::reset(const Context& context, int64_t slot) {
  ADDER_CHECK(slot >= 0 && slot < slots_);
  for (const auto& layer : layers_) {
    for (const StatePart& part : layer) {
      const int64_t bytes = part.elements * dtype_bytes(part.dtype);
      zero_elements(context, static_cast<std::byte*>(part.data) + slot * bytes, bytes);
    }
  }
}

Context with_threads(Context context, int64_t threads) {
  context.threads = threads > 0 ? static_cast<int>(threads) : available_threads();
  return context;
}

template <class Acc>
LanguageModel<Acc>::LanguageModel(ModelConfig config, const ModelBuild& build)
    : config_(std::move(config)),
      compute_(build.compute),
      store_(build.compute, build.context, build.masters) {}

template <class Acc>
void LanguageModel<Acc>::initialize(uint64_t seed) {
  constexpr int64_t kPiece = ParamStore<Acc>::kPiece;
  std::vector<Acc> piece;
  for (int64_t i = 0; i < params().size(); ++i) {
    const ParamInfo& info = params().info(i);
    if (!info.alias_of.empty()) continue;
    for (int64_t first = 0; first < info.count(); first += kPiece) {
      const int64_t count = std::min(kPiece, info.count() - first);
      piece.resize(static_cast<size_t>(count));
      start_values(info, seed, first, count, piece.data());
      store_.write(i, first, count, piece.data());
    }
  }
}

template <class Acc>
int64_t LanguageModel<Acc>::freeze(const std::string& pattern) {
  int64_t matches = 0;
  for (int64_t i = 0; i < params().size(); ++i) {
    if (!glob_match(pattern, params().info(i).name)) continue;
    store_.table().info(i).trainable = false;
    ++matches;
  }
  return matches;
}

template <class Acc>
void LanguageModel<Acc>::enable_training() {
  store_.enable_training();
  bind();
}

template <class Acc>
std::unique_ptr<DecodeState> LanguageModel<Acc>::make_state(int64_t slots,
                                                            const Context& context) const {
  return std::make_unique<DecodeState>(state_parts(), slots, context);
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
