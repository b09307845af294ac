// The tile products of AMX, operands and sums in registers: intrinsics, compiled for AMX in this
// file only and called behind CPUID and the system's permission.
#include "measure/ceiling_loops.h"

#if defined(__AMX_BF16__) && defined(__linux__)

#include <immintrin.h>

namespace adder::measure {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
// Not on the stack: to gcc 12 the instruction reads nothing of it but its first word.
constexpr TileConfig kConfig;

}  // namespace

double tile_products_bf16(int64_t rounds, double* sink) {
  constexpr double kOperations = 2.0 * 16 * 16 * 32;  // of one instruction
  alignas(64) static constexpr uint16_t kZeros[16 * 32] = {};
  alignas(64) float sums[16 * 16];
  _tile_loadconfig(&kConfig);
  _tile_loadd(6, kZeros, 64);
  _tile_loadd(7, kZeros, 64);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t i = 0; i < rounds; ++i) {
    _tile_dpbf16ps(0, 6, 7);
    _tile_dpbf16ps(1, 6, 7);
    _tile_dpbf16ps(2, 6, 7);
    _tile_dpbf16ps(3, 6, 7);
  }
  _tile_stored(0, sums, 64);
  _tile_release();
  *sink += static_cast<double>(sums[0]);
  return 4 * kOperations * static_cast<double>(rounds);
}

}  // namespace adder::measure

#else

namespace adder::measure {

double tile_products_bf16(int64_t, double*) { return 0; }

}  // namespace adder::measure

#endif
