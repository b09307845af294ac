// Any bytes as a safetensors file. Length prefix and data are made to fit half of the inputs, so
// that mutations reach the tensor table; a reader of the input's own prefix sees the others.
#include <cstring>

#include "formats/safetensors.h"
#include "formats/scratch_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const adder::MemoryFile memory;
  if (size == 0) return 0;
  std::string file(reinterpret_cast<const char*>(data + 1), size - 1);
  if (data[0] % 2 == 0) {
    const size_t end = file.rfind('}');
    const uint64_t length = end == std::string::npos ? file.size() : end + 1;
    file.insert(0, reinterpret_cast<const char*>(&length), sizeof length);
  }
  adder::message_of([&] {
    const adder::SafetensorsFile opened(memory.put(file));
    for (const auto& [name, info] : opened.tensors()) {
      std::vector<float> values(static_cast<size_t>(info.elements()));
      adder::message_of([&] { opened.read_as(name, values.data()); });
      if (opened.data(name).size() != static_cast<size_t>(info.bytes())) std::abort();
    }
    opened.metadata();
  });
  return 0;
}
