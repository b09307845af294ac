#include "core/context.h"

#include <sched.h>

#include "core/simd_targets.h"

namespace adder {
namespace {

Caps probe() {
  Caps caps;
  caps.vector_bytes = simd_vector_bytes();
#if defined(__x86_64__) && defined(__GNUC__)
  caps.avx512_vnni = __builtin_cpu_supports("avx512vnni") != 0;
#if !defined(__clang__)
  caps.avx512_bf16 = __builtin_cpu_supports("avx512bf16") != 0;
#endif
#endif
  return caps;
}

}  // namespace

Caps Context::caps() const {
  Caps caps = probe();
  caps.device = device;
  caps.threads = threads;
  return caps;
}

int available_threads() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return CPU_COUNT(&set);
}

}  // namespace adder
