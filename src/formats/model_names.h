// Names of tensors in model files (formats.md 2.2, 3.1). Private to the room.
#pragma once

namespace adder {

inline constexpr const char* kEmbeddingName = "backbone.embedding.weight";     // state-spaces
inline constexpr const char* kHfEmbeddingName = "backbone.embeddings.weight";  // transformers
inline constexpr const char* kHeadName = "lm_head.weight";

}  // namespace adder
