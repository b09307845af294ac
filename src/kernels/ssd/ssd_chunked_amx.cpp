// Products of bf16 tiles on AMX: 32 x 32 blocks of the result in four tiles, two tiles of either
// operand. Compiled for AMX in this file only and called behind CPUID and the system's permission.
#include "kernels/ssd/ssd_chunk_bf16.h"

#if defined(__AMX_BF16__) && defined(__linux__)

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

namespace adder::ssd {
namespace {

constexpr int64_t kTile = 16;  // rows, and 32-bit columns

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
// Not on the stack: to gcc 12 the instruction reads nothing of it but its first word.
constexpr TileConfig kConfig;

void configure_tiles() { _tile_loadconfig(&kConfig); }
void release_tiles() { _tile_release(); }

struct Depth {
  int64_t begin, end;  // multiples of kDepthBlock
};
Depth depth_of(const Bf16Term& term, int64_t i) {
  const int64_t whole = (term.depth + kDepthBlock - 1) / kDepthBlock * kDepthBlock;
  return {term.upper ? std::min(i / kDepthBlock * kDepthBlock, whole) : 0,
          term.lower ? std::min(i / kDepthBlock * kDepthBlock + kDepthBlock, whole) : whole};
}

// Rows [i, i + 32) and columns [j, j + 32): tiles 0 1 / 2 3 of the result.
void multiply_block(const Bf16Product& p, int64_t i, int64_t j) {
  float* out = p.out + i * p.out_row + j;
  const auto out_bytes = static_cast<size_t>(p.out_row) * sizeof(float);
  if (p.add) {
    _tile_loadd(0, out, out_bytes);
    _tile_loadd(1, out + kTile, out_bytes);
    _tile_loadd(2, out + kTile * p.out_row, out_bytes);
    _tile_loadd(3, out + kTile * p.out_row + kTile, out_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (const Bf16Term& term : p.terms) {
    if (term.depth == 0) continue;
    const Depth depth = depth_of(term, i);
    const uint16_t* left = term.left + i * term.left_row;
    const uint32_t* right = term.right + j;
    const auto left_bytes = static_cast<size_t>(term.left_row) * sizeof(uint16_t);
    const auto right_bytes = static_cast<size_t>(term.right_row) * sizeof(uint32_t);
    for (int64_t k = depth.begin; k < depth.end; k += kDepthBlock) {
      const uint32_t* pairs = right + k / 2 * term.right_row;
      _tile_loadd(6, pairs, right_bytes);
      _tile_loadd(4, left + k, left_bytes);
      _tile_loadd(7, pairs + kTile, right_bytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, left + kTile * term.left_row + k, left_bytes);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, out, out_bytes);
  _tile_stored(1, out + kTile, out_bytes);
  _tile_stored(2, out + kTile * p.out_row, out_bytes);
  _tile_stored(3, out + kTile * p.out_row + kTile, out_bytes);
}

void multiply(const Bf16Product& p) {
  for (int64_t j = 0; j < p.cols; j += 2 * kTile) {
    for (int64_t i = p.lower ? j : 0; i < p.rows; i += 2 * kTile) multiply_block(p, i, j);
  }
}

}  // namespace

const Bf16Units& amx_units() {
  static constexpr Bf16Units kUnits{multiply, configure_tiles, release_tiles};
  return kUnits;
}

bool amx_permitted() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  static const bool permitted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return permitted;
}

}  // namespace adder::ssd

#else

#include "core/error.h"

namespace adder::ssd {

const Bf16Units& amx_units() {
  ADDER_CHECK(amx_permitted());
  static constexpr Bf16Units kNone{};
  return kNone;
}
bool amx_permitted() { return false; }

}  // namespace adder::ssd

#endif
