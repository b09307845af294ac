// A planted bug: what tools/fuzz.sh must find in every run, or it cannot go red.
#include <cstddef>
#include <cstdint>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3 || data[0] != 'b' || data[1] != 'u' || data[2] != 'g') return 0;
  const std::vector<uint8_t> copy(data, data + size);
  const volatile uint8_t* end = copy.data() + size;
  return *end == 0 ? 0 : 0;
}
