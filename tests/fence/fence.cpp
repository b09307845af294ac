#include "fence/fence.h"

#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>

#include "core/buffer.h"
#include "core/error.h"

namespace adder::tests {
namespace {

int64_t whole_pages(int64_t bytes) {
  static const int64_t kPage = ::sysconf(_SC_PAGESIZE);
  return (bytes + kPage - 1) / kPage * kPage;
}

// A block ends where its mapping ends, so that a line that runs past it meets no page of ours; its
// start stays on a cache line.
int64_t start_of_block(int64_t bytes) { return whole_pages(bytes) - align_up(bytes); }

}  // namespace

std::byte* FenceBackend::allocate(int64_t bytes, const Memory& memory) {
  if (memory.kind != MemoryKind::device) {
    return static_cast<std::byte*>(
        std::aligned_alloc(kAlignment, static_cast<size_t>(align_up(bytes))));
  }
  const std::lock_guard lock(mutex_);
  const int64_t size = whole_pages(align_up(bytes));
  void* mapping = ::mmap(nullptr, static_cast<size_t>(size),
                         open_ > 0 ? PROT_READ | PROT_WRITE : PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return nullptr;
  auto* region = static_cast<std::byte*>(mapping);
  regions_[region] = size;
  return region + start_of_block(align_up(bytes));
}

void FenceBackend::release(std::byte* data, int64_t bytes, const Memory& memory) {
  if (memory.kind != MemoryKind::device) return std::free(data);
  const std::lock_guard lock(mutex_);
  std::byte* region = data - start_of_block(align_up(bytes));
  const auto found = regions_.find(region);
  ADDER_CHECK(found != regions_.end());
  ::munmap(region, static_cast<size_t>(found->second));
  regions_.erase(found);
}

void FenceBackend::protect(int how) {
  for (const auto& [region, size] : regions_) {
    ADDER_CHECK(::mprotect(region, static_cast<size_t>(size), how) == 0);
  }
}

void FenceBackend::open() {
  const std::lock_guard lock(mutex_);
  if (open_++ == 0) protect(PROT_READ | PROT_WRITE);
}

void FenceBackend::close() {
  const std::lock_guard lock(mutex_);
  if (--open_ == 0) protect(PROT_NONE);
}

void FenceBackend::fill(void*, void* to, int byte, int64_t bytes) {
  open();
  std::memset(to, byte, static_cast<size_t>(bytes));
  close();
}

void FenceBackend::copy(void*, void* to, const void* from, int64_t bytes) {
  open();
  std::memcpy(to, from, static_cast<size_t>(bytes));
  close();
}

double FenceBackend::elapsed_us(void*, const std::function<void()>& work) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

void FenceBackend::begin_line() { open(); }

void FenceBackend::end_line() {
  close();
  const std::lock_guard lock(mutex_);
  if (++lines_ == plant_at_ && !regions_.empty()) {
    static_cast<void>(*static_cast<volatile std::byte*>(regions_.begin()->first));
  }
}

}  // namespace adder::tests
