// The measured best of this machine: the denominators of "per cent of the floor". Every
// figure is the best of several runs, since a ceiling is what was once reached. Thread-safe; each
// figure is measured once a process and thread count, in about 0.1 s.
#pragma once

#include <cstdint>
#include <string>

#include "core/kernel_table.h"

namespace adder::measure {

struct Ceilings {
  int threads = 1;
  std::string simd;             // the SIMD target in use while measuring
  int64_t buffer_bytes = 0;     // what the two bandwidths streamed over: larger than the caches
  double read_bytes_per_s = 0;  // reading
  double copy_bytes_per_s = 0;  // read and written bytes together
  double f32_flops_per_s = 0;   // multiply-adds, two operations each
  double f64_flops_per_s = 0;
  double bf16_flops_per_s = 0;
  double bf16_product_per_s = 0;  // what oneDNN's bf16 product of 1024 x 1024 reaches
  std::string bf16_by;        // "amx", "dot", "onednn" (matrix units), "f32" (no bf16 arithmetic)
  double f32_exps_per_s = 0;  // decay_word of the selective scan, the cheapest that we have
  double f64_exps_per_s = 0;

  double flops_per_s(Dtype dtype) const;
  double exps_per_s(Dtype dtype) const;
};

const Ceilings& ceilings(int threads);

/// Bytes a second when a working set of `bytes` is read or copied over and over: that of its cache
/// level, or of memory when it is larger than the caches. Working sets are rounded up to a power of
/// two from 256 KiB on.
double bandwidth_of_working_set(int64_t bytes, int threads);

/// A shortest time and what bounds it.
struct Floor {
  double us = 0;
  const char* bound = "";  // "bytes", or the larger part of the arithmetic: "flops" or "exps"
};
/// The shortest time that the machine allows for `cost`. Bytes may move while numbers are computed,
/// but an exponential is a polynomial on the ports of the multiply-adds, so their times add up
/// (measured on an AVX-512 machine: 64 exponentials 5.1 ns, 48 multiply-adds of a word 7.1 ns, both
/// in one loop 12.2 ns). Products on matrix units have ports of their own. `arithmetic`: the type
/// whose operations count (f32 for a bf16 kernel that computes in f32).
Floor floor_of(const Cost& cost, Dtype arithmetic, int threads);

/// One line a figure, for people.
std::string describe(const Ceilings& ceilings);

}  // namespace adder::measure
