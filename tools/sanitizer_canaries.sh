#!/usr/bin/env bash
# A gate is worth something only if it can go red: four planted bugs that the sanitizers must catch,
# and a race-free OpenMP program that must pass (without Archer, or with gcc's OpenMP, it fails).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export TSAN_OPTIONS=ignore_noninstrumented_modules=1
# Archer, which comes with clang's OpenMP, tells the thread sanitizer about its barriers.
export OMP_TOOL_LIBRARIES=/usr/lib/llvm-19/lib/libarcher.so
asan=(g++ -g -O1 -fsanitize=address -fsanitize=undefined -fno-sanitize-recover=all)
tsan=(clang++-19 -g -O1 -fopenmp -fsanitize=thread)

# red NAME WORDS COMPILER...: the program on stdin must fail and say WORDS.
red() {
  local name=$1 words=$2
  shift 2
  "$@" -x c++ - -o "$dir/$name"
  if "$dir/$name" >"$dir/$name.log" 2>&1 || ! grep -q "$words" "$dir/$name.log"; then
    cat "$dir/$name.log" >&2
    echo "canary '$name' lives: the gate cannot go red" >&2
    exit 1
  fi
  echo "canary '$name' was caught"
}

red overflow 'heap-buffer-overflow' "${asan[@]}" <<'CPP'
int* volatile p;
int main(int n, char**) { p = new int[4]; int r = p[n + 3]; delete[] p; return r == 1; }
CPP
red leak 'detected memory leaks' "${asan[@]}" <<'CPP'
int* volatile p; int main() { p = new int[4]; p = nullptr; }
CPP
red undefined 'signed integer overflow' "${asan[@]}" <<'CPP'
int main(int n, char**) { int big = 2147483647; return big + n == 0; }
CPP
red race 'data race' "${tsan[@]}" <<'CPP'
int main() {
  long sum = 0;
#pragma omp parallel for num_threads(2)
  for (int i = 0; i < 10000; ++i) sum += i;
  return sum == 1;
}
CPP

"${tsan[@]}" -x c++ - -o "$dir/clean" <<'CPP'
int values[10000];
int main() {
  long sum = 0;
  for (int round = 0; round < 20; ++round) {
#pragma omp parallel for num_threads(2)
    for (int i = 0; i < 10000; ++i) values[i] += i;
#pragma omp parallel for num_threads(2) schedule(dynamic, 64) reduction(+ : sum)
    for (int i = 0; i < 10000; ++i) sum += values[9999 - i];
  }
  return sum == 1;
}
CPP
"$dir/clean"
echo "no false report on OpenMP without a race"
