#!/usr/bin/env bash
# Training step of Adder and of PyTorch in one run on one machine: prints both and the ratio.
#   bench/compare_train.sh PYTHON PEER_SCRIPT
# PYTHON has torch and transformers; PEER_SCRIPT is cpu_train.py of the peers (shared/peers). Rows
# go to bench/results/compare_train.jsonl. PyTorch is needed only here, never for the build.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:?usage: bench/compare_train.sh PYTHON PEER_SCRIPT}
peer=${2:?usage: bench/compare_train.sh PYTHON PEER_SCRIPT}
adder=build/release/bin/adder
results=bench/results/compare_train.jsonl

ours=$("$adder" bench train --json --filter mamba1 --filter f32 | grep '"kind":"row"')
echo "$ours"
peer_line=$("$python" "$peer" m1c 2>/dev/null | tee /dev/stderr | grep 's/step')

"$python" - "$ours" "$peer_line" "$results" <<'PY'
import json, re, sys
row = json.loads(sys.argv[1].splitlines()[-1])
peer = float(re.search(r": ([0-9.]+) s/step", sys.argv[2]).group(1))
ours = row["median_us"] / 1e6
print(f"Adder {ours:.3f} s a step, PyTorch (compiled) {peer:.3f} s: {peer / ours:.1f}x")
row.update(kind="comparison", peer="transformers compiled", peer_s=peer, ratio=peer / ours)
with open(sys.argv[3], "a") as out:
    out.write(json.dumps(row) + "\n")
PY
