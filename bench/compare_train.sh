#!/usr/bin/env bash
# Training step of Adder and of PyTorch in one run on one machine: prints both and the ratio.
#   bench/compare_train.sh [mamba1|mamba2] PYTHON PEER_SCRIPT
# PYTHON has torch and transformers; PEER_SCRIPT is cpu_train.py of the peers (shared/peers). Each
# of the peer's ways (eager, compiled) that finishes gives a row for f32 and, for Mamba-2, bf16, in
# bench/results/compare_train.jsonl. PyTorch is needed only here, never for the build.
# ADDER_BIN: the binary, build/release/bin/adder unless set.
# PEERS: which of the peer's ways ("m2"; all unless set).
# RUN: a prefix of every command of both sides, e.g. "chrt -f 30" on a busy machine.
set -euo pipefail
cd "$(dirname "$0")/.."
usage="usage: bench/compare_train.sh [mamba1|mamba2] PYTHON PEER_SCRIPT"
arch=mamba1
if [[ ${1:-} == mamba[12] ]]; then arch=$1; shift; fi
python=${1:?$usage}
peer=${2:?$usage}
adder=${ADDER_BIN:-build/release/bin/adder}
results=bench/results/compare_train.jsonl

case $arch in
  mamba1) peers="m1c" dtypes="f32" ;;  # eager takes most of a minute a step
  mamba2) peers="m2 m2c" dtypes="f32 bf16" ;;
esac

ours=""
for dtype in $dtypes; do
  row=$(${RUN:-} "$adder" bench train --json --filter "$arch" --filter " $dtype" |
    grep '"kind":"row"')
  ours+="$row"$'\n'
done
theirs=""
for which in ${PEERS:-$peers}; do
  line=$(${RUN:-} "$python" "$peer" "$which" 2>/dev/null | tee /dev/stderr | grep 's/step')
  theirs+="$line"$'\n'
done

"$python" - "$ours" "$theirs" "$results" <<'PY'
import json, re, sys
rows = [json.loads(line) for line in sys.argv[1].splitlines() if line]
peers = [line for line in sys.argv[2].splitlines() if line]
with open(sys.argv[3], "a") as out:
    for row in rows:
        ours = row["median_us"] / 1e6
        for line in peers:
            peer = float(re.search(r": ([0-9.]+) s/step", line).group(1))
            name = "transformers " + ("compiled" if "compiled" in line else "eager")
            print(f"{row['line']} {row['dtype']}: Adder {ours:.3f} s a step, "
                  f"{name} f32 {peer:.3f} s: {peer / ours:.1f}x")
            out.write(json.dumps(row | {"kind": "comparison", "peer": name, "peer_s": peer,
                                        "ratio": peer / ours}) + "\n")
PY
