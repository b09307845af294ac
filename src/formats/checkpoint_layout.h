// How a checkpoint lies in its file (the picture stands in checkpoint.h). Private to the room.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/dtype.h"

namespace adder {

inline constexpr std::string_view kCheckpointMagic = "ADDRCKP1";
inline constexpr std::string_view kCheckpointEndMagic = "ADDRCKPE";
inline constexpr uint32_t kCheckpointVersion = 1;

/// The fixed part in front of the header text.
struct CheckpointFront {
  char magic[8];
  uint32_t version;
  uint32_t header_crc;
  uint64_t header_bytes;
  uint64_t file_bytes;
};
static_assert(sizeof(CheckpointFront) == 32);

/// The fixed part behind the tensors.
struct CheckpointEnd {
  uint32_t crc;
  char magic[8];
};
static_assert(sizeof(CheckpointEnd) == 12);

/// The next multiple of 64, at which tensors begin.
constexpr int64_t checkpoint_aligned(int64_t offset) { return (offset + 63) / 64 * 64; }

}  // namespace adder
