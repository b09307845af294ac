#include "core/checksum.h"

#include <array>
#include <bit>
#include <cstring>

#if defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#endif

namespace adder {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78u;  // 0x1EDC6F41 with its bits reversed

static_assert(std::endian::native == std::endian::little, "Adder's formats are little-endian");

// Eight tables: entry [k][b] is the register after byte b and then k zero bytes, so that eight
// bytes are folded at once (Intel's "slicing by 8").
using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t state = byte;
    for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ ((state & 1u) ? kPolynomial : 0u);
    tables[0][byte] = state;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xFFu];
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

// Polynomials over GF(2) modulo the CRC's, the coefficient of x^0 in the highest bit.
constexpr uint32_t kOne = uint32_t{1} << 31;

uint32_t polynomial_product(uint32_t a, uint32_t b) {
  uint32_t sum = 0;
  for (; a != 0; a <<= 1) {
    if ((a & kOne) != 0) sum ^= b;
    b = (b >> 1) ^ ((b & 1u) ? kPolynomial : 0u);  // times x
  }
  return sum;
}

uint64_t load_word(const std::byte* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t crc_instructions(uint32_t state, const std::byte* at,
                                                            size_t size) {
  uint64_t wide = state;
  for (; size >= 8; at += 8, size -= 8) wide = __builtin_ia32_crc32di(wide, load_word(at));
  state = static_cast<uint32_t>(wide);
  for (; size > 0; ++at, --size) {
    state = __builtin_ia32_crc32qi(state, static_cast<unsigned char>(*at));
  }
  return state;
}
bool cpu_has_crc() { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__)
__attribute__((target("+crc"))) uint32_t crc_instructions(uint32_t state, const std::byte* at,
                                                          size_t size) {
  for (; size >= 8; at += 8, size -= 8) state = __crc32cd(state, load_word(at));
  for (; size > 0; ++at, --size) state = __crc32cb(state, static_cast<uint8_t>(*at));
  return state;
}
bool cpu_has_crc() { return (getauxval(AT_HWCAP) & (1ul << 7)) != 0; }  // HWCAP_CRC32
#else
uint32_t crc_instructions(uint32_t state, const std::byte* at, size_t size) {
  return crc32c_table(state, {at, size});
}
bool cpu_has_crc() { return false; }
#endif

}  // namespace

bool crc32c_has_hardware() {
  static const bool kHas = cpu_has_crc();
  return kHas;
}

uint32_t crc32c_table(uint32_t state, std::span<const std::byte> bytes) {
  const std::byte* at = bytes.data();
  size_t size = bytes.size();
  for (; size >= 8; at += 8, size -= 8) {
    const uint64_t word = load_word(at) ^ state;
    state = 0;
    for (size_t k = 0; k < 8; ++k) state ^= kTables[7 - k][(word >> (8 * k)) & 0xFFu];
  }
  for (; size > 0; ++at, --size) {
    state = (state >> 8) ^ kTables[0][(state ^ static_cast<uint32_t>(*at)) & 0xFFu];
  }
  return state;
}

uint32_t crc32c_hardware(uint32_t state, std::span<const std::byte> bytes) {
  if (!crc32c_has_hardware()) return crc32c_table(state, bytes);
  return crc_instructions(state, bytes.data(), bytes.size());
}

void Crc32c::update(std::span<const std::byte> bytes) { state_ = crc32c_hardware(state_, bytes); }

uint32_t crc32c(std::span<const std::byte> bytes) {
  Crc32c crc;
  crc.update(bytes);
  return crc.value();
}

// A CRC is a remainder, so n zero bytes behind a block multiply it by x^(8n), and the second block
// adds its own. What stands before and after the division (all ones) cancels.
uint32_t crc32c_joined(uint32_t first, uint32_t second, int64_t second_bytes) {
  uint32_t power = kOne >> 8;  // x^8
  for (auto n = static_cast<uint64_t>(second_bytes); n != 0; n >>= 1) {
    if ((n & 1u) != 0) first = polynomial_product(power, first);
    power = polynomial_product(power, power);
  }
  return first ^ second;
}

}  // namespace adder
