#include "core/rng.h"

#include <bit>
#include <cmath>

namespace adder {
namespace {

constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;

// ln(x) for x in (0, 1]: 2 atanh((m-1)/(m+1)) + e ln 2 with m in [sqrt(1/2), sqrt 2).
double portable_log(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0x000FFFFFFFFFFFFFull) | 0x3FF0000000000000ull);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  const double r = (m - 1.0) / (m + 1.0);
  const double r2 = r * r;
  double sum = 0.0;
  for (int k = 21; k >= 1; k -= 2) sum = sum * r2 + 1.0 / k;
  return 2.0 * r * sum + exponent * 0.6931471805599453;
}

// cos(2 pi u) for u in [0, 1): one octant by symmetry, then the Taylor series to x^18.
double portable_cos_turn(double u) {
  if (u > 0.5) u = 1.0 - u;
  const bool negate = u > 0.25;
  if (negate) u = 0.5 - u;
  const double x = u * 6.283185307179586;
  const double x2 = x * x;
  double sum = 0.0;
  for (int k = 18; k >= 2; k -= 2) sum = (sum + 1.0) * (-x2 / (k * (k - 1)));
  const double value = 1.0 + sum;
  return negate ? -value : value;
}

}  // namespace

std::array<uint32_t, 4> philox(uint64_t key, uint64_t stream, uint64_t index) {
  std::array<uint32_t, 4> counter = {
      static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
      static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)};
  auto key0 = static_cast<uint32_t>(key);
  auto key1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = static_cast<uint64_t>(kMultiplier0) * counter[0];
    const uint64_t product1 = static_cast<uint64_t>(kMultiplier1) * counter[2];
    counter = {
        static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(product1),
        static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(product0)};
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return counter;
}

double uniform01(uint64_t seed, uint64_t stream, uint64_t index) {
  const auto words = philox(seed, stream, index);
  const uint64_t bits = (static_cast<uint64_t>(words[1]) << 32) | words[0];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

uint64_t uniform_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t bound) {
  const auto words = philox(seed, stream, index);
  const uint64_t bits = (static_cast<uint64_t>(words[1]) << 32) | words[0];
  return static_cast<uint64_t>((static_cast<unsigned __int128>(bits) * bound) >> 64);
}

double normal(uint64_t seed, uint64_t stream, uint64_t index) {
  const auto words = philox(seed, stream, index);
  const uint64_t a = (static_cast<uint64_t>(words[1]) << 32) | words[0];
  const uint64_t b = (static_cast<uint64_t>(words[3]) << 32) | words[2];
  const double u = static_cast<double>((a >> 11) + 1) * 0x1p-53;  // (0, 1]
  const double v = static_cast<double>(b >> 11) * 0x1p-53;        // [0, 1)
  return std::sqrt(-2.0 * portable_log(u)) * portable_cos_turn(v);
}

uint64_t stream_of(const char* name) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (; *name != '\0'; ++name) {
    hash = (hash ^ static_cast<unsigned char>(*name)) * 0x100000001B3ull;
  }
  return hash;
}

}  // namespace adder
