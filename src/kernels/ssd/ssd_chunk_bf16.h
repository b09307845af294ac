// Products of bf16 matrices with sums in float, for the chunked lines: two sets of intrinsics
// behind one list of functions. Called only where Caps has the units.
//
//   left   (rows, depth): bf16, rows one after the other, depth padded to kDepthBlock with zeros
//   right  (depth, cols): pairs of bf16 of rows k and k + 1 (the even one in the low half), pair
//          rows one after the other, depth padded to kDepthBlock with zeros
#pragma once

#include <cstdint>

namespace adder::ssd {

inline constexpr int64_t kDepthBlock = 32;

/// A scratch matrix of float to be rounded to bf16.
struct FloatMatrix {
  const float* data;
  int64_t row;  // elements from row to row
  int64_t rows, cols;
};

struct Bf16Term {
  const uint16_t* left = nullptr;
  int64_t left_row = 0;
  const uint32_t* right = nullptr;
  int64_t right_row = 0;
  int64_t depth = 0;   // 0: no term
  bool lower = false;  // left is zero where k > row
  bool upper = false;  // left is zero where k < row
};

struct Bf16Product {
  int64_t rows = 0, cols = 0;  // written up to whole blocks of 32
  float* out = nullptr;
  int64_t out_row = 0;
  bool add = false;
  bool lower = false;  // only columns j <= i are wanted
  Bf16Term terms[2] = {};
};

struct Bf16Units {
  void (*multiply)(const Bf16Product&);
  /// Around the products of one thread.
  void (*begin)();
  void (*end)();
};

/// The matrix unit: 16 x 32 by 32 x 16 tiles.
const Bf16Units& amx_units();
/// Asks the system once for the right to use the tiles.
bool amx_permitted();
/// The dot product of AVX-512 BF16.
const Bf16Units& avx512bf16_units();

// Operands from float, times scale: m as left or right, or its transpose (_t). `row`: elements
// (left) or pairs (right) from row to row of the result. They need AVX-512 BF16.
void pack_left(const FloatMatrix& m, uint16_t* out, int64_t row);
void pack_left_t(const FloatMatrix& m, uint16_t* out, int64_t row);
void pack_right(const FloatMatrix& m, uint32_t* out, int64_t row);
void pack_right_t(const FloatMatrix& m, float scale, uint32_t* out, int64_t row);

}  // namespace adder::ssd
