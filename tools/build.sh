#!/usr/bin/env bash
# Configures and builds a preset into build/PRESET; says one line where all goes well.
#   tools/build.sh PRESET [TARGET...]     without targets: everything
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:?usage: tools/build.sh PRESET [TARGET...]}
shift
targets=()
(($# == 0)) || targets=(--target "$@")
dir=build/$preset
mkdir -p "$dir"
start=$SECONDS

cmake --preset "$preset" >"$dir/configure.log" 2>&1 ||
  { cat "$dir/configure.log" >&2; echo "build: configuring '$preset' failed" >&2; exit 1; }

# On a terminal ninja rewrites its own one line; elsewhere it speaks only of warnings and failures.
quiet=()
[[ -t 1 ]] || quiet=(-- --quiet)
export NINJA_STATUS="building $preset [%f/%t] "
cmake --build "$dir" "${targets[@]}" "${quiet[@]}"
echo "built $preset in $((SECONDS - start)) s"
