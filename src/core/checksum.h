// CRC32C (Castagnoli polynomial 0x1EDC6F41, reflected, RFC 3720 appendix B.4): finds every
// single-bit error at any length, every burst of up to 32 bits, and runs at memory speed on the CRC
// instructions of SSE4.2 and ARMv8; a table serves elsewhere, with the same values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace adder {

/// Streaming CRC32C: the value depends on the bytes, not on how they were cut. Not thread-safe.
class Crc32c {
 public:
  void update(std::span<const std::byte> bytes);
  uint32_t value() const { return ~state_; }

 private:
  uint32_t state_ = 0xFFFFFFFFu;
};

/// CRC32C of one block.
uint32_t crc32c(std::span<const std::byte> bytes);

/// CRC32C of two blocks one after the other, from those of the blocks: bytes that are summed in
/// parts need not be read again for the sum of the whole.
uint32_t crc32c_joined(uint32_t first, uint32_t second, int64_t second_bytes);

/// CRC32C by the table, for the test that holds the two ways against each other. `state` is the
/// running register, not the finished value.
uint32_t crc32c_table(uint32_t state, std::span<const std::byte> bytes);
/// The same by CRC instructions, or by the table where the CPU has none.
uint32_t crc32c_hardware(uint32_t state, std::span<const std::byte> bytes);
bool crc32c_has_hardware();

}  // namespace adder
