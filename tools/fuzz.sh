#!/usr/bin/env bash
# Builds the libFuzzer targets (clang-19) and runs each from seeds of the goldens.
#   tools/fuzz.sh [SECONDS]     for each target; 5 unless given
# A finding leaves its input in build/fuzz/findings; a planted bug must be found.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-5}
tools/build.sh fuzz fuzz_targets
bin=build/fuzz/bin
findings=build/fuzz/findings
corpus=build/fuzz/corpus # inputs that earlier runs found interesting stay
mkdir -p "$findings" "$corpus"/{safetensors,json,model_config,token_shard,checkpoint,canary}
export UBSAN_OPTIONS=print_stacktrace=1

# seed TARGET PREFIX FILE...: writes each file after the byte that tells the target how to take it.
seed() {
  local target=$1 prefix=$2 file
  shift 2
  for file in "$@"; do
    { printf "%b" "$prefix"; cat "$file"; } >"$corpus/$target/seed_$(tr / _ <<<"$file")"
  done
}
mapfile -t configs < <(find tests/golden -name config.json)
mapfile -t tensors < <(find tests/golden -name '*.safetensors' -size -64k)
seed json '' "${configs[@]}"
seed model_config '' "${configs[@]}"
seed safetensors '\x01' "${tensors[@]}"
# The headers of checkpoints are JSON; shards start from the magic alone.
printf '\x01{"tensors":{},"values":{}}' >"$corpus/checkpoint/seed_header"
printf '\x01ADDRTOK1' >"$corpus/token_shard/seed_magic"

fuzz() {
  local target=$1 log=$findings/$1.log
  shift
  "$bin/${target}_fuzz" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -max_len=65536 \
    -artifact_prefix="$findings/$target-" "$@" "$corpus/$target" >"$log" 2>&1
}

# A gate is worth something only if it can go red.
if fuzz canary -max_total_time=60 || ! grep -q heap-buffer-overflow "$findings/canary.log"; then
  echo "fuzz: the planted bug was not found" >&2
  exit 1
fi
rm -f "$findings"/canary-*

targets=(safetensors json model_config token_shard checkpoint)
running=()
for target in "${targets[@]}"; do
  ((${#running[@]} < $(nproc))) || { wait "${running[0]}" || :; running=("${running[@]:1}"); }
  fuzz "$target" &
  running+=($!)
done
wait

failed=0
for target in "${targets[@]}"; do
  line=$(grep -aE '^(Done|SUMMARY)' "$findings/$target.log" | tail -n 1)
  echo "fuzz $target: ${line:-no end}"
  [[ $line == Done* ]] || { failed=1; tail -n 40 "$findings/$target.log" >&2; }
done
((failed == 0)) || exit 1
echo "fuzz: the planted bug was found, nothing else in $seconds s a target"
