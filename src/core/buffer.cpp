#include "core/buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <string>

namespace adder {
namespace {

// Large buffers stand on huge pages where the system has them: streaming over weights spends about
// a tenth of its time on page walks otherwise.
constexpr int64_t kHugePage = 2 << 20;

}  // namespace

void Buffer::Free::operator()(std::byte* data) const { std::free(data); }

Buffer::Buffer(int64_t bytes) : bytes_(bytes) {
  if (bytes <= 0) return;
  const int64_t unit = bytes >= 2 * kHugePage ? kHugePage : kAlignment;
  const auto rounded = static_cast<size_t>((bytes + unit - 1) / unit * unit);
  data_.reset(static_cast<std::byte*>(std::aligned_alloc(static_cast<size_t>(unit), rounded)));
#ifdef MADV_HUGEPAGE
  // A hint: without huge pages everything works as before.
  if (data_ != nullptr && unit == kHugePage) madvise(data_.get(), rounded, MADV_HUGEPAGE);
#endif
  if (data_ == nullptr) throw Error("out of memory: " + std::to_string(bytes) + " bytes refused");
}

}  // namespace adder
