// Counter-based random numbers (Philox4x32-10, Salmon et al., SC'11): the value at (seed, stream,
// index) depends on nothing else, so order, threads, devices and restarts cannot change it. The
// floating-point conversions use only IEEE add, multiply, divide and square root in double, so the
// bits are the same on every device.
#pragma once

#include <array>
#include <cstdint>

namespace adder {

/// Four random words for one 128-bit counter (index, stream) under a 64-bit key.
std::array<uint32_t, 4> philox(uint64_t key, uint64_t stream, uint64_t index);

/// Uniform in [0, 1), 53 bits.
double uniform01(uint64_t seed, uint64_t stream, uint64_t index);
/// Uniform integer in [0, bound), bound >= 1; exact up to a bias below bound / 2^64.
uint64_t uniform_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t bound);
/// Standard normal (Box-Muller).
double normal(uint64_t seed, uint64_t stream, uint64_t index);
/// A stream id from a name (64-bit FNV-1a), so that every tensor draws from its own stream.
uint64_t stream_of(const char* name);

}  // namespace adder
