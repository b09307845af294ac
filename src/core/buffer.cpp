#include "core/buffer.h"

#include <cstdlib>
#include <string>

namespace adder {

void Buffer::Free::operator()(std::byte* data) const { std::free(data); }

Buffer::Buffer(int64_t bytes) : bytes_(bytes) {
  if (bytes <= 0) return;
  const auto rounded = static_cast<size_t>(align_up(bytes));
  data_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded)));
  if (data_ == nullptr) throw Error("out of memory: " + std::to_string(bytes) + " bytes refused");
}

}  // namespace adder
