// The loops behind ceilings.h: each keeps one resource of one core busy and nothing else. Single
// threaded; every function returns a value that depends on all of its work, so that none is
// dropped.
#pragma once

#include <cstddef>
#include <cstdint>

namespace adder::measure {

/// Reads `bytes` (a multiple of 4096) once, front to back.
double read_stream(const std::byte* from, int64_t bytes);
/// The same as four streams side by side, a quarter of it each.
double read_four_streams(const std::byte* from, int64_t bytes);
/// Reads `bytes` and writes as many, past the caches where the target has such stores.
void copy_stream(const std::byte* from, std::byte* to, int64_t bytes);

/// Dependent multiply-adds in enough independent chains to fill both units. Returns the number of
/// floating-point operations done (two a lane) and stores a value into *sink.
double multiply_adds_f32(int64_t rounds, double* sink);
double multiply_adds_f64(int64_t rounds, double* sink);
/// The cheapest exponential that the engine has, over an array in the first-level cache. Returns
/// the number of exponentials.
double exponentials_f32(int64_t rounds, double* sink);
double exponentials_f64(int64_t rounds, double* sink);

/// The same with the bf16 dot product of AVX-512; 0 where the CPU has none.
double dot_products_bf16(int64_t rounds, double* sink);
/// The same with the tiles of AMX, for a CPU that has them and a process that may use them.
double tile_products_bf16(int64_t rounds, double* sink);

}  // namespace adder::measure
