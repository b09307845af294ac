#include "measure/ceilings.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "core/buffer.h"
#include "core/simd_targets.h"
#include "core/threads.h"
#include "kernels/ssd/ssd_chunk_bf16.h"
#include "measure/ceiling_loops.h"
#include "measure/gemm_call.h"

namespace adder::measure {
namespace {

constexpr int64_t kPage = 4096;
constexpr int64_t kLargestBuffer = int64_t{1} << 30;
constexpr int64_t kSmallestBuffer = int64_t{1} << 18;

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The best rate (amount a second) of `work`, which returns the amount it did, over 0.12 s and at
// least three runs.
double best_rate(const std::function<double()>& work) {
  double best = 0;
  double total = 0;
  for (int run = 0; run < 3 || total < 0.12; ++run) {
    double amount = 0;
    const double seconds = seconds_of([&] { amount = work(); });
    best = std::max(best, amount / std::max(seconds, 1e-9));
    total += seconds;
    if (total > 2.0) break;
  }
  return best;
}

// Every thread runs loop(rounds); rounds grow until one run takes 5 ms.
double rate_of_loop(int threads, double (*loop)(int64_t, double*)) {
  double sinks[256] = {};
  threads = std::min(threads, 256);
  int64_t rounds = 64;
  double probe = 0;
  while (seconds_of([&] { probe = loop(rounds, &sinks[0]); }) < 5e-3) {
    if (probe == 0) return 0;  // this CPU has no such instruction
    rounds *= 2;
  }
  return best_rate([&] {
    double amounts[256] = {};
    parallel_for(threads, threads, [&](int64_t t) { amounts[t] = loop(rounds, &sinks[t]); });
    double sum = 0;
    for (int t = 0; t < threads; ++t) sum += amounts[t];
    return sum;
  });
}

int64_t memory_bytes() {
  const int64_t available = sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE);
  int64_t bytes = kLargestBuffer;
  while (bytes > kSmallestBuffer && bytes > available / 4) bytes /= 2;
  return bytes;
}

struct Bandwidth {
  double read = 0;
  double copy = 0;
};

// Each thread streams its own part, first touched by itself: read the whole of it (whichever way is
// faster), then copy its first half to its second.
Bandwidth measure_bandwidth(int64_t bytes, int threads) {
  Buffer buffer(bytes + (int64_t{1} << 21));
  auto* base = buffer.as<std::byte>();
  base += (int64_t{1} << 21) - reinterpret_cast<intptr_t>(base) % (int64_t{1} << 21);
  madvise(base, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // fewer page walks; a hint
  const int64_t part = std::max(bytes / threads / (2 * kPage), int64_t{1}) * 2 * kPage;
  const int parts = static_cast<int>(std::min<int64_t>(threads, bytes / part));
  parallel_for(parts, parts, [&](int64_t t) { std::fill_n(base + t * part, part, std::byte{0}); });
  // Small working sets are repeated inside one timed run, so that it takes about 1 ms or more.
  const int64_t repeats = std::max<int64_t>(1, (int64_t{1} << 24) / bytes);
  const double moved = static_cast<double>(part) * parts * static_cast<double>(repeats);
  double sinks[256] = {};
  Bandwidth found;
  for (const auto read : {read_stream, read_four_streams}) {
    const double rate = best_rate([&] {
      parallel_for(parts, parts, [&](int64_t t) {
        for (int64_t r = 0; r < repeats; ++r) sinks[t] += read(base + t * part, part);
      });
      return moved;
    });
    found.read = std::max(found.read, rate);
  }
  const auto copy =
      bytes >= (int64_t{1} << 27)
          ? copy_stream
          : +[](const std::byte* from, std::byte* to, int64_t n) {
              std::copy_n(from, n,
                          to);  // streaming stores would go around the cache that is measured
            };
  found.copy = best_rate([&] {
    parallel_for(parts, parts, [&](int64_t t) {
      std::byte* mine = base + t * part;
      for (int64_t r = 0; r < repeats; ++r) copy(mine, mine + part / 2, part / 2);
    });
    return moved;
  });
  return found;
}

bool cpu_has_avx512_bf16() { return cpu_caps().avx512_bf16; }

bool may_use_amx() { return cpu_caps().amx_bf16 && ssd::amx_permitted(); }

// A well-kept library shows what the units give: a square product that fits the caches.
double product_rate_bf16(int threads) {
  constexpr int64_t kSide = 1024;
  const ArenaLayout layout;
  GemmCall<Bf16, Bf16, float> product({.shape = {.m = kSide, .n = kSide, .k = kSide}}, 1);
  Workspace workspace(threads);
  product.upload(workspace.context());
  return best_rate([&] {
    workspace.run(Workspace::Key{},
                  [&](Context& context) { product.door(context, Direction::forward, {}); });
    return 2.0 * kSide * kSide * kSide;
  });
}

Ceilings measure_ceilings(int threads) {
  Ceilings found;
  found.threads = threads;
  found.simd = simd_target_name();
  found.buffer_bytes = memory_bytes();
  const Bandwidth memory = measure_bandwidth(found.buffer_bytes, threads);
  found.read_bytes_per_s = memory.read;
  found.copy_bytes_per_s = memory.copy;
  found.f32_flops_per_s = rate_of_loop(threads, multiply_adds_f32);
  found.f64_flops_per_s = rate_of_loop(threads, multiply_adds_f64);
  found.f32_exps_per_s = rate_of_loop(threads, exponentials_f32);
  found.f64_exps_per_s = rate_of_loop(threads, exponentials_f64);
  found.bf16_flops_per_s = found.f32_flops_per_s;
  found.bf16_by = "f32";
  const auto consider = [&](double rate, const char* by) {
    if (rate <= found.bf16_flops_per_s) return;
    found.bf16_flops_per_s = rate;
    found.bf16_by = by;
  };
  if (cpu_has_avx512_bf16()) consider(rate_of_loop(threads, dot_products_bf16), "dot");
  if (may_use_amx()) consider(rate_of_loop(threads, tile_products_bf16), "amx");
  found.bf16_product_per_s = product_rate_bf16(threads);
  consider(found.bf16_product_per_s, "onednn");
  return found;
}

}  // namespace

double Ceilings::flops_per_s(Dtype dtype) const {
  if (dtype == Dtype::f64) return f64_flops_per_s;
  return dtype == Dtype::bf16 ? bf16_flops_per_s : f32_flops_per_s;
}

double Ceilings::exps_per_s(Dtype dtype) const {
  return dtype == Dtype::f64 ? f64_exps_per_s : f32_exps_per_s;
}

const Ceilings& ceilings(int threads) {
  static std::mutex mutex;
  static std::map<int, Ceilings> known;
  const std::lock_guard lock(mutex);
  auto found = known.find(threads);
  if (found == known.end()) found = known.emplace(threads, measure_ceilings(threads)).first;
  return found->second;
}

double bandwidth_of_working_set(int64_t bytes, int threads) {
  const Ceilings& machine = ceilings(threads);
  int64_t size = kSmallestBuffer;
  while (size < bytes && size < machine.buffer_bytes) size *= 2;
  if (size >= machine.buffer_bytes) {
    return std::max(machine.read_bytes_per_s, machine.copy_bytes_per_s);
  }
  static std::mutex mutex;
  static std::map<std::pair<int64_t, int>, double> known;
  const std::lock_guard lock(mutex);
  double& rate = known[{size, threads}];
  if (rate == 0) {
    const Bandwidth measured = measure_bandwidth(size, threads);
    rate = std::max(measured.read, measured.copy);
  }
  return rate;
}

Floor floor_of(const Cost& cost, Dtype arithmetic, int threads) {
  const Ceilings& machine = ceilings(threads);
  const double bandwidth = bandwidth_of_working_set(static_cast<int64_t>(cost.bytes), threads);
  const double bytes = cost.bytes / bandwidth * 1e6;
  const double flops = cost.flops / machine.flops_per_s(arithmetic) * 1e6;
  const double exps = cost.exps / machine.exps_per_s(arithmetic) * 1e6;
  const bool own_ports =
      arithmetic == Dtype::bf16 && (machine.bf16_by == "amx" || machine.bf16_by == "onednn");
  const double both = own_ports ? std::max(flops, exps) : flops + exps;
  if (bytes >= both) return {bytes, "bytes"};
  return {both, flops >= exps ? "flops" : "exps"};
}

std::string describe(const Ceilings& c) {
  return fmt::format(
      "ceilings, {} thread{} ({}): read {:.1f} GB/s, copy {:.1f} GB/s (over {} MiB); "
      "multiply-add {:.1f} GFLOP/s f32, {:.1f} f64, {:.1f} bf16 ({}; oneDNN's product {:.1f}); exp "
      "{:.2f} G/s f32, {:.2f} "
      "f64",
      c.threads, c.threads == 1 ? "" : "s", c.simd, c.read_bytes_per_s / 1e9,
      c.copy_bytes_per_s / 1e9, c.buffer_bytes >> 20, c.f32_flops_per_s / 1e9,
      c.f64_flops_per_s / 1e9, c.bf16_flops_per_s / 1e9, c.bf16_by, c.bf16_product_per_s / 1e9,
      c.f32_exps_per_s / 1e9, c.f64_exps_per_s / 1e9);
}

}  // namespace adder::measure
