#include "core/buffer.h"

#include <string>

namespace adder {

Buffer::Buffer(int64_t bytes, const Memory& memory) : memory_(memory) {
  if (bytes <= 0) return;
  data_ = device_backend(memory.device).allocate(bytes, memory);
  if (data_ == nullptr) {
    const char* kind = memory.kind == MemoryKind::device   ? "device memory"
                       : memory.kind == MemoryKind::pinned ? "pinned memory"
                                                           : "memory";
    throw Error(std::string("out of ") + kind + ": " + std::to_string(bytes) + " bytes refused");
  }
  bytes_ = bytes;
}

Buffer::~Buffer() {
  if (data_ != nullptr) device_backend(memory_.device).release(data_, bytes_, memory_);
}

void Buffer::fill(int byte) {
  if (bytes_ == 0) return;
  DeviceBackend& backend = device_backend(memory_.device);
  backend.fill(nullptr, data_, byte, bytes_);
  backend.synchronize(nullptr);
}

void Buffer::write(int64_t offset, const void* from, int64_t bytes) {
  ADDER_CHECK(offset >= 0 && bytes >= 0 && bytes <= bytes_ - offset);
  if (bytes == 0) return;
  DeviceBackend& backend = device_backend(memory_.device);
  backend.copy(nullptr, data_ + offset, from, bytes);
  backend.synchronize(nullptr);
}

void Buffer::read(int64_t offset, void* to, int64_t bytes) const {
  ADDER_CHECK(offset >= 0 && bytes >= 0 && bytes <= bytes_ - offset);
  if (bytes == 0) return;
  DeviceBackend& backend = device_backend(memory_.device);
  backend.copy(nullptr, to, data_ + offset, bytes);
  backend.synchronize(nullptr);
}

}  // namespace adder
