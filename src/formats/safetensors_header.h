// The events of a safetensors header, checked one by one. Private to the room.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "formats/safetensors.h"

namespace adder {

struct SafetensorsHeader {
  std::deque<SafetensorsFile::Entry> entries;  // in the file's order
  std::vector<SafetensorsFile::MetadataEntry> metadata;
};

/// Parses and checks the header text, decoding its strings in place. Each tensor's dtype, shape and
/// offsets are checked against each other; how they lie beside one another is not.
SafetensorsHeader parse_safetensors_header(std::string& text, const std::string& path);

}  // namespace adder
