#!/usr/bin/env bash
# A gate is worth something only if it can go red: four planted bugs that the sanitizers must catch,
# and a threaded program without a race that must pass.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export TSAN_OPTIONS=ignore_noninstrumented_modules=1
asan=(g++ -g -O1 -fsanitize=address -fsanitize=undefined -fno-sanitize-recover=all)
tsan=(clang++-19 -g -O1 -std=c++20 -fsanitize=thread)

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
#include <thread>
long sum = 0;
void add() { for (int i = 0; i < 10000; ++i) sum += i; }
int main() { std::thread other(add); add(); other.join(); return sum == 1; }
CPP

# Values are handed over by an atomic that the other side waits for, as in core/thread_team.
"${tsan[@]}" -x c++ - -o "$dir/clean" <<'CPP'
#include <atomic>
#include <thread>
int values[10000];
std::atomic<int> round{0};
int main() {
  std::thread other([] {
    for (int r = 1; r < 20; r += 2) {
      round.wait(r - 1);
      for (int& value : values) ++value;
      round.store(r + 1);
      round.notify_one();
    }
  });
  for (int r = 0; r < 20; r += 2) {
    for (int& value : values) ++value;
    round.store(r + 1);
    round.notify_one();
    for (int now; (now = round.load()) == r + 1;) round.wait(now);
  }
  other.join();
  return values[0] == 20 ? 0 : 1;
}
CPP
"$dir/clean"
echo "no false report on threads without a race"
