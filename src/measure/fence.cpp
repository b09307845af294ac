#include "measure/fence.h"

#include <sys/mman.h>
#include <unistd.h>

#include "core/kernel_table.h"

namespace adder::measure {

Fence::Fence() : cpu_(device_backend(Device::cpu)) { set_device_backend(Device::cpu, this); }

Fence::~Fence() {
  set_device_backend(Device::cpu, nullptr);
  ADDER_CHECK(blocks_.empty());
}

void Fence::protect(int access) {
  for (const auto& [data, bytes] : blocks_) ADDER_CHECK(mprotect(data, bytes, access) == 0);
}

void Fence::begin_line() {
  const std::lock_guard lock(mutex_);
  if (open_++ == 0) protect(PROT_READ | PROT_WRITE);
}

void Fence::end_line() {
  const std::lock_guard lock(mutex_);
  if (--open_ == 0) protect(PROT_NONE);
}

std::byte* Fence::allocate(int64_t bytes, const Memory& memory) {
  if (memory.kind != MemoryKind::device) return cpu_.allocate(bytes, memory);
  const int64_t page = sysconf(_SC_PAGESIZE);
  const auto rounded = static_cast<size_t>((bytes + page - 1) / page * page);
  const std::lock_guard lock(mutex_);
  void* data = mmap(nullptr, rounded, open_ > 0 ? PROT_READ | PROT_WRITE : PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  blocks_[static_cast<std::byte*>(data)] = rounded;
  return static_cast<std::byte*>(data);
}

void Fence::release(std::byte* data, int64_t bytes, const Memory& memory) {
  if (memory.kind != MemoryKind::device) return cpu_.release(data, bytes, memory);
  const std::lock_guard lock(mutex_);
  const auto block = blocks_.find(data);
  ADDER_CHECK(block != blocks_.end() && munmap(data, block->second) == 0);
  blocks_.erase(block);
}

void Fence::fill(void* stream, void* to, int byte, int64_t bytes) {
  const LineWindow window(*this);
  cpu_.fill(stream, to, byte, bytes);
}

void Fence::copy(void* stream, void* to, const void* from, int64_t bytes) {
  const LineWindow window(*this);
  cpu_.copy(stream, to, from, bytes);
}

void Fence::synchronize(void* stream) { cpu_.synchronize(stream); }

double Fence::elapsed_us(void* stream, const std::function<void()>& work) {
  return cpu_.elapsed_us(stream, work);
}

}  // namespace adder::measure
