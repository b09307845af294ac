// Any bytes as a token shard, with the header's checksum made right for half of them.
#include <cstring>

#include "formats/scratch_folder.h"
#include "formats/token_shard.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const adder::MemoryFile memory;
  if (size == 0) return 0;
  std::string file(reinterpret_cast<const char*>(data + 1), size - 1);
  if (data[0] % 2 == 0 && file.size() >= 128) {
    const auto bytes = std::as_bytes(std::span<const char>(file));
    const uint32_t tokens = adder::crc32c(bytes.subspan(128));
    std::memcpy(file.data() + 80, &tokens, sizeof tokens);
    const uint32_t header = adder::crc32c(bytes.first(84));
    std::memcpy(file.data() + 84, &header, sizeof header);
  }
  adder::message_of([&] {
    const adder::TokenShard shard(memory.put(file));
    std::vector<int32_t> tokens(static_cast<size_t>(shard.count()));
    shard.copy(0, shard.count(), tokens.data());
  });
  return 0;
}
