#include "core/context.h"

#include <sched.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "core/simd_targets.h"

namespace adder {
namespace {

// CPUID leaf 7, both subleaves, asked once: in a virtual machine it costs microseconds.
Caps probe_cpuid() {
  Caps caps;
#if defined(__x86_64__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0) {
    caps.avx512_vnni = (ecx >> 11 & 1) != 0;
    caps.amx_bf16 = (edx >> 22 & 1) != 0 && (edx >> 24 & 1) != 0;
    if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0) {
      caps.avx512_bf16 = (eax >> 5 & 1) != 0;
    }
  }
#endif
  return caps;
}

}  // namespace

// The AVX-512 bits count only while 64-byte words are in use: Highway knows whether the system
// saves them, and tests force narrower targets.
Caps cpu_caps() {
  static const Caps kCpu = probe_cpuid();
  Caps caps;
  caps.vector_bytes = simd_vector_bytes();
  if (caps.vector_bytes >= 64) {
    caps.avx512_vnni = kCpu.avx512_vnni;
    caps.avx512_bf16 = kCpu.avx512_bf16;
    caps.amx_bf16 = kCpu.amx_bf16;
  }
  return caps;
}

int available_threads() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return CPU_COUNT(&set);
}

}  // namespace adder
