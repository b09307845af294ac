// Any header text as that of a checkpoint whose lengths and checksums are right, and any bytes as a
// whole checkpoint.
#include "core/checksum.h"
#include "formats/checkpoint.h"
#include "formats/scratch_folder.h"

namespace {

std::string forged(std::string_view header) {
  std::string file = "ADDRCKP1";
  const auto add = [&](auto value) {
    file.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  const auto sum = [](std::string_view text) {
    return adder::crc32c(std::as_bytes(std::span<const char>(text)));
  };
  const size_t begin = (32 + header.size() + 63) / 64 * 64, data_bytes = 128;
  add(uint32_t{1});
  add(sum(header));
  add(uint64_t{header.size()});
  add(uint64_t{begin + data_bytes + 12});
  file += header;
  file.resize(begin + data_bytes, '\0');
  add(sum(file));
  return file + "ADDRCKPE";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const adder::MemoryFile memory;
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data + 1), size - 1);
  const std::string file = data[0] % 4 == 0 ? std::string(rest) : forged(rest);
  adder::message_of([&] {
    const adder::Checkpoint checkpoint = adder::load_checkpoint(memory.put(file));
    for (const std::string& name : checkpoint.names()) checkpoint.data(name);
  });
  return 0;
}
